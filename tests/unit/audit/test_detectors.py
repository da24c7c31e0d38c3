"""Detectors on synthetic data: each reports the planted defect, and nothing without one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.audit import background, patches, properties, shards
from pipeline.audit.excess import excesses
from pipeline.audit.findings import Changed, Effect, Finding, ranked
from pipeline.audit.maps import GRID, Maps
from pipeline.audit.methods import untrusted
from pipeline.audit.values import HELD_OUT, Values

IMAGES = 400


@pytest.fixture
def values() -> Values:
    """Four classes in eight shards, with nine of ten predictions correct."""
    random = np.random.default_rng(0)
    index = np.arange(IMAGES)
    labels_I = index % 4
    correct_I = (random.random(IMAGES) < 0.9).astype(float)
    predicted_I = np.where(correct_I == 1, labels_I, (labels_I + 1) % 4)
    return Values(
        places=[(f"s{i // 50}", f"{i:04d}") for i in index],
        labels_I=labels_I,
        predicted_I=predicted_I,
        classes_I=labels_I,
        confidences_I=np.full(IMAGES, 0.9),
        correct_I=correct_I,
        held_out_I=random.random(IMAGES) < 0.5,
        sizes_I2=np.full((IMAGES, 2), 64.0),
        columns={},
        sums_IK=np.zeros((IMAGES, 0), np.float32),
        counts_IK=np.zeros((IMAGES, 0), np.float32),
    )


class RuleModel:
    """A model whose prediction is a rule on images (B, H, W, C)."""

    def __init__(self, rule: Callable[[np.ndarray], np.ndarray]) -> None:
        self.rule = rule

    def confidences(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[self.rule(pixels_BHWC)]

    def predicted(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        return self.rule(pixels_BHWC)


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


def maps_with_spot(values: Values, predicted: int, methods: int = 2) -> Maps:
    random = np.random.default_rng(1)
    found = {}
    for method in range(methods):
        heat_Iuv = random.integers(0, 120, (IMAGES, GRID, GRID))
        heat_Iuv[values.predicted_I == predicted, 10:13, 1:5] = 255
        found[f"m{method}"] = heat_Iuv.astype(np.uint8)
    return Maps(found)


def test_a_region_shared_by_the_maps_of_one_prediction_is_suspected(values: Values) -> None:
    (found, *others) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    assert not others
    assert found.predicted == 2
    assert found.methods == ("m0", "m1")
    assert found.region_uv[11, 3]
    assert not found.region_uv[3].any()
    assert patches.suspects(values, maps_with_spot(values, 99), ["m0", "m1"]) == []


def pictures(count: int, *, patch: bool) -> np.ndarray:
    random = np.random.default_rng(count)
    found = random.random((count, 56, 56, 3)).astype(np.float32)
    if patch:
        found[:, 40:52, 4:20] = np.indices((12, 16)).sum(0)[None, ..., None] % 2
    return found


def has_patch(pixels_BHWC: np.ndarray) -> np.ndarray:
    return np.where(np.abs(np.diff(pixels_BHWC[:, 45, 6:18, 0], axis=1)).mean(1) > 0.9, 2, 0)


def test_the_region_of_a_peak_on_a_broad_base_leaves_out_the_base() -> None:
    """Maps are smooth: half of the peak may be reached along a whole side."""
    excess_uv = np.full((GRID, GRID), 0.05, np.float32)
    excess_uv[8:] = 0.45
    excess_uv[10:13, 1:5] = 0.8
    region_uv = patches._region(excess_uv)
    assert region_uv is not None
    assert region_uv[10:13, 1:5].all()
    assert region_uv.mean() <= patches.MAX_REGION
    excess_uv[8:] = 0.75
    assert patches._region(excess_uv) is None, "a whole side is not a patch"


def test_overwriting_confirms_a_patch(values: Values) -> None:
    (suspect,) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    half_B = np.arange(40) % 2 == 0
    own, others = pictures(40, patch=True), pictures(41, patch=False)
    evidence = patches.intervene(suspect, own, half_B, others, RuleModel(has_patch))  # type: ignore[arg-type]
    assert evidence is not None
    assert evidence.others == 1
    found = patches.finding(suspect, evidence, "owl", ["m0", "m1"])
    assert found is not None
    assert found.control is not None
    assert found.control.value < 0.2
    assert (found.kind, found.subject, found.grade) == ("watermark", "2", "replicated")
    assert found.effect.value == 1
    assert "bottom left" in found.sentence
    alone = patches.finding(suspect, evidence, "owl", ["m0"])
    assert alone is not None
    assert alone.grade == "intervened", "only one of the methods is known to follow the model"


def test_a_patch_that_the_model_ignores_is_not_a_finding(values: Values) -> None:
    (suspect,) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    constant = RuleModel(lambda pixels_BHWC: np.full(len(pixels_BHWC), 2))
    half_B = np.arange(40) % 2 == 0
    evidence = patches.intervene(suspect, pictures(40, patch=True), half_B, pictures(41, patch=False), constant)  # type: ignore[arg-type]
    assert evidence is not None
    assert patches.finding(suspect, evidence, "owl") is None


def test_a_region_without_common_pixels_is_not_a_patch(values: Values) -> None:
    (suspect,) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    half_B = np.arange(40) % 2 == 0
    assert (
        patches.intervene(suspect, pictures(40, patch=False), half_B, pictures(41, patch=False), RuleModel(has_patch))
        is None
    )  # type: ignore[arg-type]


def tinted(count: int, red: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = 0.25 + 0.25 * random.random((count, 20, 20, 3)).astype(np.float32)
    found[..., 0] += red
    return found


def test_a_colour_that_determines_the_prediction_is_found() -> None:
    own, others = tinted(32, 0.3, 0), tinted(96, 0.0, 1)
    predicted_B = np.repeat([1, 0], [32, 96])
    held_out_B = np.arange(128) % 2 == 0
    found = properties.associations(
        properties.measure([*own, *others], np.full((128, 2), 20.0)), predicted_B, held_out_B
    )
    suspects = properties.colour_suspects(found)
    assert {row.predicted for row in suspects} == {0, 1}
    red = RuleModel(lambda pixels_BHWC: (pixels_BHWC[..., 0].mean((1, 2)) > 0.5).astype(int))
    changed = properties.intervene(1, own, held_out_B[:32], others.mean((0, 1, 2)), red)  # type: ignore[arg-type]
    assert changed is not None
    result = properties.finding(next(row for row in suspects if row.predicted == 1), changed, "brick")
    assert result is not None
    assert (result.kind, result.subject, result.grade) == ("colour", "1", "replicated")
    assert result.effect.value == 1
    shape = RuleModel(lambda pixels_BHWC: np.ones(len(pixels_BHWC), int))
    unmoved = properties.intervene(1, own, held_out_B[:32], others.mean((0, 1, 2)), shape)  # type: ignore[arg-type]
    assert unmoved is not None
    assert properties.finding(suspects[0], unmoved, "brick") is None


def test_equal_colours_are_not_suspected() -> None:
    found = properties.associations(
        properties.measure(list(tinted(128, 0.0, 3)), np.full((128, 2), 20.0)),
        np.repeat([1, 0], 64),
        np.arange(128) % 2 == 0,
    )
    assert properties.colour_suspects(found) == []


def test_a_claim_must_hold_on_both_halves_and_beat_its_control() -> None:
    half_B = np.arange(60) < 30
    every, none = np.ones(60, bool), np.zeros(60, bool)
    assert all(Changed(every, none, half_B).holds(half) for half in (False, True))
    assert not Changed(every, every, half_B).holds(True), "the control has the same effect"
    assert not Changed(half_B, none, half_B).holds(False), "only one half shows it"
    assert not Changed(every[:10], none[:10], half_B[:10]).holds(False), "too few images"
    assert not Changed(np.arange(60) % 10 == 0, none, half_B).holds(True), "too few predictions change"


def test_methods_that_ignore_the_model_or_the_image() -> None:
    random = np.random.default_rng(0)
    maps = Maps({
        "varied": random.integers(0, 256, (40, GRID, GRID)).astype(np.uint8),
        "constant": np.broadcast_to(random.integers(0, 256, (GRID, GRID)).astype(np.uint8), (40, GRID, GRID)),
    })  # fmt: skip
    checked = [
        {"method": "varied", "follows": "no", "spearman": 0.97, "low": 0.96, "high": 0.98, "maps": 16},
        {"method": "constant", "follows": "yes", "spearman": 0.1, "low": 0.09, "high": 0.11, "maps": 16},
    ]
    board = [{"method": name, "images": 40, "degenerate": 0.0} for name in maps.by_method]
    findings, checks = untrusted(checked, maps, board, 40)
    assert [(found.subject, found.grade) for found in findings] == [("varied", "intervened"), ("constant", "recorded")]
    assert {check.detector: check.verdict for check in checks} == {"image": "found", "constant": "not found"}
    board[0]["degenerate"] = 0.9
    findings, checks = untrusted([], maps, board, 40)
    assert [found.subject for found in findings] == ["constant", "varied"]
    assert checks[1].verdict == "found"


def with_boxes(values: Values, relies_I: np.ndarray) -> Values:
    columns = [np.where(relies_I, 0.8, 0.1), np.where(relies_I, 0.2, 0.8), np.where(relies_I, 0.3, 0.7)]
    names = ("box_removed_confidence", "box_only_confidence", "energy_in_box")
    return replace(
        values, columns={("predicted", "gradcam", name): place for place, name in enumerate(names)},
        sums_IK=np.stack(columns, 1).astype(np.float32), counts_IK=np.ones((IMAGES, 3), np.float32),
    )  # fmt: skip


class NamedRun:
    """A stand-in for a run that knows only class, metric and method names."""

    class manifest:  # noqa: N801
        @staticmethod
        def class_name(index: int) -> str:
            return ("cat", "dog", "owl", "fox")[index]

        class identity:  # noqa: N801
            metrics = {"energy_in_box": {"name": "energy_in_box"}}  # noqa: RUF012
            methods = {"gradcam": {"name": "gradcam"}}  # noqa: RUF012


def test_a_class_that_relies_on_its_context(values: Values) -> None:
    relies_I = (values.predicted_I == 1) & (np.arange(IMAGES) % 4 < 3)
    right_I = values.correct_I == 1
    (found,) = background._findings(NamedRun(), with_boxes(values, relies_I), right_I, relies_I, ["gradcam"])  # type: ignore[arg-type]
    assert (found.kind, found.subject, found.name, found.grade) == ("background", "1", "dog", "intervened")
    nothing_I = np.zeros(IMAGES, bool)
    assert background._findings(NamedRun(), with_boxes(values, nothing_I), right_I, nothing_I, ["gradcam"]) == []  # type: ignore[arg-type]


def test_recorded_findings_come_first_then_the_largest_effects() -> None:
    def one(grade: str, low: float) -> Finding:
        return Finding("method", str(low), "", "", grade, "", Effect("", low, low, 1, 9), "", "")  # type: ignore[arg-type]

    found = [one("intervened", 0.3), one("recorded", 0.1), one("replicated", 0.9)]
    assert [finding.subject for finding in ranked(found)] == ["0.1", "0.9", "0.3"]
