"""What a transform of the user's makes of black and white: read from its parts, or measured; and whether it is random.

Legend: C colours, (H, W) pixels.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD
from pipeline.model.steadiness import random_numbers

Numbers = tuple[float, ...]
_LIBRARIES = ("torchvision", "timm")
_SAME_VALUES = frozenset(
    {"Resize", "CenterCrop", "Pad", "GaussianBlur", "Identity", "RGB", "ToPureTensor", "ResizeKeepRatio"}
    | {"CenterCropOrPad", "TrimBorder"}
)
"""Transforms of torchvision and timm that move pixels, and leave black black."""
_LEVELS = (0, 51, 255)
"""Grey levels of the images that a transform is measured on; the second tells whether it is linear."""
_ROUNDING = 1e-3
"""How far measured values may be from a straight line, relative to the distance from black to white."""
_CLOSE = 1e-5
_MANY = 24
"""Calls of a transform that draws random numbers, which may matter only rarely."""


@dataclass(frozen=True)
class Scale:
    """How pixels in [0, 1] become values: (pixel - mean) / std; one number for each colour, or one for all."""

    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    form: Literal["picture", "bytes", "floats"] = "floats"

    def normalised(self, mean: Numbers, std: Numbers) -> "Scale | None":
        """Return the scale after a normalisation of the values; None if the numbers do not fit."""
        count = max(map(len, (self.mean, self.std, mean, std)))
        parts = [list(part) * count if len(part) == 1 else list(part) for part in (self.mean, self.std, mean, std)]
        if any(len(part) != count for part in parts) or min(parts[3]) <= 0:
            return None
        rows = list(zip(*parts, strict=True))
        return Scale(tuple(m0 + m * s0 for m0, s0, m, _ in rows), tuple(s0 * s for _, s0, _, s in rows))

    def of_colours(self, count: int) -> "Scale | None":
        """Return the scale with one number for each of so many colours; None if it has others."""
        mean, std = (part * count if len(part) == 1 else part for part in (self.mean, self.std))
        return Scale(mean, std) if len(mean) == len(std) == count else None


_BYTES_AS_FLOATS = Scale((0.0,), (1 / 255,))


def read_scale(transform: object) -> Scale | None:
    """Read the scale from the parts of a transform of torchvision or timm; None if a part is another, or unclear."""
    scale: Scale | None = Scale(form="picture")
    for part in _parts(transform):
        scale = None if scale is None else _after(part, scale)
    return scale if scale is not None and scale.form == "floats" else None


def measured_scale(transform: Callable[[Image.Image], object], size: tuple[int, int]) -> Scale | None:
    """Measure the scale on plain images of a size (H, W); None unless each becomes one value for each colour.

    ImageNet's numbers are returned as they are written everywhere, without the rounding of the measurement.
    """
    found = []
    for level in _LEVELS:
        try:
            values_CHW = transform(Image.new("RGB", size[::-1], (level,) * 3))
        except Exception:  # a function of the user's may raise anything on an image that is not one of his
            return None
        if not isinstance(values_CHW, Tensor) or values_CHW.ndim != 3 or not values_CHW.is_floating_point():
            return None
        found.append(values_CHW.detach().cpu().double().flatten(1))
    if len({each.shape for each in found}) > 1:
        return None
    (black_C, dark_C, white_C), lowest = (torch.stack(found).amax(2), torch.stack(found).amin(2))
    span_C = white_C - black_C
    is_constant = ((torch.stack([black_C, dark_C, white_C]) - lowest) <= _ROUNDING * span_C).all()
    is_linear = ((dark_C - black_C - span_C * _LEVELS[1] / _LEVELS[2]).abs() <= _ROUNDING * span_C).all()
    if not (bool((span_C > 0).all()) and bool(is_constant) and bool(is_linear)):
        return None
    scale = Scale(tuple((-black_C / span_C).tolist()), tuple((1 / span_C).tolist()))
    imagenet = Scale(IMAGENET_MEAN, IMAGENET_STD)
    is_imagenet = agree(scale.mean, imagenet.mean, _CLOSE) and agree(scale.std, imagenet.std, _CLOSE)
    return imagenet if is_imagenet else scale


def agree(one: Sequence[float], other: Sequence[float], tolerance: float) -> bool:
    """Tell whether there are as many numbers, and no two differ by more than the tolerance."""
    return len(one) == len(other) and all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def check_repeats(give: Callable[[], Tensor], first: Tensor) -> None:
    """Raise ConfigError if a transform gives an image other pixels than the first time.

    It is asked once more; if it draws random numbers, often, as a change may be rare.
    """
    before = random_numbers()
    for call in range(_MANY):
        if call and random_numbers() == before:
            return
        again = give()
        if again.shape != first.shape or not torch.allclose(again, first, rtol=1e-4, atol=1e-4, equal_nan=True):
            raise ConfigError.one(
                "transform",
                "it gives the same image other pixels each time, as transforms for training do, so that maps would be "
                "of random crops or colours",
                "give the transform that the model is validated with",
            )


def _parts(transform: Any) -> Iterator[object]:  # noqa: ANN401 - torchvision is untyped
    if type(transform) is nn.Sequential:
        inner: Sequence[object] = list(transform)
    elif _kind(transform) == "Compose":
        inner = transform.transforms
    else:
        inner = ()
        yield transform
    yield from itertools.chain.from_iterable(map(_parts, inner))


def _kind(part: object) -> str:
    """Return the name of a transform of a known library; empty for any other."""
    return type(part).__name__ if type(part).__module__.partition(".")[0] in _LIBRARIES else ""


def _after(part: Any, scale: Scale) -> Scale | None:  # noqa: ANN401 - as above
    """Return the scale after one part; None if it is not known."""
    kind, form = _kind(part), scale.form
    if kind in _SAME_VALUES or type(part) is nn.Identity or (kind == "Grayscale" and form != "floats"):
        return scale
    if kind in ("ToTensor", "MaybeToTensor"):
        return Scale() if form == "picture" else None
    if kind in ("ToImage", "PILToTensor", "MaybePILToTensor"):
        return Scale(form="bytes") if form == "picture" else None
    if kind in ("ToDtype", "ConvertImageDtype") and form != "picture":
        return _as_dtype(scale, part.dtype, divides=kind == "ConvertImageDtype" or part.scale)
    if kind == "Normalize" and form == "floats":
        return scale.normalised(_numbers(part.mean), _numbers(part.std))
    return None


def _as_dtype(scale: Scale, dtype: object, *, divides: bool) -> Scale | None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        return None
    if scale.form == "floats":
        return scale
    return Scale() if divides else _BYTES_AS_FLOATS


def _numbers(given: object) -> Numbers:
    return tuple(torch.as_tensor(given, dtype=torch.float64).flatten().tolist())
