"""Decodes and frames the plain photographs of a chunk on the device that explains them.

torchvision decodes them, on a GPU by nvJPEG; the device resizes them with Pillow's filters and rounds once at the end.
So they are near what the readers would have made of them, and not equal: `decode: device` is a part of a run's
identity. An image that the device cannot decode is decoded as the readers would.

Legend: N images, C colours, (H, W) pixels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.data.decode import DecodedChunk, DecodedSample, frame_image
from pipeline.data.framing import PixelArray, PlainJpeg, place_of
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.sources.shards import Failure
from pipeline.errors import ConfigError, first_line
from pipeline.settings.preprocess import Preprocess

_TOGETHER = 32
"""Photographs that are decoded together: whole ones are held by the device until they are framed."""
_REFUSALS = (ImportError, RuntimeError)


def completed(chunk: DecodedChunk, device: str) -> DecodedChunk:
    """Return a chunk with the pixels of all its images; those that cannot be decoded become failures."""
    if chunk.rules is None:
        return chunk
    made: list[PixelArray | Failure] = []
    for start in range(0, len(chunk.samples), _TOGETHER):
        made += _completed(chunk, chunk.samples[start : start + _TOGETHER], chunk.rules, device)
    ready = [(sample, one) for sample, one in zip(chunk.samples, made, strict=True) if not isinstance(one, Failure)]
    failures = tuple(one for one in made if isinstance(one, Failure))
    pixels_NHWC = np.stack([pixels for _, pixels in ready]) if ready else chunk.pixels_NHWC[:0]
    samples = tuple(replace(sample, waiting=None) for sample, _ in ready)
    return replace(chunk, samples=samples, pixels_NHWC=pixels_NHWC, failures=(*chunk.failures, *failures), rules=None)


def _completed(
    chunk: DecodedChunk, samples: Sequence[DecodedSample], rules: tuple[Preprocess, DecodeLimits], device: str
) -> list[PixelArray | Failure]:
    """Return the pixels of some images, in order, or why there are none; one copy brings all of them to the host."""
    preprocess, limits = rules
    waiting = {i: sample.waiting for i, sample in enumerate(samples) if isinstance(sample.waiting, PlainJpeg)}
    decoded = dict(zip(waiting, _decoded(list(waiting.values()), device), strict=True))
    framed = {
        i: _framed(image, waiting[i].orientation, preprocess) for i, image in decoded.items() if image is not None
    }
    host_NHWC = torch.stack(list(framed.values())).permute(0, 2, 3, 1).cpu().numpy() if framed else np.empty(0)
    by_device = dict(zip(framed, host_NHWC, strict=True))
    found: list[PixelArray | Failure] = []
    for i, sample in enumerate(samples):
        if i in by_device:
            found.append(by_device[i])
        elif isinstance(sample.waiting, PlainJpeg):
            found.append(_by_reader(chunk, sample, sample.waiting, preprocess, limits))
        else:
            assert sample.waiting is not None
            found.append(sample.waiting)
    return found


def _decoded(images: Sequence[PlainJpeg], device: str) -> list[Tensor | None]:
    """Decode photographs (C, H, W) together, or one by one if that fails; None for those that cannot be decoded."""
    try:
        return list(decode_on(images, device))
    except torch.AcceleratorError:
        raise
    except _REFUSALS:
        return [_alone(image, device) for image in images]


def _alone(image: PlainJpeg, device: str) -> Tensor | None:
    """Decode one photograph; a device that decodes none, or lacks memory, is no matter of the image."""
    try:
        return decode_on([image], device)[0]
    except (torch.AcceleratorError, torch.OutOfMemoryError):
        raise
    except _REFUSALS:
        if reason := undecodable(device):
            raise ConfigError.one(
                "data.decode", f"a worker's device does not decode: {reason}", "leave it out: the readers then decode"
            ) from None
        return None


def undecodable(device: str) -> str:
    """Say why torchvision decodes no photograph at all on a device; empty if it does."""
    black = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    try:
        decode_on([PlainJpeg(black, 1)], device)
    except _REFUSALS as error:
        return f"torchvision says '{first_line(error)}'"
    return ""


def decode_on(images: Sequence[PlainJpeg], device: str) -> list[Tensor]:
    """Decode photographs to RGB (C, H, W) on a device; raises RuntimeError if one of them, or this device, cannot."""
    from torchvision.io import ImageReadMode, decode_jpeg  # late: it is heavy, and few runs decode on the device

    encoded = [torch.frombuffer(bytearray(image.data), dtype=torch.uint8) for image in images]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 0.29 on, torchvision names its successor
        decoded: list[Tensor] = decode_jpeg(encoded, ImageReadMode.RGB, device) if encoded else []
    return decoded


def _by_reader(
    chunk: DecodedChunk, sample: DecodedSample, image: PlainJpeg, preprocess: Preprocess, limits: DecodeLimits
) -> PixelArray | Failure:
    try:
        return frame_image(image.data, None, preprocess, limits).pixels_HWC
    except UnreadableImageError as error:
        detail = " ".join(str(error).split())[:300]
        return Failure(sample.key, chunk.chunk.shard.name, "decode", error.code, detail, sample.metadata, sample.extent)


def _framed(image_CHW: Tensor, orientation: int, preprocess: Preprocess) -> Tensor:
    """Turn a photograph upright, resize it, and take its crop, black outside of it (C, H, W)."""
    upright_CHW = _upright(image_CHW, orientation)
    height, width = upright_CHW.shape[1:]
    place = place_of(width, height, preprocess)
    new = place.new[::-1]
    values_1CHW = upright_CHW[None].float()
    if new != (height, width):
        values_1CHW = functional.interpolate(values_1CHW, size=new, mode=preprocess.interpolation, antialias=True)
    (left, top), (crop_height, crop_width) = place.corner, preprocess.size
    right, bottom = crop_width + left - new[1], crop_height + top - new[0]
    return functional.pad(values_1CHW, (-left, right, -top, bottom))[0].round().clamp(0, 255).byte()


def _upright(image_CHW: Tensor, orientation: int) -> Tensor:
    """Rotate or flip a stored image upright, as `pipeline.data.framing.upright`."""
    turned_CHW = image_CHW.transpose(1, 2) if orientation >= 5 else image_CHW
    down, across = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return turned_CHW.flip([axis for axis, flips in ((1, down), (2, across)) if flips])
