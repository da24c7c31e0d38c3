"""The connected regions of a map above each of 256 thresholds, from one pass over its pixels.

Every pixel points to the largest of its neighbours, so each leads uphill to a peak; the pixels of a peak form a basin.
Above any threshold, what is left of a basin is connected, through its peak. Two basins are connected above a threshold
if a pair of neighbours, one in each, is; the highest such pair is their pass. So the regions above all thresholds are
sets of basins, joined from the highest pass to the lowest, and the sizes and boxes of regions are sums and extremes
over basins. A map has few basins, and need not be labelled 256 times.

Legend: (H, W) or P pixels, Q pixels with a column and a row of others around them, T = 256 thresholds, K basins, n
boxes. Neighbours are the eight pixels around one.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

LEVELS = 256
"""Number of thresholds: one for each of the 256 values of an 8-bit map."""

Ints = npt.NDArray[np.int64]
SmallInts = npt.NDArray[np.int32]
Levels = npt.NDArray[np.uint8]
_Number = TypeVar("_Number", bound=np.generic)


class Regions(NamedTuple):
    """The regions above each threshold; all (K, T).

    Attributes:
        sizes: number of pixels; 0 where a basin is below the threshold, or belongs to the region of another one.
        x0, y0, x1, y1: the box around the pixels, ends included.
        first: index of the first pixel in raster order, to be compared with those of other regions.
    """

    sizes: SmallInts
    x0: SmallInts
    y0: SmallInts
    x1: SmallInts
    y1: SmallInts
    first: SmallInts

    def largest(self) -> "Regions":
        """Keep the largest region above each threshold, (1, T); of equal ones, the first in raster order."""
        best_1T = ((self.sizes.astype(np.int64) << 32) - self.first).argmax(0)[None]
        return Regions(*(np.take_along_axis(table_KT, best_1T, 0) for table_KT in self))

    def best_iou(self, boxes_n4: Ints) -> npt.NDArray[np.float64]:
        """Compute the largest intersection over union of a region's box and any of the boxes, (T,); 0 without one."""
        best_T, exist_KT = np.zeros(LEVELS), self.sizes > 0
        areas_KT = (self.x1 - self.x0 + 1) * (self.y1 - self.y0 + 1)
        for x0, y0, x1, y1 in boxes_n4.tolist():
            width_KT = (np.minimum(self.x1, x1) - np.maximum(self.x0, x0) + 1).clip(0)
            shared_KT = width_KT * (np.minimum(self.y1, y1) - np.maximum(self.y0, y0) + 1).clip(0)
            union_KT = areas_KT + (x1 - x0 + 1) * (y1 - y0 + 1) - shared_KT
            best_T = np.maximum(best_T, np.where(exist_KT, shared_KT / np.where(exist_KT, union_KT, 1), 0.0).max(0))
        return best_T


def regions_above(map_HW: npt.NDArray[np.float32]) -> Regions:
    """Find the regions of floor(255 E) > t for t = 0 .. 255, of a map in [0, 1]."""
    levels_HW = np.floor(map_HW * (LEVELS - 1)).astype(np.uint8)
    rows, columns = (_span(np.flatnonzero(levels_HW.any(axis))) for axis in (1, 0))
    found = _regions(map_HW[rows, columns], levels_HW[rows, columns])
    return found._replace(
        x0=found.x0 + columns.start, x1=found.x1 + columns.start, y0=found.y0 + rows.start, y1=found.y1 + rows.start
    )


def _span(used: Ints) -> slice:
    """Return the rows or columns from the first that is used to the last, at least one."""
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)


def _regions(map_HW: npt.NDArray[np.float32], levels_HW: Levels) -> Regions:
    """Find the regions of a map that is above 0 at its border; `first` counts the pixels of this map."""
    basins_HW, count = _basins(map_HW, levels_HW)
    sizes_KT, extremes_4KT = _of_basins(basins_HW, levels_HW, count)
    for height, low, high in _joins(count, _passes(basins_HW, levels_HW, count)):
        sizes_KT[low, :height] += sizes_KT[high, :height]
        sizes_KT[high, :height] = 0
        joined_4T = extremes_4KT[:, low, :height]
        np.minimum(joined_4T, extremes_4KT[:, high, :height], out=joined_4T)
    (rows, columns), (first, left, last, right) = levels_HW.shape, extremes_4KT
    end = rows * columns - 1
    return Regions(sizes_KT, left // rows, first // columns, (end - right) // rows, (end - last) // columns, first)


def _basins(map_HW: npt.NDArray[np.float32], levels_HW: Levels) -> tuple[Ints, int]:
    """Number the basin of each pixel in the order of their peaks, and count them; pixels of level 0 have any number."""
    height, width = map_HW.shape
    order_HW = np.zeros((height + 2, width + 2), np.int64)
    inner_HW = order_HW[1:-1, 1:-1]
    inner_HW[...] = np.where(levels_HW > 0, map_HW, np.float32(0)).view(np.int32)  # not negative: ordered as integers
    inner_HW <<= 32
    inner_HW += _places(height, width)  # of equal pixels, the later one is larger
    rows_HW = np.maximum(np.maximum(order_HW[:-2], order_HW[1:-1]), order_HW[2:])
    largest_HW = np.maximum(np.maximum(rows_HW[:, :-2], rows_HW[:, 1:-1]), rows_HW[:, 2:])
    uphill_P = (largest_HW & 0xFFFFFFFF).ravel()
    while not np.array_equal(further_P := uphill_P.take(uphill_P), uphill_P):
        uphill_P = further_P.take(further_P)
    peaks_K = np.flatnonzero((uphill_P == _places(height, width).ravel()) & (levels_HW.ravel() > 0))
    numbers_P = np.zeros(height * width, np.int64)
    numbers_P[peaks_K] = np.arange(len(peaks_K))
    return numbers_P.take(uphill_P).reshape(height, width), max(1, len(peaks_K))


def _of_basins(basins_HW: Ints, levels_HW: Levels, count: int) -> tuple[SmallInts, SmallInts]:
    """Describe what is left of each basin above each threshold.

    Returns:
        The number of pixels, (K, T), and the smallest index of a pixel, (4, K, T): counted along rows from the first
        pixel, along columns from the first one, along rows from the last one, and along columns from the last one.
    """
    cells_HW = basins_HW * LEVELS + levels_HW
    by_row_P, by_column_P = cells_HW.ravel(), cells_HW.T.ravel()
    extremes = np.full((4, count * LEVELS), levels_HW.size, np.int32)
    for extreme, cells_P in zip(extremes, (by_row_P[::-1], by_column_P[::-1], by_row_P, by_column_P), strict=True):
        extreme[np.ascontiguousarray(cells_P)] = _falling(levels_HW.size)  # of equal cells, the last one counts
    sizes = np.bincount(by_row_P, minlength=count * LEVELS).astype(np.int32)
    return (
        _above(np.add, sizes.reshape(-1, LEVELS), 0),
        _above(np.minimum, extremes.reshape(4, -1, LEVELS), levels_HW.size),
    )


def _above(combine: np.ufunc, at_level: SmallInts, empty: int) -> SmallInts:
    """Combine the values of all levels above each threshold, along the last axis."""
    above = np.full_like(at_level, empty)
    combine.accumulate(at_level[..., :0:-1], axis=-1, out=above[..., -2::-1])
    return above


def _passes(basins_HW: Ints, levels_HW: Levels, count: int) -> list[tuple[int, int, int]]:
    """Return the height of the highest pass between two basins, and both of them, from the highest to the lowest."""
    (basins_Q, row), (levels_Q, _), found = _padded(basins_HW), _padded(levels_HW), []
    for step in (1, row - 1, row, row + 1):
        at = np.flatnonzero(basins_Q[step:] != basins_Q[:-step])
        here, there, heights = basins_Q[at], basins_Q[at + step], np.minimum(levels_Q[at], levels_Q[at + step])
        found.append((np.minimum(here, there) * count + np.maximum(here, there)) * LEVELS + heights)
    keys = np.sort(np.concatenate(found))
    pairs, heights = keys // LEVELS, keys % LEVELS
    is_highest = np.diff(pairs, append=-1) != 0
    pairs, heights = pairs[is_highest], heights[is_highest]
    order = heights.argsort(kind="stable")[np.count_nonzero(heights == 0) :][::-1]
    return list(zip(heights[order].tolist(), *(part.tolist() for part in np.divmod(pairs[order], count)), strict=True))


def _padded(table_HW: npt.NDArray[_Number]) -> tuple[npt.NDArray[_Number], int]:
    """Put zeros beside and below a table, (Q,), and return the length of a row, so that no row touches the next one."""
    padded = np.zeros((table_HW.shape[0] + 1, table_HW.shape[1] + 2), table_HW.dtype)
    padded[:-1, 1:-1] = table_HW
    return padded.ravel(), padded.shape[1]


def _joins(count: int, passes: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the height at which two regions are joined and the leaders of both, from the highest to the lowest."""
    leader = list(range(count))

    def find(basin: int) -> int:
        while leader[basin] != basin:
            leader[basin] = basin = leader[leader[basin]]
        return basin

    for height, one, other in passes:
        low, high = sorted((find(one), find(other)))
        if low != high:
            leader[high] = low
            yield height, low, high


@lru_cache(maxsize=4)
def _places(height: int, width: int) -> Ints:
    """Return the index of each pixel in raster order, (H, W)."""
    return np.arange(height * width).reshape(height, width)


@lru_cache(maxsize=4)
def _falling(count: int) -> SmallInts:
    return np.arange(count - 1, -1, -1, dtype=np.int32)
