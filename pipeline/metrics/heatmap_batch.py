"""The heat maps of a batch, with the boxes or masks of their images and the clean pass of the model.

Legend: B rows (image, target), M maps of a row (one a method), P pixels of a map, C colours, (H, W) pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.model.baselines import Baseline
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True)
class Truth:
    """Ground truth of the rows of a batch.

    Attributes:
        boxes_xyxy: boxes of the explained class, (n, 4) as (x0, y0, x1, y1) in pixels of the model's input; None if the
            row has no box.
        masks_HW: pixels of the explained class, bool, instead of boxes; None if the row has no mask.
    """

    boxes_xyxy: Sequence[Tensor | None]
    masks_HW: Sequence[Tensor | None] = ()


class HeatmapBatch:
    """All heat maps of a batch, with the clean pass and the ground truth.

    Attributes:
        heatmaps_BMHW: heat maps in [0, 1]; a degenerate map is all zero.
        evidence: evidence of the clean pass.
        truth: boxes or masks of the explained class.
        probe: the model.
    """

    def __init__(self, heatmaps_BMHW: Tensor, evidence: Evidence, truth: Truth, probe: Probe) -> None:
        self.heatmaps_BMHW = heatmaps_BMHW
        self.evidence = evidence
        self.truth = truth
        self.probe = probe
        self._fills: dict[Baseline, Tensor] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Return the height and width of the images."""
        return self.heatmaps_BMHW.shape[-2], self.heatmaps_BMHW.shape[-1]

    @property
    def degenerate_BM(self) -> Tensor:
        """Return which heat maps are all zero, (B, M)."""
        return ~self.heatmaps_BMHW.flatten(2).any(2)

    @cached_property
    def ranks_BMHW(self) -> Tensor:
        """Rank each pixel in its map, 0 for the largest value; tied pixels are in raster order."""
        flat_BMP = self.heatmaps_BMHW.flatten(2)
        order_BMP = flat_BMP.argsort(dim=2, descending=True, stable=True)
        ranks_P = torch.arange(order_BMP.shape[2], device=order_BMP.device, dtype=torch.int32)
        ranks_BMP = torch.empty_like(order_BMP, dtype=torch.int32)
        return ranks_BMP.scatter_(2, order_BMP, ranks_P.expand_as(order_BMP)).view_as(self.heatmaps_BMHW)

    @cached_property
    def inside_BHW(self) -> Tensor:
        """Mark the pixels of the explained class: those of its mask, or centred in a box; False if unknown."""
        height, width = self.size
        masks = self.truth.masks_HW or [None] * len(self.truth.boxes_xyxy)
        inside = [
            box_mask(boxes, height, width) if mask_HW is None else mask_HW.cpu()
            for boxes, mask_HW in zip(self.truth.boxes_xyxy, masks, strict=True)
        ]
        stacked_BHW = torch.stack(inside) if inside else torch.zeros(0, height, width, dtype=torch.bool)
        return stacked_BHW.to(self.heatmaps_BMHW.device)

    def fill(self, kind: Baseline) -> Tensor:
        """Return the baseline image that replaces masked pixels, (B, C, H, W)."""
        if kind not in self._fills:
            self._fills[kind] = self.probe.baseline_pixels(kind, self.evidence.pixels_BCHW)
        return self._fills[kind]


def box_mask(boxes_xyxy: Tensor | None, height: int, width: int) -> Tensor:
    """Mark the pixels whose centre lies in any box; a box smaller than a pixel marks the pixel it lies in."""
    mask_HW = torch.zeros(height, width, dtype=torch.bool)
    for x0, y0, x1, y1 in [] if boxes_xyxy is None else boxes_xyxy.tolist():
        rows, columns = _span(y0, y1, height), _span(x0, x1, width)
        mask_HW[rows, columns] = True
    return mask_HW


def _span(low: float, high: float, length: int) -> slice:
    """Return the slice of pixel indices i with low <= i + 1/2 <= high, at least one pixel."""
    first, last = int(-(-(low - 0.5) // 1)), int((high - 0.5) // 1)
    if last < first:
        first = last = int((low + high) / 2)
    return slice(max(0, min(first, length - 1)), max(0, min(last, length - 1)) + 1)
