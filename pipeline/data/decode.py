"""Decodes image files to 8-bit pixels at the model's input size, and transforms their boxes accordingly.

The steps, in order:

1. Only the allowed formats are opened (JPEG, PNG, WebP by default), regardless of the file name.
2. The pixel count is checked from the header, before anything is decoded.
3. Grey and YCbCr JPEGs are decoded by simplejpeg. All other images, and those that simplejpeg rejects, are decoded
   by Pillow.
4. The EXIF orientation is applied. Of an animation, only the first frame is used.
5. Colour: `pipeline.data.colour` converts to the model's channels, grey or RGB. Values of more than 8 bits become 8 by
   `data.window`.
6. `resize` scales the shorter side and `crop` takes the centre, as torchvision's presets do on a PIL image: exactly, or
   within one level where `pipeline.data.shrinking` shrinks a photograph. `squash` scales both sides to the crop size,
   so that no box is cut off.

Other data is decoded by a function of the user's, see `pipeline.data.arrays`.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.data.colour import Coding, converted
from pipeline.data.depth import Depth
from pipeline.data.formats import register_formats
from pipeline.data.framing import Framed, PixelArray, PlainJpeg, fitted
from pipeline.data.limits import DecodeLimits, UnreadableImageError, is_image_file
from pipeline.data.part_masks import PartMask, index_image
from pipeline.data.plain import decoded_jpeg, image_of, orientation_of
from pipeline.data.scaled import frame_scaled
from pipeline.data.sources.box_formats import in_pixels
from pipeline.data.sources.shards import NOWHERE, Boxes, Chunk, Extent, Failure, Metadata, PartValues, Sample
from pipeline.settings.preprocess import Preprocess

_SURE = frozenset(("JPEG", "PNG", "WEBP", "GIF"))
"""Formats that are told from others by their first bytes alone."""
_POINTER = b"version https://git-lfs"
_TRUNCATING = Lock()
"""Pillow's switch is one for the process."""
_PNG_DEPTH = 24
"""Offset of the bits per value in a PNG file."""
_TIFF_DEPTH = 258
"""Tag of the bits per value in a TIFF file."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image in its stored orientation.

    Attributes:
        image: in the model's channels: mode L or RGB.
        orientation: of EXIF, 1 to 8.
        peak: its largest value if it has more than 8 bits and keeps the high byte, else None.
    """

    image: Image.Image
    orientation: int = 1
    peak: int | None = None


@dataclass(frozen=True)
class DecodedParts:
    """The parts of a decoded image: their values, and the index of the part at each pixel of the model's input."""

    given: PartValues
    index_HW: PixelArray = field(compare=False)


@dataclass(frozen=True)
class DecodedSample:
    """Metadata of a decoded sample, without its pixels; `size` is (height, width) of the upright image.

    `label`, `labels`, `box_labels`, `metadata` and `extent` are as in `Sample`. `parts` is None if the run does not
    read parts. `waiting` is what its pixels are made of on the device, None if they are ready.
    """

    key: str
    label: int | None
    boxes_xyxy: Boxes | None
    size: tuple[int, int]
    labels: tuple[int, ...] = ()
    box_labels: tuple[int, ...] | None = None
    metadata: Metadata = ()
    parts: DecodedParts | None = None
    waiting: PlainJpeg | PixelArray | None = field(default=None, compare=False)
    extent: Extent = field(default=NOWHERE, compare=False)

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

    `pixels_NHWC` and `samples` have the same order. The pixels are uint8, or float32 in [0, 1] if the run has a
    decoder. `seconds` is the time spent on reading and decoding, and `depth` describes the images of more than 8 bits.
    `rules` say how images that wait for the device become pixels; None if none waits.
    """

    chunk: Chunk
    samples: tuple[DecodedSample, ...]
    pixels_NHWC: PixelArray
    failures: tuple[Failure, ...]
    encoded_bytes: int = 0
    seconds: float = 0.0
    depth: Depth = field(default_factory=Depth)
    rules: tuple[Preprocess, DecodeLimits] | None = None

    @property
    def held_bytes(self) -> int:
        """Return the bytes of the pixels, and of what those of waiting images are made of."""
        held = (sample.waiting for sample in self.samples if sample.waiting is not None)
        return self.pixels_NHWC.nbytes + sum(
            len(one.data) if isinstance(one, PlainJpeg) else one.nbytes for one in held
        )


Room: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], PixelArray]
"""Returns memory for an array of a shape and type."""


class Frame(Protocol):
    """Interface of functions that decode one image with its boxes and parts, and fit it to the model's input size."""

    def __call__(
        self,
        data: bytes,
        boxes: Boxes | None,
        preprocess: Preprocess,
        limits: DecodeLimits,
        mask: PartMask | None = None,
        /,
    ) -> Framed:
        """Decode and fit an image."""
        ...


def frame_image(
    data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits, mask: PartMask | None = None
) -> Framed:
    """Decode one image and fit it to the model's input size; raises as `decode_image` and `index_image` do."""
    if limits.too_large == "scale" and (scaled := frame_scaled(data, boxes, preprocess, limits, mask)) is not None:
        return scaled
    found = decode_image(data, limits, preprocess.channels)
    if limits.boxes_relative:
        boxes = in_pixels(boxes, *found.image.size)
    index = None if mask is None else index_image(mask, found.image.size)
    return fitted((found.image,), boxes, preprocess, found.orientation, found.peak, index)


def decode_chunk(
    chunk: Chunk, preprocess: Preprocess, limits: DecodeLimits, frame: Frame = frame_image, room: Room = np.empty
) -> DecodedChunk:
    """Decode all samples of a chunk, turn undecodable ones into failures, and drop the encoded bytes.

    `room` gives the memory in which the pixels of all samples lie together.
    """
    samples: list[DecodedSample] = []
    pixels: list[PixelArray] = []
    failures = list(chunk.failures)
    depth = Depth()
    for sample in chunk.samples:
        try:
            framed = frame(sample.image, sample.boxes_xyxy, preprocess, limits_for(sample, limits), _mask_of(sample))
        except UnreadableImageError as error:
            failures.append(_failure(sample, error))
            continue
        samples.append(_decoded(sample, framed))
        pixels.append(framed.pixels_HWC)
        depth += Depth() if framed.peak is None else Depth(1, framed.peak)
    if pixels:
        pixels_NHWC = np.stack(pixels, out=room((len(pixels), *pixels[0].shape), pixels[0].dtype))
    else:
        kind = np.uint8 if limits.decoder is None else np.float32
        pixels_NHWC = np.empty((0, *preprocess.size, preprocess.channels), kind)
    emptied = Chunk(chunk.shard, chunk.ordinal, chunk.last)
    encoded_bytes = sum(len(sample.image) for sample in chunk.samples)
    return DecodedChunk(emptied, tuple(samples), pixels_NHWC, tuple(failures), encoded_bytes, depth=depth)


def limits_for(sample: Sample, limits: DecodeLimits) -> DecodeLimits:
    """Return the rules of decoding with the unit of one sample's boxes."""
    return replace(limits, boxes_relative=True) if sample.boxes_relative else limits


def _mask_of(sample: Sample) -> PartMask | None:
    if sample.parts is None or sample.part_mask is None:
        return None
    return PartMask(sample.part_mask, len(sample.parts.values))


def _decoded(sample: Sample, framed: Framed) -> DecodedSample:
    """Build the metadata of a sample; boxes outside the crop are dropped together with their classes."""
    named = sample.box_labels
    box_labels = None if named is None else tuple(named[index] for index in framed.box_indices)
    found = sample.parts, framed.index_HW
    parts = None if found[0] is None or found[1] is None else DecodedParts(found[0], found[1])
    return DecodedSample(
        sample.key, sample.label, framed.boxes_xyxy, framed.size, sample.labels, box_labels, sample.metadata, parts,
        framed.waiting, sample.extent,
    )  # fmt: skip


def decode_image(data: bytes, limits: DecodeLimits, channels: int = 3) -> DecodedImage:
    """Decode the bytes of an image file to grey (1 channel) or RGB (3 channels).

    Raises:
        UnreadableImageError: code `format` (not an allowed format), `too_large` (more than `max_pixels`), `corrupt` (an
            allowed format that cannot be decoded), `memory` (out of memory) or `mode` (as `converted`).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(data, limits, channels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError("too_large", str(error)) from None
    except UnreadableImageError:
        raise
    except MemoryError:
        raise UnreadableImageError("memory", "decoding needs more memory than is available") from None
    except Exception as error:  # Pillow's parsers raise almost any type of exception on hostile bytes
        code = "corrupt" if is_image_file(data, _SURE.intersection(limits.formats)) else "format"
        if data.startswith(_POINTER):
            raise UnreadableImageError(code, "a git-lfs pointer, not the image itself: git lfs pull") from None
        # the message of UnidentifiedImageError contains a memory address
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise UnreadableImageError(code, f"{type(error).__name__}{reason}") from None


def _decode(data: bytes, limits: DecodeLimits, channels: int) -> DecodedImage:
    register_formats(limits.formats)
    with Image.open(io.BytesIO(data), formats=limits.formats) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise UnreadableImageError("too_large", f"{width}x{height} exceeds the limit of {limits.max_pixels} pixels")
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            fast_HWC = decoded_jpeg(data, grey=channels == 1 and image.mode == "L")
            if fast_HWC is not None and fast_HWC.shape[1::-1] == image.size:  # else Pillow says whether it is corrupt
                in_channels, _ = converted(image_of(fast_HWC), Coding(), channels, limits.window)
                return DecodedImage(in_channels, orientation_of(image))
        coding = _coding(image, data)
        _load(
            image, limits
        )  # first, because reading the EXIF also loads and would take damaged pixels for damaged EXIF
        in_channels, peak = converted(image, coding, channels, limits.window, limits.alpha)
        return DecodedImage(in_channels, orientation_of(image), peak)


def _load(image: Image.Image, limits: DecodeLimits) -> None:
    """Decode the pixels; the rest of a JPEG that ends early is grey if the run asks for it."""
    if limits.truncated == "refuse" or image.format not in ("JPEG", "MPO"):
        image.load()
        return
    with _TRUNCATING:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def _coding(image: Image.Image, data: bytes) -> Coding:
    """Read from the header how the values are stored."""
    if image.format == "PNG":
        return Coding(data[_PNG_DEPTH])
    if image.format == "TIFF":
        return Coding(max(image.tag_v2.get(_TIFF_DEPTH, (8,))))  # type: ignore[attr-defined]
    if image.format == "PPM" and image.mode == "I":
        codec, _, _, arguments = image.tile[0]  # type: ignore[attr-defined]
        return Coding(16, rescaled=codec != "raw" and arguments[1] != (1 << 16) - 1)
    return Coding(16, rescaled=True) if image.format == "JPEG2000" and image.mode.startswith("I") else Coding()


def _failure(sample: Sample, error: UnreadableImageError) -> Failure:
    detail = " ".join(str(error).split())[:300]
    return Failure(sample.key, sample.shard, "decode", error.code, detail, sample.metadata, sample.extent)
