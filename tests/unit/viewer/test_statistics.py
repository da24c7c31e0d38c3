"""Counts, histograms and pairs of classes, against plain loops; runs with several targets."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from handmade import RunMaker

from pipeline.explain.rows import Row
from pipeline.results.query import open_run
from pipeline.storage.run_folder import PartName
from pipeline.viewer.engine import Engine
from pipeline.viewer.filters import ALL_TARGETS, Filters
from pipeline.viewer.index import RunIndex
from pipeline.viewer.selection import ids_of
from pipeline.viewer.statistics import BINS, Arrays, ShardErrors, by_class, confusions, pairs, worst_shards
from schemas.manifest import RunIdentity


class TwoTargets(RunMaker):
    """A run that explains two classes of each image."""

    @property
    def identity(self) -> RunIdentity:
        return super().identity.model_copy(update={"targets": "predicted,label"})

    def rows(self, part: PartName) -> list[Row]:
        rows = super().rows(part)
        second = [
            row | {"target": 2, "target_rule": "label", "target_confidence": 0.5, "average_drop": 0.9}
            for row in rows if row.get("map") is not None
        ]  # fmt: skip
        return rows + second


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return RunIndex.build(0, "run", open_run(TwoTargets(tmp_path / "run").complete().folder), Engine())


def test_an_image_with_two_targets_counts_once(index: RunIndex) -> None:
    arrays = Arrays(index)
    first, every = (ids_of(index, Filters(method="gradcam", target=target)) for target in ("", ALL_TARGETS))
    assert (len(first), len(every)) == (5, 9)
    for ids in (first, every):
        counts = arrays.counts(ids)
        assert (counts.images, counts.right, counts.wrong, counts.failed) == (5, 0, 3, 1)
    assert arrays.counts(every).rows == 9
    assert arrays.counts(every[:0]).accuracy is None


def test_the_first_target_is_the_most_confident_one(index: RunIndex) -> None:
    rows = index.rows(ids_of(index, Filters(method="gradcam")))
    assert {row["target_rule"] for row in rows if row["error_code"] is None} == {"predicted"}
    labels = index.rows(ids_of(index, Filters(method="gradcam", target="label")))
    assert {row["target"] for row in labels} == {2}


def test_pairs_and_classes_are_those_of_a_loop(index: RunIndex) -> None:
    ids = ids_of(index, Filters(method="gradcam", target=ALL_TARGETS))
    images = {(row["shard"], row["image_key"]): row for row in index.rows(ids)}
    expected = Counter((row["label"], row["predicted"]) for row in images.values() if row["label"] is not None)
    found = pairs(Arrays(index), ids)
    assert {(pair.label, pair.predicted): pair.images for pair in found} == dict(expected)
    assert [(pair.label, pair.predicted, pair.images) for pair in confusions(Arrays(index), ids, 1)] == [(1, 0, 3)]
    (dogs,) = by_class(Arrays(index), ids, ["confidence", "pointing_game"])
    assert dogs == {"label": 1, "images": 3, "accuracy": 0.0, "confidence": 0.75, "pointing_game": 0.25}


def test_the_worst_shards_are_those_of_a_loop(index: RunIndex) -> None:
    ids = ids_of(index, Filters(method="gradcam", target=ALL_TARGETS))
    images = {(row["shard"], row["image_key"]): row for row in index.rows(ids)}
    judged = [row for row in images.values() if row["label"] is not None and row["predicted"] is not None]
    wrong = Counter(row["shard"] for row in judged if row["label"] != row["predicted"])
    found = worst_shards(Arrays(index), ids, index.shards, 8)
    assert {shard.shard: shard.wrong for shard in found} == dict(wrong)
    assert {shard.shard: shard.judged for shard in found} == Counter(row["shard"] for row in judged)
    assert worst_shards(Arrays(index), ids[:0], index.shards, 8) == []


def test_a_small_shard_that_is_all_wrong_comes_before_a_large_one(
    index: RunIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = Arrays(index)
    arrays.__dict__["shards"] = np.array([0, 0, 0, 1, 2], np.int32)
    arrays._integers["viewer_correct::INT"] = np.array([0, 0, 1, 0, -1], np.int32)
    monkeypatch.setattr(arrays, "one_each", lambda ids: ids)
    found = worst_shards(arrays, np.arange(5), ("large", "small", "unlabelled"), 8)
    assert found == [ShardErrors("small", 1, 1), ShardErrors("large", 2, 3)]


def test_a_histogram_counts_every_value_once(index: RunIndex) -> None:
    everything = ids_of(index, Filters(method="gradcam", target=ALL_TARGETS))
    histogram = Arrays(index).histogram("average_drop", everything, everything[:3])
    assert histogram is not None
    values = np.array([row["average_drop"] for row in index.rows(everything) if row["average_drop"] is not None])
    expected = [int(((values >= low) & (values < low + 1 / BINS)).sum()) for low in np.arange(BINS) / BINS]
    assert list(histogram.all_counts) == expected
    assert sum(histogram.counts) + histogram.missing == 3
    assert (histogram.low, histogram.high, histogram.edge(BINS)) == (0, 1, 1)


def test_a_number_without_values_has_no_histogram(index: RunIndex) -> None:
    nothing = ids_of(index, Filters(method="gradcam", failure="any"))
    assert Arrays(index).histogram("average_drop", nothing, nothing) is None


def test_a_number_of_one_value_has_a_histogram(index: RunIndex) -> None:
    ids = ids_of(index, Filters(method="gradcam"))
    histogram = Arrays(index).histogram("target_logit", ids, ids)
    assert histogram is not None
    assert sum(histogram.counts) == 4
    assert histogram.low < histogram.high
