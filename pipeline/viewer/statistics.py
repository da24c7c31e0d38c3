"""What is counted over a selection: histograms, right and wrong, pairs of classes, and numbers of each class.

Legend: N rows, E edges of bins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.viewer.engine import quoted
from pipeline.viewer.filters import Filters
from pipeline.viewer.index import Ids, RunIndex
from pipeline.viewer.selection import ids_of

BINS = 24
Numbers = npt.NDArray[np.float32]


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

    def column(self, name: str) -> Numbers:
        """Return a column as float32, NaN where it has no value, by the ids of the rows."""
        if name not in self._found:
            query = f"SELECT {quoted(name)}::FLOAT AS value FROM {self._index.table} ORDER BY viewer_id"  # noqa: S608
            values = self._index.engine.sql(query)["value"].to_numpy(zero_copy_only=False)
            self._found[name] = np.asarray(values, np.float32)
        return self._found[name]

    @cached_property
    def images(self) -> npt.NDArray[np.int32]:
        """Return the number of the image of each row."""
        query = f"SELECT dense_rank() OVER (ORDER BY shard, image_key) AS image FROM {self._index.table} ORDER BY viewer_id"  # noqa: S608, E501
        return np.asarray(self._index.engine.sql(query)["image"].to_numpy(), np.int32)

    @cached_property
    def failed(self) -> npt.NDArray[np.bool_]:
        """Return whether each row is a failure."""
        query = f"SELECT error_code IS NOT NULL AS failed FROM {self._index.table} ORDER BY viewer_id"  # noqa: S608
        return np.asarray(self._index.engine.sql(query)["failed"].to_numpy(zero_copy_only=False), bool)

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
        firsts = np.unique(self.images[ids], return_index=True)[1]
        one_N = ids[firsts]
        correct_N = self.column("viewer_correct")[one_N]
        failed_N = self.failed[one_N]
        right, wrong = int((correct_N == 1).sum()), int((correct_N == 0).sum())
        return Counts(len(ids), len(one_N), right, wrong, int(failed_N.sum()))


@dataclass(frozen=True)
class Confusion:
    """How often one class was predicted where another was right."""

    label: int
    predicted: int
    images: int


def confusions(index: RunIndex, ids: Ids, limit: int) -> list[Confusion]:
    """Return the most frequent pairs of classes in a selection, the label first; right predictions are no pair."""
    query = (
        "SELECT label, predicted, count(DISTINCT (shard, image_key)) AS images "  # noqa: S608
        f"FROM {index.table} WHERE viewer_id IN (SELECT unnest(?::BIGINT[])) "
        "AND label <> predicted GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT ?"
    )
    rows = index.engine.sql(query, [ids, limit]).to_pylist()
    return [Confusion(**row) for row in rows]


def matrix(index: RunIndex, filters: Filters, classes: Sequence[int]) -> Mapping[tuple[int, int], int]:
    """Count the images of a selection by label and predicted class, among some classes."""
    query = (
        "SELECT label, predicted, count(DISTINCT (shard, image_key)) AS images "  # noqa: S608
        f"FROM {index.table} WHERE viewer_id IN (SELECT unnest(?::BIGINT[])) "
        "AND label IN (SELECT unnest(?::INT[])) AND predicted IN (SELECT unnest(?::INT[])) GROUP BY 1, 2"
    )
    chosen = list(classes)
    rows = index.engine.sql(query, [ids_of(index, filters), chosen, chosen]).to_pylist()
    return {(row["label"], row["predicted"]): row["images"] for row in rows}


def by_class(index: RunIndex, ids: Ids, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each label the images of a selection, the share that is right, and the mean of each number."""
    means = "".join(f", avg({quoted(name)}) AS {quoted(name)}" for name in ("confidence", *metrics))
    query = (
        "SELECT label, count(DISTINCT (shard, image_key)) AS images, avg(viewer_correct::INT) AS accuracy"  # noqa: S608
        f"{means} FROM {index.table} WHERE viewer_id IN (SELECT unnest(?::BIGINT[])) AND label IS NOT NULL "
        "GROUP BY 1 ORDER BY accuracy NULLS LAST, images DESC, label"
    )
    rows: list[dict[str, Any]] = index.engine.sql(query, [ids]).to_pylist()
    return rows
