"""Masked scoring batch: runs the model on the changed images of all metrics and methods, in shared passes.

Legend: B rows (image, target), M maps of a row (one a method), S changed images of a map, P passes (flattened), T
targets of one image, C colours, (H, W) pixels.
"""

import copy
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.metrics.changed import ChangedImages
from pipeline.metrics.heatmap_batch import HeatmapBatch, Truth
from pipeline.metrics.views import Soft, View
from pipeline.model.baselines import Baseline
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

Redraw = Callable[[Tensor, Collection[int]], Tensor]
"""Function that computes heat maps (B, m, H, W) of changed images (B, C, H, W) with m of the methods."""


@dataclass(frozen=True)
class ViewScores:
    """Logits and confidences of the target under a view: (B, M, S), or (B, 1, S) where all maps share it.

    NaN where the model was not run.
    """

    logits_BMS: Tensor
    confidences_BMS: Tensor

    def of(self, reading: str) -> Tensor:
        """Return the logits for 'logit', and the confidences for 'probability'."""
        return self.logits_BMS if reading == "logit" else self.confidences_BMS


class ScoringBatch(HeatmapBatch):
    """The heat maps of a batch, with the model's outputs on their changed images.

    Attributes:
        heatmaps_BMHW, evidence, truth, probe, raw: as in `HeatmapBatch`.
        redraw: function that computes maps of changed images, for metrics that need them.
    """

    def __init__(
        self,
        heatmaps_BMHW: Tensor,
        evidence: Evidence,
        truth: Truth,
        probe: Probe,
        redraw: Redraw | None = None,
        raw: Callable[[], Tensor] | None = None,
    ) -> None:
        super().__init__(heatmaps_BMHW, evidence, truth, probe, raw)
        self._redraw = redraw
        self._scores: dict[View, ViewScores] = {}
        self._masked_heatmaps: dict[Baseline, Tensor] = {}

    def run(self, views: Iterable[View]) -> None:
        """Run the model on the changed images of several views together, in full batches."""
        wanted = [view for view in dict.fromkeys(views) if view not in self._scores]
        requested = [self._requested(view) for view in wanted]
        if not wanted:
            return
        changed = ChangedImages(self, wanted, requested)
        targets_PT = self.evidence.all_targets()[changed.index_P3[:, 0]]
        scores_2PT = self.probe.scorer.target_scores(changed.of_pass, targets_PT)
        counts = [len(rows_P3) for rows_P3 in requested]
        parts = zip(torch.split(changed.index_P3, counts), torch.split(scores_2PT, counts, 1), strict=True)
        for view, (rows_P3, part_2PT) in zip(wanted, parts, strict=True):
            self._scores[view] = self._gathered(view, rows_P3, part_2PT)

    def scores(self, view: View) -> ViewScores:
        """Return the logits and confidences of a view's changed images, running the model if that was not done yet."""
        self.run([view])
        return self._scores[view]

    def private(self) -> "ScoringBatch":
        """Copy the batch with all that was computed so far, so that no change of the copy reaches this one."""
        shared = (self.probe, self.evidence.head, self.evidence.view, self._redraw, self._raw)
        known: dict[int, object] = {id(thing): thing for thing in shared}
        attention = self.evidence.attention  # it may hold the graph of a pass, which cannot be copied
        if attention is not None:
            known[id(attention)] = attention.private()
        return copy.deepcopy(self, known)

    def redrawn(self, pixels_BCHW: Tensor, methods: Collection[int]) -> Tensor:
        """Compute the heat maps (B, m, H, W) of changed images with m of the methods."""
        if self._redraw is None:
            raise ValueError("this metric computes maps again, but the batch has no methods to do it: pass `redraw`")
        return self._redraw(pixels_BCHW, methods)

    def masked_heatmaps(self, fill: Baseline) -> Tensor:
        """Compute the heat maps (B, M, H, W) of each image masked by its own heat maps; computed once per fill."""
        if fill not in self._masked_heatmaps:
            rows_B = torch.arange(len(self.evidence.keys), device=self.evidence.targets_B.device)
            drawn = [
                self.redrawn(Soft(fill).pixels(self, rows_B, torch.full_like(rows_B, m), torch.zeros_like(rows_B)), [m])
                for m in range(self.heatmaps_BMHW.shape[1])
            ]
            self._masked_heatmaps[fill] = torch.cat(drawn, 1)
        return self._masked_heatmaps[fill]

    def _requested(self, view: View) -> Tensor:
        """Return the rows, maps and steps of the changed images that a view requests, (P, 3) on the host."""
        rows_B = view.applies(self).cpu()
        if view.scope == "image":
            first_B = torch.zeros_like(rows_B)
            first_B[self.evidence.rows.first_I] = True
            rows_B = rows_B & first_B
        maps = self.heatmaps_BMHW.shape[1] if view.scope == "map" else 1
        return torch.cartesian_prod(rows_B.nonzero()[:, 0], torch.arange(maps), torch.arange(view.count())).view(-1, 3)

    def _gathered(self, view: View, requested_P3: Tensor, scores_2PT: Tensor) -> ViewScores:
        """Arrange scores by row, map and step."""
        rows, maps = len(self.evidence.keys), self.heatmaps_BMHW.shape[1] if view.scope == "map" else 1
        scores_2BMST = scores_2PT.new_full((2, rows, maps, view.count(), scores_2PT.shape[2]), torch.nan)
        scores_2BMST[:, requested_P3[:, 0], requested_P3[:, 1], requested_P3[:, 2]] = scores_2PT
        source_B = torch.arange(rows, device=requested_P3.device)
        if view.scope == "image":
            source_B = self.evidence.first_rows()[self.evidence.places()]
        return ViewScores(*scores_2BMST[:, source_B, ..., self.evidence.ranks()].unbind(1))
