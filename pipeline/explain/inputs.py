"""What `explain` takes as images, and how they become the input of the model: by its own transform, or a given one.

Legend: B images, C colours, (H, W) pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.data.framing import fitted
from pipeline.errors import ConfigError, Mistake, Mistakes, first_line
from pipeline.explain.given_images import upright_images
from pipeline.explain.given_transform import Scale, agree, check_repeats, measured_scale, read_scale
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD, Normalisation, unit_pixels
from pipeline.model.transforms import known_preprocess
from pipeline.settings.libraries import import_torchvision
from pipeline.settings.preprocess import Preprocess

Picture = Tensor | npt.NDArray[Any] | Image.Image | str | Path
Images = Picture | Sequence[Picture]
"""One image or several; float tensors are already normalised, everything else is an image."""
Transform = Callable[[Image.Image], object] | Preprocess
"""From an upright image to normalised pixels (C, H, W)."""

_UNKNOWN = (
    "the model does not say how images become its input",
    "give transform=, such as ResNet50_Weights.IMAGENET1K_V2, its .transforms(), or a function from a PIL image to a "
    "tensor (C, H, W); or give a float tensor that is already normalised",
)
_DOUBT = (
    "transform: what it makes of a black pixel cannot be found out, so the baseline black is that of ImageNet's mean "
    "and std, which may be another colour for this model: give mean= and std=, the normalisation of the transform, for "
    "pixels from 0 to 1"
)
_TOLERATED = 0.02
"""How far a stated mean or std may be from that of the transform, relative to its std: people leave digits out."""


@dataclass(frozen=True)
class Preparation:
    """How images become the input of a model.

    Attributes:
        transform: from an upright image to normalised pixels.
        mean, std: of the normalisation, where they are known.
        classes: names of the classes, where the weights know them.
    """

    transform: Transform
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, transform: Any) -> "Preparation":  # noqa: ANN401 - torchvision's enums are untyped
        """Find the preparation for a model.

        Raises:
            ConfigError: it is not known, or the transform is none.
        """
        chosen = known_preprocess(model) if transform is None else transform
        if chosen is None:
            raise ConfigError.one("images", *_UNKNOWN)
        if isinstance(chosen, Preprocess):
            return cls(chosen, chosen.mean, chosen.std)
        import_torchvision()
        from torchvision.models import WeightsEnum
        from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

        classes: tuple[str, ...] = ()
        if isinstance(chosen, WeightsEnum):
            classes, chosen = tuple(chosen.meta.get("categories", ())), chosen.transforms()
        if isinstance(chosen, (ImageClassification, SemanticSegmentation)):
            return cls(chosen, tuple(chosen.mean), tuple(chosen.std), classes)
        if not callable(chosen):
            raise ConfigError.one("transform", f"{type(chosen).__name__} is no transform", _UNKNOWN[1])
        scale = read_scale(chosen)
        return cls(chosen, classes=classes) if scale is None else cls(chosen, scale.mean, scale.std, classes)

    def __call__(self, images: object) -> Tensor:
        """Return the normalised pixels of images, (B, C, H, W) float32.

        Raises:
            ConfigError: an image cannot be used, or the transform does not give pixels of one shape, or is random.
        """
        channels = self.transform.channels if isinstance(self.transform, Preprocess) else 3
        if channels not in (1, 3):
            raise ConfigError.one("images", f"the model reads {channels} channels", "give a float tensor, normalised")
        upright = upright_images(images, channels)
        pixels = [self._pixels(image, place) for place, image in enumerate(upright)]
        if not isinstance(self.transform, Preprocess):
            check_repeats(lambda: self._pixels(upright[0], 0), pixels[0])
        shapes = {tuple(one.shape) for one in pixels}
        if len(shapes) > 1:
            hint = "let the transform resize and crop to one size"
            raise ConfigError.one("transform", f"it gives pixels of several shapes: {sorted(shapes)}", hint)
        return torch.stack(pixels)

    def scale(self, pixels_BCHW: Tensor) -> Scale | None:
        """Return the scale of the pixels that it gave, read or measured; None if it has none that is known."""
        if self.mean and self.std:
            found: Scale | None = Scale(self.mean, self.std)
        else:
            assert not isinstance(self.transform, Preprocess)
            found = measured_scale(self.transform, (pixels_BCHW.shape[2], pixels_BCHW.shape[3]))
        return None if found is None else found.of_colours(pixels_BCHW.shape[1])

    def _pixels(self, image: Image.Image, place: int) -> Tensor:
        if isinstance(self.transform, Preprocess):
            pixels_HWC = torch.from_numpy(np.array(fitted((image,), None, self.transform).pixels_HWC))
            normalisation = Normalisation(self.transform.mean, self.transform.std)
            return normalisation.apply(unit_pixels(pixels_HWC[None]))[0]
        try:
            found = self.transform(image)
        except Exception as error:
            raise ConfigError.one("transform", f"it raised {first_line(error)} on images[{place}]") from error
        if not isinstance(found, Tensor) or found.ndim != 3 or not found.is_floating_point():
            given = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError.one("transform", f"it gives {given}", "it must give a float tensor (C, H, W)")
        return found.float()


@dataclass(frozen=True)
class Inputs:
    """The input of the model, and how it was made; `preparation` is None for tensors that are already normalised."""

    pixels_BCHW: Tensor
    preparation: Preparation | None

    def names_of(self, count: int) -> tuple[str, ...]:
        """Return the names of so many classes; empty unless the weights know as many, and not those of another head."""
        known = () if self.preparation is None else self.preparation.classes
        return known if len(known) == count else ()

    def normalisation(self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Normalisation:
        """Return the normalisation of the pixels: as stated, else that of the preparation, else ImageNet's for colours.

        Other images than those of three channels have none by default.

        Raises:
            ConfigError: the preparation normalises in another way than stated.
        """
        known = None if self.preparation is None else self.preparation.scale(self.pixels_BCHW)
        if known is not None:
            _check_stated(mean, std, known)
            return Normalisation(mean or known.mean, std or known.std)
        if mean is None and std is None and self._is_no_colour:
            return Normalisation((), ())
        is_guess = self.preparation is not None and not (mean and std)
        return Normalisation(mean or IMAGENET_MEAN, std or IMAGENET_STD, _DOUBT if is_guess else "")

    @property
    def _is_no_colour(self) -> bool:
        return self.pixels_BCHW.ndim == 4 and self.pixels_BCHW.shape[1] != len(IMAGENET_MEAN)

    @classmethod
    def of(cls, images: object, model: nn.Module, transform: Any) -> "Inputs":  # noqa: ANN401 - as above
        """Read what was given to `explain`; images go to the device of the model.

        Raises:
            ConfigError: something is no image, or ambiguous, or the transform is not known (also a ValueError).
        """
        ready = normalised(images)
        if ready is None:
            preparation = _preparation(images, model, transform)
            weight = next(model.parameters(), None)
            pixels_BCHW = preparation(images)
            return cls(pixels_BCHW if weight is None else pixels_BCHW.to(weight.device), preparation)
        if transform is not None:
            hint = "leave it out, or give images"
            raise ConfigError.one("transform", "float tensors are already normalised, so it would not be used", hint)
        return cls(ready, None)


def _check_stated(mean: tuple[float, ...] | None, std: tuple[float, ...] | None, known: Scale) -> None:
    """Raise ConfigError if a stated mean or std differs from that of the transform by more than its last digits."""
    found = [
        Mistake(
            name,
            f"{tuple(stated)} is not that of the transform, which is {_shown(own)} for pixels from 0 to 1",
            f"leave {name}= out, or correct the transform",
        )
        for name, stated, own in (("mean", mean, known.mean), ("std", std, known.std))
        if stated and len(stated) == len(own) and not agree(stated, own, _TOLERATED * max(known.std))
    ]
    if found:
        raise ConfigError(found)


def _shown(numbers: tuple[float, ...]) -> str:
    return f"({', '.join(f'{number:.4g}' for number in numbers)})"


def _preparation(images: object, model: nn.Module, transform: Any) -> Preparation:  # noqa: ANN401 - as above
    """Find the preparation; if there is none, the mistakes in the images are told, too."""
    unknown, mistakes = Mistakes(), Mistakes()
    with unknown.collecting():
        return Preparation.of(model, transform)
    with mistakes.collecting():
        upright_images(images, 3)
    raise ConfigError([*mistakes.found, *unknown.found])


def normalised(images: object) -> Tensor | None:
    """Return float tensors as one batch (B, C, H, W), a batch itself untouched; None for images.

    Raises:
        ConfigError: tensors have several shapes, or are mixed with images.
    """
    if isinstance(images, Tensor) and images.is_floating_point():
        return images[None] if images.ndim == 3 else images
    if not isinstance(images, (list, tuple)) or not any(_is_float(one) for one in images):
        return None
    if not all(_is_float(one) for one in images):
        raise ConfigError.one("images", "float tensors, which are normalised, stand beside images", "give one kind")
    shapes = sorted({tuple(one.shape) for one in images})
    if len(shapes) > 1 or len(shapes[0]) != 3:
        raise ConfigError.one("images", f"float tensors of shapes {shapes}", "give tensors (C, H, W) of one shape")
    return torch.stack(list(images))


def _is_float(one: object) -> bool:
    return isinstance(one, Tensor) and one.is_floating_point()
