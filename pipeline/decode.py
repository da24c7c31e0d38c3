"""From encoded bytes to uint8 RGB pixels at the model's size, with the boxes moved along.

The rule, in order:

1. Only the allowed formats are opened (JPEG, PNG, WebP by default), whatever the file is called.
2. The pixel count is checked on the header, before anything is decoded.
3. JPEG goes through simplejpeg (grey and YCbCr); everything else, and what simplejpeg refuses, through Pillow.
4. EXIF orientation is applied; of an animation the first frame is taken.
5. Colour: grey is repeated over the channels; palettes are looked up; transparency is put on white; 16-bit
   values keep their high byte; CMYK is converted by Pillow.
6. `resize` scales the shorter side and `crop` takes the centre, exactly as torchvision's presets do on a PIL
   image; `squash` scales both sides to the crop size, so that boxes stay whole.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from pipeline.sources.shards import Boxes, Chunk, Failure, Sample

PixelArray = npt.NDArray[np.uint8]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_MAGIC = {"JPEG": (b"\xff\xd8\xff",), "PNG": (b"\x89PNG\r\n\x1a\n",), "WEBP": (b"RIFF",), "GIF": (b"GIF8",)}
_LONGEST_RATIO = 8
"""Images longer than this ratio are cropped while they are resized, so that no giant strip is made."""


class UnreadableImageError(ValueError):
    """The bytes are no image that may be decoded; becomes a failure row with `code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class Preprocess:
    """How an upright image becomes the model's input, as its weights prescribe.

    Attributes:
        crop: side of the square input in pixels.
        resize: length of the shorter side before cropping; None squashes the image to the crop size.
        mean, std: per channel, of pixels in [0, 1].
    """

    crop: int
    resize: int | None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DecodeLimits:
    """What may be decoded: Pillow format names and the largest number of pixels."""

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    max_pixels: int = 64_000_000


@dataclass(frozen=True)
class DecodedSample:
    """What is known of a sample beside its pixels; `size` is (height, width) of the upright image."""

    key: str
    label: int | None
    boxes_xyxy: Boxes | None
    size: tuple[int, int]


@dataclass(frozen=True)
class DecodedChunk:
    """A chunk ready for the model; `pixels_NHWC` and `samples` run in parallel."""

    chunk: Chunk
    samples: tuple[DecodedSample, ...]
    pixels_NHWC: PixelArray
    failures: tuple[Failure, ...]
    encoded_bytes: int = 0


def decode_chunk(chunk: Chunk, preprocess: Preprocess, limits: DecodeLimits) -> DecodedChunk:
    """Decode all samples of a chunk; those that cannot be decoded join its failures. Drops the encoded bytes."""
    samples: list[DecodedSample] = []
    pixels: list[PixelArray] = []
    failures = list(chunk.failures)
    for sample in chunk.samples:
        try:
            image, orientation = decode_image(sample.image, limits)
            array, boxes = _prepare(image, orientation, sample.boxes_xyxy, preprocess)
        except UnreadableImageError as error:
            failures.append(_failure(sample, error))
            continue
        samples.append(DecodedSample(sample.key, sample.label, boxes, _upright_size(image, orientation)))
        pixels.append(array)
    stacked = np.stack(pixels) if pixels else np.empty((0, preprocess.crop, preprocess.crop, 3), np.uint8)
    emptied = Chunk(chunk.shard, chunk.ordinal, chunk.last)
    encoded_bytes = sum(len(sample.image) for sample in chunk.samples)
    return DecodedChunk(emptied, tuple(samples), stacked, tuple(failures), encoded_bytes)


def decode_image(data: bytes, limits: DecodeLimits) -> tuple[Image.Image, int]:
    """Decode bytes to an RGB image as stored, and its EXIF orientation (1 to 8).

    Raises:
        UnreadableImageError: code `format` (not an allowed format), `too_large` (more than `max_pixels`) or
            `corrupt` (an allowed format that cannot be decoded).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(data, limits)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError("too_large", str(error)) from None
    except UnreadableImageError:
        raise
    except Exception as error:  # hostile bytes: Pillow's parsers raise nearly every type there is
        code = "corrupt" if _is_allowed(data, limits) else "format"
        raise UnreadableImageError(code, f"{type(error).__name__}: {error}") from None


def resized(image: Image.Image, preprocess: Preprocess) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """Bring an upright image to the model's size; also give the part of it that is seen, as (x0, y0, x1, y1)."""
    width, height = image.size
    crop, resample = preprocess.crop, _RESAMPLE[preprocess.interpolation]
    if preprocess.resize is None:
        return image.resize((crop, crop), resample), (0.0, 0.0, float(width), float(height))
    new_width, new_height = _shorter_side_to(preprocess.resize, width, height)
    left, top = _centred(new_width, crop), _centred(new_height, crop)
    scale_x, scale_y = width / new_width, height / new_height
    seen = (left * scale_x, top * scale_y, (left + crop) * scale_x, (top + crop) * scale_y)
    if max(new_width, new_height) > _LONGEST_RATIO * preprocess.resize:
        return image.resize((crop, crop), resample, box=seen), seen
    enlarged = image.resize((new_width, new_height), resample)
    return enlarged.crop((left, top, left + crop, top + crop)), seen


def _decode(data: bytes, limits: DecodeLimits) -> tuple[Image.Image, int]:
    with Image.open(io.BytesIO(data), formats=limits.formats) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise UnreadableImageError("too_large", f"{width}x{height} is more than {limits.max_pixels} pixels")
        orientation = _orientation(image)
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            fast = _decode_jpeg(data)
            if fast is not None and fast.size == image.size:
                return fast, orientation
        return to_rgb(image), orientation


def _decode_jpeg(data: bytes) -> Image.Image | None:
    try:
        return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB"))
    except (ValueError, RuntimeError):
        return None  # Pillow has the last word


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB by the rule in the module's docstring.

    Raises:
        UnreadableImageError: code `mode`, for pixels that have no defined range (32-bit float).
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode == "F":
        raise UnreadableImageError("mode", "32-bit float pixels have no defined range")
    if image.mode.startswith("I"):
        high = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; a damaged EXIF block means an upright image, as every viewer takes it."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # hostile EXIF: any type of error
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a stored image the way its EXIF orientation says."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def upright_boxes(boxes: Boxes, orientation: int, width: int, height: int) -> Boxes:
    """Move boxes from the stored image (width x height) to the upright one."""

    def corner(x: float, y: float) -> tuple[float, float]:
        if orientation in (2, 3, 7, 8):
            x = width - x
        if orientation in (3, 4, 6, 7):
            y = height - y
        return (y, x) if orientation >= 5 else (x, y)

    moved = [(corner(x0, y0), corner(x1, y1)) for x0, y0, x1, y1 in boxes]
    return tuple((min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])) for a, b in moved)


def _prepare(
    image: Image.Image, orientation: int, boxes: Boxes | None, preprocess: Preprocess
) -> tuple[PixelArray, Boxes | None]:
    width, height = image.size
    small, seen = resized(upright(image, orientation), preprocess)
    array = np.asarray(small, dtype=np.uint8)
    if boxes is None:
        return array, None
    return array, moved_boxes(upright_boxes(boxes, orientation, width, height), seen, preprocess.crop)


def moved_boxes(boxes: Boxes, seen: tuple[float, float, float, float], crop: int) -> Boxes:
    """Move boxes of the upright image into the model's input; what the crop does not see is cut off."""
    left, top, right, bottom = seen

    def fit(value: float, low: float, high: float) -> float:
        return min(max((value - low) / (high - low) * crop, 0.0), float(crop))

    moved = [
        (fit(x0, left, right), fit(y0, top, bottom), fit(x1, left, right), fit(y1, top, bottom))
        for x0, y0, x1, y1 in boxes
    ]
    return tuple(box for box in moved if box[0] < box[2] and box[1] < box[3])


def _shorter_side_to(length: int, width: int, height: int) -> tuple[int, int]:
    if width <= height:
        return length, int(length * height / width)
    return int(length * width / height), length


def _centred(length: int, crop: int) -> int:
    return round((length - crop) / 2.0)


def _upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if orientation >= 5 else (height, width)


def _is_allowed(data: bytes, limits: DecodeLimits) -> bool:
    return any(data.startswith(magic) for name in limits.formats for magic in _MAGIC.get(name, ()))


def _failure(sample: Sample, error: UnreadableImageError) -> Failure:
    return Failure(sample.key, sample.shard, "decode", error.code, " ".join(str(error).split())[:300])
