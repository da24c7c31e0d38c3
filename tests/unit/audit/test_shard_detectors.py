"""Detectors of wrong labels and lost images by shard, on synthetic data."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.audit import shards
from pipeline.audit.excess import excesses
from pipeline.audit.findings import Finding
from pipeline.audit.values import HELD_OUT, Values

IMAGES = 400


class ImagesRun:
    """A stand-in for a run that can only be asked for its images."""

    class manifest:  # noqa: N801
        class identity:  # noqa: N801
            model: ClassVar[dict[str, str]] = {}
            targets = "predicted"

    def __init__(self, values: Values) -> None:
        self.images = pa.table({
            "shard": [shard for shard, _ in values.places], "image_key": [key for _, key in values.places],
            "label": values.labels_I, "predicted": values.predicted_I, "confidence": values.confidences_I,
            "correct": values.correct_I == 1, "maps": np.ones(len(values), int),
        })  # fmt: skip

    def arrow(self, sql: str, parameters: Sequence[object] | None = None) -> pa.Table:
        with duckdb.connect() as connection:
            connection.register("images", self.images)
            return connection.sql(sql, params=parameters).to_arrow_table()

    def sql(self, sql: str) -> pd.DataFrame:
        return self.arrow(sql).to_pandas()


def shard_labels(values: Values) -> list[Finding]:
    return shards._labels(ImagesRun(values))  # type: ignore[arg-type]


def test_wrong_labels_of_one_shard_are_reported(values: Values) -> None:
    assert shard_labels(values) == []
    mine_I = np.array([shard == "s3" for shard, _ in values.places])
    wrong_I = mine_I & (np.arange(IMAGES) % 3 > 0)
    (found,) = shard_labels(replace(values, correct_I=np.where(wrong_I, 0.0, values.correct_I)))
    assert (found.kind, found.subject, found.grade) == ("shard_labels", "s3", "replicated")
    assert found.effect.low > 0.5
    assert "labels are suspect" in found.sentence


def test_a_hard_class_in_one_shard_is_not_a_label_error(values: Values) -> None:
    """With shards sorted by class, a class that is hard wherever it occurs is not an anomaly of a shard."""
    places = [
        (f"s{label}{i % 2}", key)
        for i, (label, (_, key)) in enumerate(zip(values.labels_I, values.places, strict=True))
    ]
    hard_I = (values.labels_I == 2) & (np.arange(IMAGES) % 8 < 6)
    assert shard_labels(replace(values, places=places, correct_I=np.where(hard_I, 0.0, 1.0))) == []
    alone = [(f"s{label}", key) for label, (_, key) in zip(values.labels_I, values.places, strict=True)]
    assert shard_labels(replace(values, places=alone, correct_I=np.where(hard_I, 0.0, 1.0))) == []


def test_excesses_are_those_of_a_count_image_by_image(values: Values) -> None:
    """Half by half: the errors of a shard, and the mean over its images of the error rate of their class elsewhere."""
    run = ImagesRun(values)
    halves = excesses(run)  # type: ignore[arg-type]
    held_out_I = run.arrow(f"SELECT {HELD_OUT} AS half FROM images ORDER BY shard, image_key")["half"].to_numpy(
        zero_copy_only=False
    )
    for half, found in zip((False, True), halves, strict=True):
        assert len(found) == 8
        for (_, shard), excess in found.items():
            inside_I = np.array([own == shard for own, _ in values.places])
            rates = []
            for label in values.labels_I[inside_I & (held_out_I == half)]:
                outside_I = ~inside_I & (held_out_I == half) & (values.labels_I == label)
                rates.append(((values.correct_I[outside_I] == 0).sum() + 0.5) / (outside_I.sum() + 1))
            assert excess.images == len(rates)
            assert excess.errors == pytest.approx((values.correct_I[inside_I & (held_out_I == half)] == 0).mean())
            assert excess.elsewhere == pytest.approx(np.mean(rates))


def rows(*failed: int) -> list[dict[str, Any]]:
    return [{"shard": f"s{i}", "images": 50, "failed": count} for i, count in enumerate(failed)]


def test_a_shard_that_lost_images_is_recorded() -> None:
    assert shards._failures(rows(0, 0, 0, 0), []) == []
    assert shards._failures(rows(1, 0, 2, 1), []) == [], "no shard has an excess"
    (found,) = shards._failures(rows(0, 20, 0, 1), [])
    assert (found.kind, found.subject, found.grade) == ("shard_failures", "s1", "recorded")
    assert found.effect.value == 0.4


def test_damage_to_a_shard_counts_even_without_images() -> None:
    (found,) = shards._failures(rows(0, 0), [{"shard": "s9", "detail": "the file ends inside patient_0012.jpg"}])
    assert found.subject == "s9"
    assert "its file is damaged" in found.sentence
    assert "patient" not in str(found), "sentences must not have image keys: --redact-keys replaces them only in tables"
