"""What is counted over a selection: histograms, right and wrong, pairs of classes, shards, numbers of each class.

Legend: N rows, C classes, P pairs of classes, S shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.results.sql_engine import quoted
from pipeline.viewer.index import Ids, RunIndex

BINS = 24
Numbers = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Histogram:
    """How a number is distributed.

    Attributes:
        low, high: the ends of the axis.
        all_counts: rows of the whole run in each bin.
        counts: rows of the selection in each bin, without the range of this number itself.
        missing: rows of the selection without a value.
    """

    low: float
    high: float
    all_counts: Sequence[int]
    counts: Sequence[int]
    missing: int

    def edge(self, place: int) -> float:
        """Return the lower edge of a bin."""
        return self.low + (self.high - self.low) * place / len(self.counts)


@dataclass(frozen=True)
class Counts:
    """Rows and images of a selection, and how many are right, wrong and failed."""

    rows: int
    images: int
    right: int
    wrong: int
    failed: int

    @property
    def accuracy(self) -> float | None:
        """Return the share of right predictions among those that can be judged."""
        judged = self.right + self.wrong
        return self.right / judged if judged else None


class Arrays:
    """The numbers of a run by row, read from the table when they are first needed."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        self._found: dict[str, Numbers] = {}
        self._integers: dict[str, Integers] = {}

    def column(self, name: str) -> Numbers:
        """Return a column as float32, NaN where it has no value, by the ids of the rows."""
        if name not in self._found:
            self._found[name] = np.asarray(self._read(f"{quoted(name)}::FLOAT"), np.float32)
        return self._found[name]

    def integers(self, expression: str) -> Integers:
        """Return one of the viewer's own expressions as integers, -1 where it has no value."""
        if expression not in self._integers:
            self._integers[expression] = np.asarray(self._read(f"coalesce({expression}, -1)::INT"), np.int32)
        return self._integers[expression]

    @cached_property
    def images(self) -> Integers:
        """Return the number of the image of each row."""
        return np.asarray(self._read("dense_rank() OVER (ORDER BY shard, image_key)"), np.int32)

    @cached_property
    def shards(self) -> Integers:
        """Return the place of the shard of each row among `RunIndex.shards`."""
        return np.asarray(self._read("dense_rank() OVER (ORDER BY shard) - 1"), np.int32)

    def one_each(self, ids: Ids) -> Ids:
        """Return the first row of each image of a selection."""
        if self._index.has_one_target:
            return ids
        return ids[np.unique(self.images[ids], return_index=True)[1]]

    def _read(self, expression: str) -> npt.NDArray[Any]:
        query = f"SELECT {expression} AS value FROM {self._index.table} ORDER BY viewer_id"  # noqa: S608
        values: npt.NDArray[Any] = self._index.engine.sql(query)["value"].to_numpy(zero_copy_only=False)
        return values

    def histogram(self, name: str, everything: Ids, ids: Ids) -> Histogram | None:
        """Count the values of a column among all rows and in a selection; None if there are none."""
        all_N = self.column(name)[everything]
        all_N = all_N[np.isfinite(all_N)]
        if not len(all_N):
            return None
        low, high = float(all_N.min()), float(all_N.max())
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        if low == high:
            high = low + max(abs(low), 1.0)
        chosen_N = self.column(name)[ids]
        finite_N = chosen_N[np.isfinite(chosen_N)]
        counted = [np.histogram(values, BINS, (low, high))[0].tolist() for values in (all_N, finite_N)]
        return Histogram(low, high, counted[0], counted[1], len(chosen_N) - len(finite_N))

    def counts(self, ids: Ids) -> Counts:
        """Count a selection; an image with several targets counts once."""
        one_N = self.one_each(ids)
        correct_N = self.integers("viewer_correct::INT")[one_N]
        failed_N = self.integers("(error_code IS NOT NULL)::INT")[one_N]
        right, wrong = int((correct_N == 1).sum()), int((correct_N == 0).sum())
        return Counts(len(ids), len(one_N), right, wrong, int(failed_N.sum()))


@dataclass(frozen=True)
class Confusion:
    """How often one class was predicted where another was right."""

    label: int
    predicted: int
    images: int


def pairs(arrays: Arrays, ids: Ids) -> list[Confusion]:
    """Count the images of a selection by label and predicted class, the most frequent pair first."""
    one_N = arrays.one_each(ids)
    label_N, predicted_N = arrays.integers("label")[one_N], arrays.integers("predicted")[one_N]
    known_N = (label_N >= 0) & (predicted_N >= 0)
    codes_N = label_N[known_N].astype(np.int64) << 32 | predicted_N[known_N]
    codes_P, images_P = np.unique(codes_N, return_counts=True)
    order = np.argsort(-images_P, kind="stable")
    both = zip(codes_P[order].tolist(), images_P[order].tolist(), strict=True)
    return [Confusion(code >> 32, code & 0xFFFFFFFF, images) for code, images in both]


def confusions(arrays: Arrays, ids: Ids, limit: int) -> list[Confusion]:
    """Return the most frequent pairs of different classes in a selection, the label first."""
    return [pair for pair in pairs(arrays, ids) if pair.label != pair.predicted][:limit]


@dataclass(frozen=True)
class ShardErrors:
    """How many images of a shard are wrong, among those that can be judged."""

    shard: str
    wrong: int
    judged: int


def worst_shards(arrays: Arrays, ids: Ids, names: Sequence[str], limit: int) -> list[ShardErrors]:
    """Return the shards of a selection with the largest share of wrong predictions, those without one left out."""
    one_N = arrays.one_each(ids)
    correct_N, shard_N = arrays.integers("viewer_correct::INT")[one_N], arrays.shards[one_N]
    wrong_S = np.bincount(shard_N[correct_N == 0], minlength=len(names))
    judged_S = np.bincount(shard_N[correct_N >= 0], minlength=len(names))
    order = np.lexsort((-wrong_S, -wrong_S / np.maximum(judged_S, 1)))
    counted = [ShardErrors(names[place], int(wrong_S[place]), int(judged_S[place])) for place in order[:limit]]
    return [shard for shard in counted if shard.wrong]


def by_class(arrays: Arrays, ids: Ids, numbers: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each label the images of a selection, the share that is right, and the mean of each number."""
    one_N = arrays.one_each(ids)
    one_N = one_N[arrays.integers("label")[one_N] >= 0]
    labels_C, class_N = np.unique(arrays.integers("label")[one_N], return_inverse=True)
    correct_N = arrays.integers("viewer_correct::INT")[one_N].astype(np.float64)
    correct_N[correct_N < 0] = np.nan
    columns = {"accuracy": correct_N} | {name: arrays.column(name)[one_N].astype(np.float64) for name in numbers}
    means = {name: _means(class_N, values_N, len(labels_C)) for name, values_N in columns.items()}
    images_C = np.bincount(class_N, minlength=len(labels_C))
    return [
        {"label": label, "images": int(images_C[place]), **{name: means_C[place] for name, means_C in means.items()}}
        for place, label in enumerate(labels_C.tolist())
    ]


def _means(class_N: npt.NDArray[np.int64], values_N: npt.NDArray[np.float64], classes: int) -> list[float | None]:
    """Return the mean of the values of each class, None for a class without a value."""
    finite_N = np.isfinite(values_N)
    counts_C = np.bincount(class_N[finite_N], minlength=classes)
    sums_C = np.bincount(class_N[finite_N], values_N[finite_N], minlength=classes)
    return [float(total / count) if count else None for total, count in zip(sums_C, counts_C, strict=True)]
