"""Decodes images to uint8 RGB pixels at the model's input size, and transforms their boxes accordingly.

The steps, in order:

1. Only the allowed formats are opened (JPEG, PNG, WebP by default), regardless of the file name.
2. The pixel count is checked from the header, before anything is decoded.
3. Grey and YCbCr JPEGs are decoded by simplejpeg. All other images, and those that simplejpeg rejects, are decoded
   by Pillow.
4. The EXIF orientation is applied. Of an animation, only the first frame is used.
5. Colour: grey is repeated over the channels; palettes are looked up; transparency is composited on white; 16-bit
   values keep their high byte; CMYK is converted by Pillow.
6. `resize` scales the shorter side and `crop` takes the centre, exactly as torchvision's presets do on a PIL
   image. `squash` scales both sides to the crop size, so that no box is cut off.
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from pipeline.data.framing import moved_boxes, resized, upright, upright_boxes
from pipeline.data.sources.shards import Boxes, Chunk, Failure, Sample
from pipeline.settings.preprocess import Preprocess

PixelArray = npt.NDArray[np.uint8]
_MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "WEBP": b"RIFF....WEBP", "GIF": b"GIF8"}


class UnreadableImageError(ValueError):
    """An image that cannot or must not be decoded; it becomes a failure row with `code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of decoding: the allowed formats (Pillow names) and the maximum number of pixels."""

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    max_pixels: int = 64_000_000


@dataclass(frozen=True)
class DecodedSample:
    """Metadata of a decoded sample, without its pixels; `size` is (height, width) of the upright image.

    `label`, `labels` and `box_labels` are as in `Sample`.
    """

    key: str
    label: int | None
    boxes_xyxy: Boxes | None
    size: tuple[int, int]
    labels: tuple[int, ...] = ()
    box_labels: tuple[int, ...] | None = None

    @property
    def classes(self) -> tuple[int, ...]:
        """Return the classes of the image: `labels` if there are any, else `label`."""
        return self.labels or (() if self.label is None else (self.label,))

    def boxes_of(self, target: int) -> Boxes | None:
        """Return the boxes of one class; None if there are none, or if the image has another label."""
        if self.boxes_xyxy is None or self.box_labels is None:
            return self.boxes_xyxy if self.label in (None, target) else None
        pairs = zip(self.boxes_xyxy, self.box_labels, strict=True)
        return tuple(box for box, label in pairs if label == target) or None


@dataclass(frozen=True)
class DecodedChunk:
    """A decoded chunk, ready for the model.

    `pixels_NHWC` and `samples` have the same order. `seconds` is the time spent on reading and decoding.
    """

    chunk: Chunk
    samples: tuple[DecodedSample, ...]
    pixels_NHWC: PixelArray
    failures: tuple[Failure, ...]
    encoded_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Framed:
    """One image at the model's input size: pixels (crop, crop, 3), boxes, and (height, width) before resizing.

    Boxes outside the crop are dropped. `box_indices` are the indices of the remaining boxes among those given.
    """

    pixels_HWC: PixelArray
    boxes_xyxy: Boxes | None
    size: tuple[int, int]
    box_indices: tuple[int, ...] = ()


Frame = Callable[[bytes, Boxes | None, Preprocess, DecodeLimits], Framed]


def frame_image(data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits) -> Framed:
    """Decode one image and fit it to the model's input size; raises as `decode_image` does."""
    image, orientation = decode_image(data, limits)
    width, height = image.size
    small, visible = resized(upright(image, orientation), preprocess)
    moved = moved_boxes(upright_boxes(boxes or (), orientation, width, height), visible, preprocess.crop)
    kept = None if boxes is None else tuple(moved.values())
    size = (width, height) if orientation >= 5 else (height, width)
    return Framed(np.asarray(small, dtype=np.uint8), kept, size, tuple(moved))


def decode_chunk(
    chunk: Chunk, preprocess: Preprocess, limits: DecodeLimits, frame: Frame = frame_image
) -> DecodedChunk:
    """Decode all samples of a chunk, turn undecodable ones into failures, and drop the encoded bytes."""
    samples: list[DecodedSample] = []
    pixels: list[PixelArray] = []
    failures = list(chunk.failures)
    for sample in chunk.samples:
        try:
            framed = frame(sample.image, sample.boxes_xyxy, preprocess, limits)
        except UnreadableImageError as error:
            failures.append(_failure(sample, error))
            continue
        samples.append(_decoded(sample, framed))
        pixels.append(framed.pixels_HWC)
    stacked = np.stack(pixels) if pixels else np.empty((0, preprocess.crop, preprocess.crop, 3), np.uint8)
    emptied = Chunk(chunk.shard, chunk.ordinal, chunk.last)
    encoded_bytes = sum(len(sample.image) for sample in chunk.samples)
    return DecodedChunk(emptied, tuple(samples), stacked, tuple(failures), encoded_bytes)


def _decoded(sample: Sample, framed: Framed) -> DecodedSample:
    """Build the metadata of a sample; boxes outside the crop are dropped together with their classes."""
    named = sample.box_labels
    box_labels = None if named is None else tuple(named[index] for index in framed.box_indices)
    return DecodedSample(sample.key, sample.label, framed.boxes_xyxy, framed.size, sample.labels, box_labels)


def decode_image(data: bytes, limits: DecodeLimits) -> tuple[Image.Image, int]:
    """Decode bytes to an RGB image in its stored orientation; also return the EXIF orientation (1 to 8).

    Raises:
        UnreadableImageError: code `format` (not an allowed format), `too_large` (more than `max_pixels`), `corrupt` (an
            allowed format that cannot be decoded), `memory` (out of memory) or `mode` (as `to_rgb`).
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
    except MemoryError:
        raise UnreadableImageError("memory", "decoding needs more memory than is available") from None
    except Exception as error:  # Pillow's parsers raise almost any type of exception on hostile bytes
        code = "corrupt" if _is_allowed(data, limits) else "format"
        # the message of UnidentifiedImageError contains a memory address
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise UnreadableImageError(code, f"{type(error).__name__}{reason}") from None


def _decode(data: bytes, limits: DecodeLimits) -> tuple[Image.Image, int]:
    with Image.open(io.BytesIO(data), formats=limits.formats) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise UnreadableImageError("too_large", f"{width}x{height} exceeds the limit of {limits.max_pixels} pixels")
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            fast = _decode_jpeg(data)
            if fast is not None and fast.size == image.size:
                return fast, _orientation(image)
        image.load()  # first, because reading the EXIF also loads and would take damaged pixels for damaged EXIF
        return to_rgb(image), _orientation(image)


def _decode_jpeg(data: bytes) -> Image.Image | None:
    try:
        return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB"))
    except (ValueError, RuntimeError):
        return None  # Pillow decides whether the image is corrupt


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to RGB, by the colour rules in the module docstring.

    Raises:
        UnreadableImageError: code `mode`, if pixels have no defined range (32-bit float).
    """
    if image.mode == "RGB" and "transparency" not in image.info:
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
    """Return the EXIF orientation; damaged EXIF counts as upright, as in image viewers."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # hostile EXIF raises any type of exception
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_allowed(data: bytes, limits: DecodeLimits) -> bool:
    return any(re.match(_MAGIC[name], data, re.DOTALL) for name in limits.formats if name in _MAGIC)


def _failure(sample: Sample, error: UnreadableImageError) -> Failure:
    return Failure(sample.key, sample.shard, "decode", error.code, " ".join(str(error).split())[:300])
