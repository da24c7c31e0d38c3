"""Batches of images of one chunk, which the explainer runs through the model together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.data.decode import DecodedSample
from pipeline.data.framing import PixelArray
from pipeline.data.sources.shards import Failure, PartValues
from pipeline.explain.rows import Row, failure_row
from pipeline.metrics import Parts, Truth


@dataclass(frozen=True)
class Images:
    """What is known of images of one chunk besides their pixels.

    Attributes:
        shard, chunk: name of the shard, and ordinal of the chunk in it.
        samples: keys, labels, boxes and parts of the images.
    """

    shard: str
    chunk: int
    samples: tuple[DecodedSample, ...]

    def rows(self, images: list[int]) -> "Images":
        """Select images by index, one per row (image, target)."""
        return Images(self.shard, self.chunk, tuple(self.samples[i] for i in images))

    def failed(self, sample: DecodedSample, code: str, detail: str) -> Row:
        """Return the failure row of one image."""
        return failure_row(Failure(sample.key, self.shard, "explain", code, detail), self.chunk, sample)

    def failed_where(self, mask_N: npt.NDArray[np.bool_], code: str, detail: str) -> list[Row]:
        """Return the failure rows of the images where the mask is True."""
        pairs = zip(self.samples, mask_N.tolist(), strict=True)
        return [self.failed(sample, code, detail) for sample, failed in pairs if failed]

    def truth(self, targets_B: Tensor) -> Truth:
        """Return the boxes of each row's target class and the parts of its image, None where the image has none."""
        pairs = zip(self.samples, targets_B.tolist(), strict=True)
        boxes_by_row = [sample.boxes_of(target) for sample, target in pairs]
        return Truth(
            [None if boxes is None else torch.tensor(boxes).reshape(-1, 4) for boxes in boxes_by_row],
            parts=[_parts(sample) for sample in self.samples],
        )


@dataclass(frozen=True)
class ImageBatch(Images):
    """Images of one chunk that run through the model together.

    Attributes:
        pixels_NHWC: pixels of the images, uint8 or float32 in [0, 1], in the order of `samples`.
    """

    pixels_NHWC: PixelArray

    def where(self, mask_N: npt.NDArray[np.bool_]) -> "ImageBatch":
        """Keep the images where the mask is True; the pixels are copied only if some are left out."""
        if mask_N.all():
            return self
        samples = tuple(sample for sample, keep in zip(self.samples, mask_N, strict=True) if keep)
        return ImageBatch(self.shard, self.chunk, samples, self.pixels_NHWC[mask_N])

    def pieces(self, size: int) -> "Iterator[ImageBatch]":
        """Split into batches of at most `size` images."""
        for start in range(0, len(self.samples), size):
            rows = slice(start, start + size)
            yield ImageBatch(self.shard, self.chunk, self.samples[rows], self.pixels_NHWC[rows])


def parts_problem(parts: PartValues, weights: str, classes: int) -> str:
    """Say why the values of parts are not of this model; empty if they may be.

    Args:
        parts: the values.
        weights: sha256 of the model's weights; empty if it is not known.
        classes: number of its logits.
    """
    if parts.weights and weights and parts.weights != weights:
        return f"the values of the parts are those of another model, with the weights {parts.weights}"
    if parts.target >= classes:
        return f"the values of the parts are of class {parts.target}, but the model has {classes} classes"
    return ""


def _parts(sample: DecodedSample) -> Parts | None:
    if sample.parts is None:
        return None
    given = sample.parts.given
    return Parts(torch.tensor(sample.parts.index_HW), torch.tensor(given.values, dtype=torch.float64), given.target)
