"""The heat maps of a run on a common grid, so that methods and images can be compared.

Legend: I images, M methods, G groups of images, (u, v) GRID x GRID cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pipeline.audit.statistics import Indices, Numbers
from pipeline.audit.values import Place, numbered
from pipeline.maps.codec import FloatArray
from pipeline.maps.heatmaps import heatmaps
from pipeline.results.query import Run, decode_table

GRID = 14
_ROWS_AT_ONCE = 4096

_PRIMARY = """
SELECT shard, image_key, target, drawn.row FROM (
  SELECT *, coalesce(label, predicted) AS class FROM explanations WHERE method = ?
) JOIN drawn USING (shard, image_key)
QUALIFY row_number() OVER (PARTITION BY shard, image_key ORDER BY target <> class, target <> predicted, target) = 1
"""
"""One target per image: its label if that was explained, else the predicted class, else the first target."""

_MAPS = """
SELECT chosen.row, map, map_height, map_width, map_dtype, map_min, map_max
FROM explanations JOIN chosen USING (shard, image_key, target) WHERE method = ?
"""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Maps:
    """One heat map per image and method, [0, 1] as 0 to 255. A constant or missing map is all zero."""

    by_method: Mapping[str, Bytes]

    def means(self, method: str, groups_I: Indices) -> dict[int, FloatArray]:
        """Return the mean heat map of each group of images, (u, v) in [0, 1]; all-zero maps are left out."""
        maps_Iuv = self.by_method[method]
        shown_I = maps_Iuv.any((1, 2))
        means = {}
        for group in np.unique(groups_I[shown_I]):
            chosen = np.flatnonzero(shown_I & (groups_I == group))
            means[int(group)] = _mean(maps_Iuv, chosen)
        return means

    def agreement(self) -> Numbers:
        """Return the mean correlation of all pairs of methods for each image, (I,); NaN with fewer than two maps.

        mean over pairs of <z_a, z_b> = (|sum_m z_m|^2 - M) / (M (M - 1)),   z centred to 0 and scaled to length 1
        """
        shape = next(iter(self.by_method.values())).shape if self.by_method else (0, GRID, GRID)
        sums_IP = np.zeros((shape[0], GRID * GRID), np.float32)
        counts_I = np.zeros(shape[0])
        for maps_Iuv in self.by_method.values():
            for start in range(0, shape[0], _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                z_IP = standardised(maps_Iuv[rows])
                sums_IP[rows] += z_IP
                counts_I[rows] += z_IP.any(1)
        pairs_I = counts_I * (counts_I - 1)
        lengths_I = (sums_IP.astype(np.float64) ** 2).sum(1)
        agreement_I: Numbers = np.where(pairs_I > 0, (lengths_I - counts_I) / np.where(pairs_I > 0, pairs_I, 1), np.nan)
        return agreement_I

    def consensus(self, methods: Sequence[str], rows: Indices) -> FloatArray:
        """Return the mean heat map over some methods for some images, (I, u, v) in [0, 1]."""
        total_Iuv = np.zeros((len(rows), GRID, GRID), np.float32)
        for method in methods:
            total_Iuv += self.by_method[method][rows]
        return total_Iuv / np.float32(255 * max(1, len(methods)))


def load_maps(run: Run, places: Sequence[Place]) -> Maps:
    """Read one map per image and method, and resize them to the common grid."""
    with run.with_table("drawn", numbered(places)):
        return Maps({method: _loaded(run, method, len(places)) for method in run.manifest.identity.methods})


def _loaded(run: Run, method: str, images: int) -> Bytes:
    maps_Iuv = np.zeros((images, GRID, GRID), np.uint8)
    with run.with_table("chosen", run.arrow(_PRIMARY, [method])):
        for batch in run.batches(_MAPS, [method], _ROWS_AT_ONCE):
            raw_Nuv = decode_table(batch)
            heat_NGG = heatmaps(torch.from_numpy(raw_Nuv)[:, None].float(), (GRID, GRID))[:, 0].numpy()
            maps_Iuv[batch["row"].to_numpy()] = np.rint(255 * np.nan_to_num(heat_NGG))
    return maps_Iuv


def standardised(maps_Iuv: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Centre each map to mean 0 and scale it to length 1, (I, cells); constant maps become zero."""
    cells_IP = maps_Iuv.reshape(len(maps_Iuv), -1).astype(np.float32)
    cells_IP -= cells_IP.mean(1, keepdims=True)
    lengths_I1 = np.sqrt((cells_IP**2).sum(1, keepdims=True))
    scaled_IP: npt.NDArray[np.float32] = np.where(lengths_I1 > 1e-6, cells_IP / np.maximum(lengths_I1, 1e-6), 0)
    return scaled_IP


def _mean(maps_Iuv: Bytes, chosen: npt.NDArray[np.intp]) -> FloatArray:
    total_uv = maps_Iuv[chosen].sum(0, dtype=np.float64)
    mean_uv: FloatArray = (total_uv / (255 * len(chosen))).astype(np.float32)
    return mean_uv
