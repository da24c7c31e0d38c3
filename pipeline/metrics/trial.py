"""The trial of a batch: all its heat maps, and one place where the model is asked about changed images.

Legend: I images, B rows (image, target), M maps of a row (one a method), S changed images of a map, P passes
(flattened), T targets of one image, C colours, (H, W) pixels.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.metrics.views import Soft, View
from pipeline.model.baselines import Baseline
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

Redraw = Callable[[Tensor, Collection[int]], Tensor]
"""Draws heat maps (B, m, H, W) of changed images (B, C, H, W) by some of the methods, for the rows' targets."""


@dataclass(frozen=True)
class Truth:
    """What is known of the rows of a batch.

    Attributes:
        boxes_xyxy: boxes of the explained class, (n, 4) as (x0, y0, x1, y1) in pixels of the model's input; None where
            there is none.
        masks_HW: pixels of the explained class, bool, instead of boxes; None where there is none.
    """

    boxes_xyxy: Sequence[Tensor | None]
    masks_HW: Sequence[Tensor | None] = ()


@dataclass(frozen=True)
class Answers:
    """What the model said of the target under a view, (B, M, S), or (B, 1, S) where all maps share it; NaN where it
    was not asked.
    """

    logits_BMS: Tensor
    confidences_BMS: Tensor

    def of(self, reading: str) -> Tensor:
        """The logits, or the confidences (`probability`)."""
        return self.logits_BMS if reading == "logit" else self.confidences_BMS


class Trial:
    """All heat maps of a batch on trial; changed images of all metrics and methods fill the same passes.

    Attributes:
        heatmaps_BMHW: heat maps in [0, 1]; a degenerate map is all zero.
        evidence: the clean pass.
        truth: boxes or masks of the explained class.
        probe: the model.
    """

    def __init__(
        self, heatmaps_BMHW: Tensor, evidence: Evidence, truth: Truth, probe: Probe, redraw: Redraw | None = None
    ) -> None:
        self.heatmaps_BMHW = heatmaps_BMHW
        self.evidence = evidence
        self.truth = truth
        self.probe = probe
        self._redraw = redraw
        self._answers: dict[View, Answers] = {}
        self._fills: dict[Baseline, Tensor] = {}
        self._masked_heatmaps: dict[Baseline, Tensor] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.heatmaps_BMHW.shape[-2], self.heatmaps_BMHW.shape[-1]

    @property
    def degenerate_BM(self) -> Tensor:
        """Which heat maps show nothing."""
        return ~self.heatmaps_BMHW.flatten(2).any(2)

    @cached_property
    def ranks_BMHW(self) -> Tensor:
        """Rank of each pixel in its map, 0 for the largest value; of tied pixels the first in raster order leads."""
        flat_BMP = self.heatmaps_BMHW.flatten(2)
        order_BMP = flat_BMP.argsort(dim=2, descending=True, stable=True)
        ranks_P = torch.arange(order_BMP.shape[2], device=order_BMP.device, dtype=torch.int32)
        ranks_BMP = torch.empty_like(order_BMP, dtype=torch.int32)
        return ranks_BMP.scatter_(2, order_BMP, ranks_P.expand_as(order_BMP)).view_as(self.heatmaps_BMHW)

    @cached_property
    def inside_BHW(self) -> Tensor:
        """Pixels of the explained class: of its mask, or whose centre lies in a box; all False where unknown."""
        height, width = self.size
        masks = self.truth.masks_HW or [None] * len(self.truth.boxes_xyxy)
        found = [
            box_mask(boxes, height, width) if mask_HW is None else mask_HW.cpu()
            for boxes, mask_HW in zip(self.truth.boxes_xyxy, masks, strict=True)
        ]
        stacked_BHW = torch.stack(found) if found else torch.zeros(0, height, width, dtype=torch.bool)
        return stacked_BHW.to(self.heatmaps_BMHW.device)

    def fill(self, kind: Baseline) -> Tensor:
        """What stands where nothing is shown, (B, C, H, W)."""
        if kind not in self._fills:
            self._fills[kind] = self.probe.baseline_pixels(kind, self.evidence.pixels_BCHW)
        return self._fills[kind]

    def run(self, views: Iterable[View]) -> None:
        """Ask the model about all changed images of the views at once, in full passes."""
        wanted = [view for view in dict.fromkeys(views) if view not in self._answers]
        asked = [self._asked(view) for view in wanted]
        if not wanted:
            return
        index_P4 = torch.cat([functional.pad(rows_P3, (1, 0), value=i) for i, rows_P3 in enumerate(asked)])

        def pixels(passes_P: Tensor) -> Tensor:
            chosen_P4 = index_P4[passes_P]
            parts = []
            for i in dict.fromkeys(chosen_P4[:, 0].tolist()):
                _, rows_R, maps_R, steps_R = chosen_P4[chosen_P4[:, 0] == i].unbind(1)
                parts.append(wanted[i].pixels(self, rows_R, maps_R, steps_R))
            return torch.cat(parts)

        found_2PT = self.probe.scorer.answers(pixels, self.evidence.all_targets()[index_P4[:, 1]])
        parts = torch.split(found_2PT, [len(rows_P3) for rows_P3 in asked], 1)
        for view, rows_P3, found in zip(wanted, asked, parts, strict=True):
            self._answers[view] = self._gathered(view, rows_P3, found)

    def answers(self, view: View) -> Answers:
        """What the model says of the changed images of a view; run now unless it was run with others."""
        self.run([view])
        return self._answers[view]

    def redrawn(self, pixels_BCHW: Tensor, methods: Collection[int]) -> Tensor:
        """Heat maps (B, m, H, W) of changed images, by some of the methods."""
        if self._redraw is None:
            raise ValueError("this trial knows the maps alone, not the methods that drew them")
        return self._redraw(pixels_BCHW, methods)

    def masked_heatmaps(self, fill: Baseline) -> Tensor:
        """Heat maps (B, M, H, W) of each image as seen through its own heat maps; drawn once per fill."""
        if fill not in self._masked_heatmaps:
            rows_B = torch.arange(len(self.evidence.keys), device=self.evidence.targets_B.device)
            drawn = [
                self.redrawn(Soft(fill).pixels(self, rows_B, torch.full_like(rows_B, m), torch.zeros_like(rows_B)), [m])
                for m in range(self.heatmaps_BMHW.shape[1])
            ]
            self._masked_heatmaps[fill] = torch.cat(drawn, 1)
        return self._masked_heatmaps[fill]

    def _asked(self, view: View) -> Tensor:
        """Rows, maps and steps that the model is asked about, (P, 3)."""
        device = self.evidence.targets_B.device
        rows = view.applies(self)
        if view.scope == "image":
            first_B = torch.zeros_like(rows)
            first_B[self.evidence.first_rows()] = True
            rows = rows & first_B
        maps = self.heatmaps_BMHW.shape[1] if view.scope == "map" else 1
        return torch.cartesian_prod(
            rows.nonzero()[:, 0], torch.arange(maps, device=device), torch.arange(view.count(), device=device)
        ).view(-1, 3)

    def _gathered(self, view: View, asked_P3: Tensor, found_2PT: Tensor) -> Answers:
        """Put answers back to their rows, maps and steps."""
        rows, maps = len(self.evidence.keys), self.heatmaps_BMHW.shape[1] if view.scope == "map" else 1
        found_2BMST = found_2PT.new_full((2, rows, maps, view.count(), found_2PT.shape[2]), torch.nan)
        found_2BMST[:, asked_P3[:, 0], asked_P3[:, 1], asked_P3[:, 2]] = found_2PT
        source_B = torch.arange(rows, device=asked_P3.device)
        if view.scope == "image":
            source_B = self.evidence.first_rows()[self.evidence.places()]
        return Answers(*found_2BMST[:, source_B, ..., self.evidence.ranks()].unbind(1))


def box_mask(boxes_xyxy: Tensor | None, height: int, width: int) -> Tensor:
    """Mark the pixels whose centre lies in any box; a box smaller than a pixel marks the pixel it lies in."""
    mask_HW = torch.zeros(height, width, dtype=torch.bool)
    for x0, y0, x1, y1 in [] if boxes_xyxy is None else boxes_xyxy.tolist():
        rows, columns = _span(y0, y1, height), _span(x0, x1, width)
        mask_HW[rows, columns] = True
    return mask_HW


def _span(low: float, high: float, length: int) -> slice:
    """Pixel indices i with low <= i + 1/2 <= high, at least one."""
    first, last = int(-(-(low - 0.5) // 1)), int((high - 0.5) // 1)
    if last < first:
        first = last = int((low + high) / 2)
    return slice(max(0, min(first, length - 1)), max(0, min(last, length - 1)) + 1)
