"""The heat maps of a batch, with the boxes, masks or parts of their images and the clean pass of the model.

Legend: B rows (image, target), M maps of a row (one a method), P pixels of a map, C colours, (H, W) pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.model.baselines import Baseline
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True)
class Parts:
    """The parts of an image, with the value of each for one class, such as its Shapley value.

    Attributes:
        index_HW: integers, the index of the part at each pixel of the model's input: 1 to P, 0 for the background.
        values_P: float64, the values of parts 1 to P.
        target: the class.
    """

    index_HW: Tensor
    values_P: Tensor
    target: int


@dataclass(frozen=True)
class Truth:
    """Ground truth of the rows of a batch.

    Attributes:
        boxes_xyxy: boxes of the explained class, (n, 4) as (x0, y0, x1, y1) in pixels of the model's input; None if the
            row has no box.
        masks_HW: pixels of the explained class, bool, instead of boxes; None if the row has no mask.
        parts: the parts of the image; None if it has none. They apply to rows that explain their class.
    """

    boxes_xyxy: Sequence[Tensor | None]
    masks_HW: Sequence[Tensor | None] = ()
    parts: Sequence[Parts | None] = ()


class HeatmapBatch:
    """All heat maps of a batch, with the clean pass and the ground truth.

    Attributes:
        heatmaps_BMHW: heat maps in [0, 1]; a degenerate map is all zero.
        evidence: evidence of the clean pass.
        truth: boxes, masks or parts.
        probe: the model.
        raw: function that computes the maps before they are scaled; it is called only if a metric reads them.
    """

    def __init__(
        self,
        heatmaps_BMHW: Tensor,
        evidence: Evidence,
        truth: Truth,
        probe: Probe,
        raw: Callable[[], Tensor] | None = None,
    ) -> None:
        self.heatmaps_BMHW = heatmaps_BMHW
        self.evidence = evidence
        self.truth = truth
        self.probe = probe
        self._raw = raw
        self._fills: dict[Baseline, Tensor] = {}
        self._regions: dict[int, list[Tensor | None]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Return the height and width of the images."""
        return self.heatmaps_BMHW.shape[-2], self.heatmaps_BMHW.shape[-1]

    @property
    def degenerate_BM(self) -> Tensor:
        """Return which heat maps are all zero, (B, M)."""
        return ~self.heatmaps_BMHW.flatten(2).any(2)

    @cached_property
    def raw_BMHW(self) -> Tensor:
        """Return the maps before they are scaled to [0, 1], at the size of the images: signed where the method is."""
        if self._raw is None:
            raise ValueError("this metric reads raw maps, but the batch has heat maps only: pass `raw`")
        return self._raw()

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

    @cached_property
    def parts_B(self) -> list[Parts | None]:
        """Return the parts of each row; None where it has none, explains another class, or a part has no pixel."""
        parts_B = self.truth.parts or [None] * len(self.evidence.keys)
        rows = zip(parts_B, self.evidence.targets_B.tolist(), strict=True)
        return [
            parts if parts is not None and parts.target == target and _all_seen(parts) else None
            for parts, target in rows
        ]

    def regions(self, dilation: int) -> list[Tensor | None]:
        """Return the index of the dilated part at each pixel of each row, (H, W), computed once; None without parts."""
        if dilation not in self._regions:
            device = self.heatmaps_BMHW.device
            self._regions[dilation] = [
                None if parts is None else dilated(parts.index_HW, dilation).to(device) for parts in self.parts_B
            ]
        return self._regions[dilation]

    def fill(self, kind: Baseline) -> Tensor:
        """Return the baseline image that replaces masked pixels, (B, C, H, W)."""
        if kind not in self._fills:
            self._fills[kind] = self.probe.baseline_pixels(kind, self.evidence.pixels_BCHW)
        return self._fills[kind]


def dilated(index_HW: Tensor, reach: int) -> Tensor:
    """Extend each part by the pixels at a Euclidean distance of at most `reach`; each goes to the nearest part.

    Of parts at the same distance, the one with the lowest index takes the pixel.
    """
    from scipy import ndimage  # slow to import

    index = index_HW.cpu().numpy().astype(np.int64)
    nearest, region = np.full(index.shape, np.inf), np.zeros_like(index)
    for part, spans in enumerate(ndimage.find_objects(index), 1):
        if spans is None:
            continue
        around = tuple(slice(max(0, span.start - reach), span.stop + reach) for span in spans)
        distance = ndimage.distance_transform_edt(index[around] != part)
        taken = (distance <= reach) & (distance < nearest[around])
        nearest[around][taken], region[around][taken] = distance[taken], part
    return torch.from_numpy(region)


def _all_seen(parts: Parts) -> bool:
    return bool((torch.bincount(parts.index_HW.flatten().long(), minlength=len(parts.values_P) + 1)[1:] > 0).all())


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
