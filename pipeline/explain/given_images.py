"""Images as notebooks have them, PIL images, files, and arrays or tensors of uint8, become upright PIL images.

Legend: C colours, (H, W) pixels. An array is (H, W), (H, W, C) or (B, H, W, C), a tensor (H, W), (C, H, W) or
(B, C, H, W), as the libraries have them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor, uint8

from pipeline.data.colour import Coding, converted
from pipeline.data.decode import decode_image
from pipeline.data.framing import upright
from pipeline.data.limits import MAGIC, DecodeLimits, UnreadableImageError
from pipeline.errors import ConfigError, Mistakes, reason
from pipeline.maps.codec import FloatArray

_FORMATS = tuple(name for name in MAGIC if name not in ("AVIF", "HEIF"))
"""Formats of files that need no further library."""
_COLOURS = (1, 3, 4)
_FLOATS = "a float tensor is (C, H, W) or (B, C, H, W) and already normalised for the model; images are uint8"


def upright_images(given: object, channels: int) -> list[Image.Image]:
    """Return one upright PIL image, grey (1 channel) or RGB (3), for each given image; transparency becomes white.

    Raises:
        ConfigError: something is no image, or ambiguous; all of them are named at once.
    """
    images, mistakes = list[Image.Image](), Mistakes()
    items = _items(given)
    if not items:
        raise ConfigError.one("images", "there is none", "give at least one")
    for place, item in enumerate(items):
        with mistakes.collecting():
            images.append(_upright(item, f"images[{place}]", channels))
    mistakes.raise_if_any()
    return images


def _items(given: object) -> Sequence[object]:
    """Split a batch or a list into single images."""
    if isinstance(given, (Tensor, np.ndarray)) and given.ndim == 4:
        return list(given)
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _upright(item: object, where: str, channels: int) -> Image.Image:
    if isinstance(item, (str, Path)):
        return _of_file(str(item), where, channels)
    image = item if isinstance(item, Image.Image) else _of_array(item, where)
    try:
        return converted(ImageOps.exif_transpose(image), Coding(), channels, "dtype")[0]
    except (UnreadableImageError, OSError) as error:
        raise ConfigError.one(where, f"the image cannot be used: {error}") from None


def _of_file(path: str, where: str, channels: int) -> Image.Image:
    if "://" in path:
        raise ConfigError.one(where, f"'{path}' is a URL", "download it, or explain a dataset with `camatlas explain`")
    if Path(path).is_dir():
        raise ConfigError.one(where, f"'{path}' is a folder", "list its files, or use `camatlas explain`")
    try:
        found = decode_image(Path(path).read_bytes(), DecodeLimits(_FORMATS), channels)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise ConfigError.one(where, f"cannot read '{path}': {why}") from None
    return upright(found.image, found.orientation)


def _of_array(item: object, where: str) -> Image.Image:
    if isinstance(item, Tensor):
        pixels, order = item.detach().cpu(), "(C, H, W)"
        if item.dtype != uint8:
            raise ConfigError.one(where, f"a tensor of {item.dtype} among images", _FLOATS)
        array = pixels.permute(1, 2, 0).numpy() if item.ndim == 3 else pixels.numpy()
    elif isinstance(item, np.ndarray):
        array, order = item, "(H, W, C)"
        if item.dtype != np.uint8:
            hint = "give uint8 from 0 to 255, or torch.from_numpy of pixels that are normalised for the model"
            raise ConfigError.one(
                where, f"an array of {item.dtype} may mean anything: [0, 1], 0 to 255, normalised", hint
            )
    else:
        kind = type(item).__name__
        raise ConfigError.one(where, f"{kind} is no image", "give PIL images, paths, or uint8 arrays or tensors")
    if array.ndim not in (2, 3) or not array.size or (array.ndim == 3 and array.shape[2] not in _COLOURS):
        shape = tuple(item.shape)
        raise ConfigError.one(
            where, f"an image of shape {shape}", f"it must be (H, W) or {order} with 1, 3 or 4 colours"
        )
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def picture(pixels_CHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> FloatArray:
    """Return normalised pixels as an image (H, W, C) in [0, 1]; stretched to it where they lie beyond."""
    pixels_HWC = pixels_CHW.detach().float().nan_to_num().permute(1, 2, 0).cpu().numpy()
    image_HWC: FloatArray = pixels_HWC * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    low, high = float(image_HWC.min()), float(image_HWC.max())
    if low < -_BEYOND or high > 1 + _BEYOND:
        image_HWC = (image_HWC - low) / max(high - low, 1e-12)
    return image_HWC.clip(0, 1)


_BEYOND = 0.05
"""How far an interpolation may overshoot before pixels are taken to be normalised in another way."""
