"""Masked scoring batch: runs the model on the changed images of all metrics and methods, in shared passes.

Legend: B rows (image, target), M maps of a row (one a method), S changed images of a map, P passes (flattened), T
targets of one image, C colours, (H, W) pixels.
"""

import copy
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.metrics.heatmap_batch import HeatmapBatch, Truth
from pipeline.metrics.views import Soft, View
from pipeline.model.baselines import Baseline
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.model.scorer import PassRows

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
        index_P3 = torch.cat(requested)
        stops = list(itertools.accumulate(map(len, requested)))

        def pixels(rows: PassRows) -> Tensor:
            chosen_P3, parts = index_P3[rows.index_P], []
            for view, piece in _pieces(wanted, stops, rows):
                rows_R, maps_R, steps_R = chosen_P3[piece].unbind(1)
                parts.append(view.pixels(self, rows_R, maps_R, steps_R))
            return torch.cat(parts)

        scores_2PT = self.probe.scorer.target_scores(pixels, self.evidence.all_targets()[index_P3[:, 0]])
        parts = torch.split(scores_2PT, [len(rows_P3) for rows_P3 in requested], 1)
        for view, rows_P3, part_2PT in zip(wanted, requested, parts, strict=True):
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
        """Return the rows, maps and steps of the changed images that a view requests, (P, 3)."""
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

    def _gathered(self, view: View, requested_P3: Tensor, scores_2PT: Tensor) -> ViewScores:
        """Arrange scores by row, map and step."""
        rows, maps = len(self.evidence.keys), self.heatmaps_BMHW.shape[1] if view.scope == "map" else 1
        scores_2BMST = scores_2PT.new_full((2, rows, maps, view.count(), scores_2PT.shape[2]), torch.nan)
        scores_2BMST[:, requested_P3[:, 0], requested_P3[:, 1], requested_P3[:, 2]] = scores_2PT
        source_B = torch.arange(rows, device=requested_P3.device)
        if view.scope == "image":
            source_B = self.evidence.first_rows()[self.evidence.places()]
        return ViewScores(*scores_2BMST[:, source_B, ..., self.evidence.ranks()].unbind(1))


def _pieces(views: Sequence[View], stops: Sequence[int], rows: PassRows) -> Iterator[tuple[View, slice]]:
    """Yield the views of the rows of one pass, with their places in it; what fills the pass belongs to the last one.

    Args:
        views: in the order of their rows.
        stops: index after the last row of each view.
        rows: the rows of the pass.
    """
    begin = 0
    for view, stop in zip(views, stops, strict=True):
        first, last = max(begin, rows.start), min(stop, rows.stop)
        if first < last:
            yield view, slice(first - rows.start, None if last == rows.stop else last - rows.start)
        begin = stop
