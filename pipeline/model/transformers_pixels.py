"""Reads from a model's image processor how images become its inputs, and proves it on images.

A processor of the library transformers may do anything with an image. So every reading of its settings is compared with
what it does: images of noise, larger and smaller than the input, must become the same pixels.

Legend: C colours, (H, W) pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import ConfigError, first_line
from pipeline.model.transformers_source import PROCESSORS, Source
from pipeline.settings.preprocess import Interpolation, Preprocess, Size

_WHERE = "model.preprocess"
_HINT = "set model.preprocess to what the model needs"
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_NAMES = ("nearest", "Lanczos", "bilinear", "bicubic", "box", "Hamming")
"""Filters of Pillow by their number."""
_LEVELS = 4.0
"""Largest difference of a pixel, of 255: the library resizes tensors, which rounds otherwise than Pillow."""
_SIDES = ((1.7, 2.3), (0.9, 0.6))
"""Height and width of the images, relative to those of the input."""
_LEVIT = 256 / 224
_DIGITS = 7

Pixels = npt.NDArray[np.float64]


def preprocess_of(source: Source, name: str) -> Preprocess:
    """Return how images become inputs of a model.

    Raises:
        ConfigError: there is no image processor, or it does what `Preprocess` cannot say.
    """
    if not source.has(*PROCESSORS):
        raise ConfigError.one(_WHERE, f"'{name}' has no {PROCESSORS[0]}, which says how it reads images", _HINT)
    try:
        import transformers

        automatic: Any = transformers.AutoImageProcessor
        processor = automatic.from_pretrained(str(source.folder), local_files_only=True, trust_remote_code=False)
        _check_steps(name, vars(processor))
        return _proven(name, processor, 1 if source.config.get("num_channels") == 1 else 3)
    except ConfigError:
        raise
    except Exception as error:  # a processor may raise anything
        raise ConfigError.one(_WHERE, f"the image processor of '{name}' raised {first_line(error)}", _HINT) from None


def _check_steps(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for a step that `Preprocess` does not have."""
    resample = settings.get("resample")
    if not settings.get("do_resize"):
        raise _inexpressible(name, "does not resize images")
    if settings.get("do_pad"):
        raise _inexpressible(name, "pads images")
    if resample is not None and int(resample) not in _RESAMPLE:
        raise _inexpressible(name, f"resizes with the filter {_NAMES[int(resample)]}")


def _proven(name: str, processor: Any, colours: int) -> Preprocess:  # noqa: ANN401 - the library is untyped
    """Return the reading of a processor's settings that images confirm."""
    worst, readings = np.inf, list(_readings(name, vars(processor)))
    mean, std = _normalisation(name, processor, readings[0].size, colours)
    for reading in readings:
        found = replace(reading, mean=mean, std=std)
        differences = [_difference(processor, found, image) for image in _images(found.size, colours)]
        worst = min(worst, max(differences))
        if max(differences) <= _LEVELS:
            return found
    how = "sizes" if worst == np.inf else f"pixels, by up to {worst:.0f} of 255"
    raise _inexpressible(name, f"gives images other {how}, than its settings say")


def _readings(name: str, settings: Mapping[str, Any]) -> Iterator[Preprocess]:
    """Yield the ways to resize and crop that settings may mean: classes of processors read them in their own ways."""
    size = {key: int(value) for key, value in dict(settings["size"]).items() if value is not None}
    cropped = settings.get("crop_size") if settings.get("do_center_crop") else None
    crop = (int(cropped["height"]), int(cropped["width"])) if cropped else None
    share, shortest = settings.get("crop_pct") or 1.0, size.get("shortest_edge")
    filter_ = _RESAMPLE[2 if settings.get("resample") is None else int(settings["resample"])]
    if set(size) == {"height", "width"}:
        squashed = size["height"], size["width"]
        side = crop or squashed
        resizes: list[int | Size | None] = [None if side == squashed else squashed, int(squashed[0] / share)]
    elif set(size) == {"shortest_edge"} and shortest:
        side = crop or (shortest, shortest)
        resizes = [shortest, int(shortest / share), int(shortest * _LEVIT), None]
    else:
        raise _inexpressible(name, f"resizes images to {size}")
    for resize in dict.fromkeys(resizes):
        reading = Preprocess(side[0] if side[0] == side[1] else side, resize, filter_)
        yield replace(reading, crop_start="below") if _start_matters(reading) else reading


def _start_matters(reading: Preprocess) -> bool:
    """Tell whether the crop may start between two pixels."""
    if isinstance(reading.resize, tuple):
        return any((length - side) % 2 for length, side in zip(reading.resize, reading.size, strict=True))
    return reading.resize is not None


def _normalisation(
    name: str,
    processor: Any,  # noqa: ANN401 - the library is untyped
    size: Size,
    colours: int,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of pixels in [0, 1], from what becomes of a black and a white image."""
    images = (_processed(processor, np.full((*size, colours), level)) for level in (0, 255))
    black_C, white_C = (image_CHW[:, size[0] // 2, size[1] // 2] for image_CHW in images)  # the edge may be padding
    span_C = white_C - black_C
    if len(span_C) != colours or not (span_C > 0).all():
        raise _inexpressible(name, "makes white darker than black, or changes the number of channels")
    stated = vars(processor)
    usual = stated.get("do_rescale") and abs(float(stated.get("rescale_factor") or 0) * 255 - 1) < 1e-6
    found = -black_C / span_C, 1 / span_C
    if usual and stated.get("do_normalize"):
        given = tuple(np.broadcast_to(np.asarray(stated[key], float), colours) for key in ("image_mean", "image_std"))
        if np.allclose(np.stack(found), np.stack(given), rtol=0, atol=1e-5):
            return _plain(given[0]), _plain(given[1])
    return _plain(found[0].round(_DIGITS)), _plain(found[1].round(_DIGITS))


def _plain(values_C: Pixels) -> tuple[float, ...]:
    return tuple(float(value) + 0.0 for value in values_C)  # 0.0 for -0.0, which is another identity


def _images(size: Size, colours: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield images of noise (H, W, C), whose contrast is so low that no filter exceeds the range of a byte."""
    rng = np.random.default_rng(0)
    for sides in _SIDES:
        height, width = (round(length * side) + 1 for length, side in zip(size, sides, strict=True))
        yield rng.integers(80, 176, (height, width, colours), np.uint8)


def _difference(processor: Any, found: Preprocess, pixels_HWC: npt.NDArray[np.uint8]) -> float:  # noqa: ANN401
    """Return the largest difference of a pixel, of 255, between a processor and a reading; infinite for other sizes."""
    theirs_CHW = _processed(processor, pixels_HWC)
    if theirs_CHW.shape != (found.channels, *found.size):
        return np.inf
    mean_C11, std_C11 = (np.asarray(values).reshape(-1, 1, 1) for values in (found.mean, found.std))
    levels_CHW = (theirs_CHW * std_C11 + mean_C11) * 255
    return float(np.abs(levels_CHW - _framed(found, pixels_HWC)).max())


def _processed(processor: Any, pixels_HWC: npt.NDArray[Any]) -> Pixels:  # noqa: ANN401 - the library is untyped
    """Return what a processor makes of an image, (C, H, W)."""
    values = processor(images=_picture(pixels_HWC), return_tensors="np")["pixel_values"]
    return np.asarray(values[0], np.float64)


def _picture(pixels_HWC: npt.NDArray[Any]) -> Image.Image:
    pixels = pixels_HWC.astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _framed(found: Preprocess, pixels_HWC: npt.NDArray[np.uint8]) -> Pixels:
    """Resize and crop an image as `pipeline.data.framing` does, written a second time, (C, H, W)."""
    picture, (height, width) = _picture(pixels_HWC), found.size
    if isinstance(found.resize, tuple) or found.resize is None:
        new_height, new_width = found.resize or found.size
    else:
        shorter = min(picture.size)
        new_height, new_width = (int(found.resize * side / shorter) for side in picture.size[::-1])
    small = picture.resize((new_width, new_height), _FILTERS[found.interpolation])
    left, top = (new_width - width) // 2, (new_height - height) // 2
    if new_width < width:
        left = -((width - new_width) // 2)
    if new_height < height:
        top = -((height - new_height) // 2)
    cropped = np.atleast_3d(np.asarray(small.crop((left, top, left + width, top + height)), np.float64))
    return cropped.transpose(2, 0, 1)


def _inexpressible(name: str, what: str) -> ConfigError:
    return ConfigError.one(_WHERE, f"the image processor of '{name}' {what}, which is not supported", _HINT)
