"""Makes the changed images of several views, pass by pass.

Legend: P changed images of all views, R those of one view in a pass, C colours, (H, W) pixels; a column of three holds
the row, the map and the step of a changed image.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pipeline.metrics.heatmap_batch import HeatmapBatch
from pipeline.metrics.imputation import IMAGES_ON_DEVICE, imputed
from pipeline.metrics.views import Imputed, View
from pipeline.model.scorer import PassRows
from pipeline.model.transfers import sent

_PASSES_AHEAD = 8


class ChangedImages:
    """The changed images that views request.

    Args:
        batch: the heat maps, with the images.
        views: in the order of their images.
        requested: the rows, maps and steps of each view's images, (R, 3) on the host.

    Attributes:
        index_P3: rows, maps and steps of all images, on the device.
    """

    def __init__(self, batch: HeatmapBatch, views: Sequence[View], requested: Sequence[Tensor]) -> None:
        self._batch, self._views = batch, views
        self._stops = list(itertools.accumulate(map(len, requested)))
        self._known_P3 = torch.cat(list(requested))
        self.index_P3 = sent(self._known_P3, batch.evidence.images_B.device)
        self._first, self._imputed_PCHW = 0, torch.empty(0)

    def of_pass(self, rows: PassRows) -> Tensor:
        """Return the images of one pass, (P, C, H, W); the last one is repeated until the pass is full."""
        parts = [self._of_view(view, rows, piece) for view, piece in self._pieces(rows.start, rows.stop)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _of_view(self, view: View, rows: PassRows, piece: slice) -> Tensor:
        last = piece.stop if piece.stop < rows.stop else None  # what fills the pass belongs to the last view
        index_R = rows.index_P[piece.start - rows.start : last and last - rows.start]
        if isinstance(view, Imputed):
            return self._of_imputed(piece, rows.stop - rows.start)[index_R - piece.start]
        return view.pixels(self._batch, *self.index_P3[index_R].unbind(1))

    def _of_imputed(self, piece: slice, size: int) -> Tensor:
        if not self._first <= piece.start < piece.stop <= self._first + len(self._imputed_PCHW):
            self._first, self._imputed_PCHW = piece.start, self._impute(piece.start, self._end(piece, size))
        return self._imputed_PCHW[piece.start - self._first : piece.stop - self._first]

    def _end(self, piece: slice, size: int) -> int:
        """Return where to stop imputing: on a device, after the images of the next passes of this size, too.

        So solved together, they cost the launches of one pass, and the host waits once for all.
        """
        ends: list[int] = [piece.stop]
        if self.index_P3.device.type == "cpu":
            return ends[0]
        reach = piece.start + min(IMAGES_ON_DEVICE, _PASSES_AHEAD * size)
        same = itertools.takewhile(lambda pair: isinstance(pair[0], Imputed), self._pieces(piece.start, reach))
        ends += [span.stop for _, span in same]
        return max(ends)

    def _impute(self, first: int, stop: int) -> Tensor:
        rows_P, maps_P, _ = self.index_P3[first:stop].unbind(1)
        views = [(view, slice(span.start - first, span.stop - first)) for view, span in self._pieces(first, stop)]
        imputing = [(view, span) for view, span in views if isinstance(view, Imputed)]
        missing_PHW = torch.cat([view.missing(self._batch, rows_P[span], maps_P[span]) for view, span in imputing])
        imputed_PCHW = imputed(self._batch.evidence.pixels_BCHW[rows_P], missing_PHW)
        known_P = self._known_P3[first:stop, 0]
        return torch.cat(
            [view.noisy(self._batch, known_P[span], imputed_PCHW[span], missing_PHW[span]) for view, span in imputing]
        )

    def _pieces(self, first: int, stop: int) -> Iterator[tuple[View, slice]]:
        """Yield the views of a range of images, with the range of each."""
        begin = 0
        for view, end in zip(self._views, self._stops, strict=True):
            if max(begin, first) < min(end, stop):
                yield view, slice(max(begin, first), min(end, stop))
            begin = end
