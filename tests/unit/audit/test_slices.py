"""Slices by metadata: numbers by hand, the planted slice first, columns with very many values, hostile text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from handmade import RunMaker
from report_scale import write_run
from scipy import stats

from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.audit.slice_tests import calibration, means, shares
from pipeline.audit.slices import LEAST, MAX_PLAIN, SHOWN, slices
from pipeline.explain.rows import Row
from pipeline.results.query import open_run
from pipeline.storage.parts import Footer
from pipeline.storage.run_folder import PartName
from schemas.explanation import described, explanation_schema
from schemas.manifest import RunIdentity

RANDOM = np.random.default_rng(5)


@dataclass(frozen=True)
class SlicedRun(RunMaker):
    """One chunk of images with metadata, a label (1) or none, and a prediction."""

    shards: Sequence[str] = ("a.tar",)
    methods: Sequence[str] = ("gradcam",)
    metadata: Sequence[dict[str, str]] = field(default_factory=tuple)
    right: Sequence[bool | None] = field(default_factory=tuple)

    @property
    def identity(self) -> RunIdentity:
        known = super().identity
        return known.model_copy(update={"data": {**known.data, "metadata": ["any"]}})

    @property
    def schema(self) -> pa.Schema:
        fields = [described(name, pa.float32(), "", name) for name in sorted(self.metrics)]
        return explanation_schema(fields, has_metadata=True)

    def rows(self, part: PartName) -> list[Row]:
        (row,) = self.explained(part, 1)
        found = []
        for number, (values, right) in enumerate(zip(self.metadata, self.right, strict=True)):
            label = None if right is None else 1
            predicted = 1 if right is not False else 2
            found.append(
                row | {"image_key": f"i{number:05d}", "metadata": list(values.items()), "label": label,
                       "predicted": predicted, "target": predicted, "confidence": 0.9, "average_drop": number % 7 / 7}
            )  # fmt: skip
        return found

    def footer(self, part: PartName, run_id: str = "") -> Footer:
        return Footer(run_id or self.manifest.run_id, 0, 0, last_chunk=True, images=len(self.metadata))

    def complete(self) -> "SlicedRun":
        self.owned().publish(PartName(0, 0))
        return self


def chapter_of(maker: RunMaker) -> tuple[dict[str, Any], list[Any]]:
    with open_run(maker.folder) as run:
        chapter, findings = slices(run)
        counts = {(row["name"], row["slice"]): row for row in run.arrow(chapter["sql"]).to_pylist()}
    for row in chapter["slices"]:
        counted = counts[row["name"], row["slice"]]
        assert (row["images"], row["judged"]) == (counted["images"], counted["judged"])
    return chapter, findings


def measure(row: dict[str, Any], name: str, method: str = "") -> dict[str, Any]:
    if not method:
        return dict(row["model"][name])
    return next(one for one in row["metrics"] if (one["measure"], one["method"]) == (name, method))


def test_numbers_of_a_slice_are_those_of_its_images(tmp_path: Path) -> None:
    north = np.arange(200) % 4 == 0
    right = np.where(north, np.arange(200) % 8 == 0, np.arange(200) % 10 > 0)
    metadata = [{"site": "north" if one else "south"} for one in north]
    chapter, findings = chapter_of(
        SlicedRun(tmp_path / "run", metadata=metadata, right=list(map(bool, right))).complete()
    )
    worst, other = chapter["slices"]
    assert (worst["value"], worst["images"], other["value"], other["images"]) == ("north", 50, "south", 150)
    accuracy = measure(worst, "accuracy")
    assert accuracy["value"] == right[north].mean()
    assert accuracy["rest"] == right[~north].mean()
    assert accuracy["low"] < accuracy["difference"] < accuracy["high"] < 0
    assert measure(worst, "confidently_wrong")["value"] == pytest.approx(1 - right[north].mean())
    assert measure(worst, "calibration_error")["value"] == pytest.approx(0.9 - right[north].mean(), abs=1e-6)
    drop = np.arange(200) % 7 / 7
    found = measure(worst, "average_drop", "gradcam")
    wanted = stats.ttest_ind(drop[north], drop[~north], equal_var=False)
    assert found["difference"] == pytest.approx(drop[north].mean() - drop[~north].mean(), abs=1e-6)
    assert found["low"] == pytest.approx(wanted.confidence_interval().low, abs=1e-5)
    assert chapter["tests"] == 2 * 5 - 2, "pointing_game is constant: no test"
    assert found["p"] == pytest.approx(min(1, wanted.pvalue * 8), abs=1e-6) or found["p"] == 1.0
    assert accuracy["p"] < 1e-6
    (finding,) = findings
    assert (finding.kind, finding.name, finding.grade) == ("slice", "site = north", "replicated")


def test_equal_slices_are_no_findings(tmp_path: Path) -> None:
    right = RANDOM.random(400) < 0.7
    metadata = [{"site": f"s{number % 8}"} for number in range(400)]
    chapter, findings = chapter_of(
        SlicedRun(tmp_path / "run", metadata=metadata, right=list(map(bool, right))).complete()
    )
    assert findings == []
    assert (
        min(
            one["p"]
            for row in chapter["slices"]
            for one in (*row["model"].values(), *row["metrics"])
            if one["p"] is not None
        )
        > 0.05
    )


def test_columns_with_many_values_are_bounded(tmp_path: Path) -> None:
    count = 30 * LEAST + 40
    metadata = [
        {"many": f"v{number // LEAST:02d}" if number < 30 * LEAST else f"single{number}", "age": str(number % 97 / 2),
         "few": str(number % 3), "id": f"patient-{number}"}
        for number in range(count)
    ]  # fmt: skip
    chapter, _ = chapter_of(SlicedRun(tmp_path / "run", metadata=metadata, right=[None] * count).complete())
    columns = {column["name"]: column for column in chapter["columns"]}
    assert (columns["many"]["judged"], columns["many"]["small"], columns["many"]["not_shown"]) == (30, 40, 10)
    assert (columns["age"]["numeric"], columns["age"]["slices"]) == (True, 5)
    assert (columns["few"]["numeric"], columns["few"]["slices"]) == (False, 3)
    assert (columns["id"]["judged"], columns["id"]["small"], columns["id"]["small_images"]) == (0, count, count)
    assert len([row for row in chapter["slices"] if row["name"] == "many"]) == SHOWN
    ages = [row for row in chapter["slices"] if row["name"] == "age"]
    assert sum(row["images"] for row in ages) == count
    assert min(row["value"] for row in ages) == "0 to 9"
    assert len({values["age"] for values in metadata}) > MAX_PLAIN > len({values["few"] for values in metadata})


@pytest.mark.parametrize("metadata", [[{}, {}], [{"site": "<script>alert(1)</script>"}] * 2])
def test_nothing_to_judge_is_said(tmp_path: Path, metadata: list[dict[str, str]]) -> None:
    maker = SlicedRun(tmp_path / "run", metadata=metadata, right=[True, False]).complete()
    with open_run(maker.folder) as run:
        found = audit(run, ask_model=False)
    assert found.facts["slices"]["slices"] == []
    page = render(found.facts, found.pictures)
    assert ("1 with fewer than 30 images (2 images)" in page) == bool(metadata[0])
    assert "<script>alert" not in page


def test_hostile_values_are_text(tmp_path: Path) -> None:
    texts = ["<script>alert(1)</script>", "=1+1", "a'; DROP TABLE images; --", 'quote"', "line\nbreak", "../../etc"]
    metadata = [{text: text} for text in texts for _ in range(LEAST)]
    right = [number % LEAST > 3 for number in range(len(metadata))]
    maker = SlicedRun(tmp_path / "run", metadata=metadata, right=right).complete()
    with open_run(maker.folder) as run:
        found = audit(run, ask_model=False)
    assert sorted(row["value"] for row in found.facts["slices"]["slices"]) == sorted(texts)
    page = render(found.facts, found.pictures)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_large_made_run_names_its_bad_slice(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 4000, 500)
    with open_run(tmp_path / "run") as run:
        chapter, _ = slices(run)
    assert chapter["slices"][0]["value"] == "site-00"
    assert measure(chapter["slices"][0], "accuracy")["p"] is not None


def test_shares_agree_with_fishers_test_on_what_is_clear() -> None:
    tested = shares("a", "higher", (np.array([5.0, 50.0]), np.array([50.0, 50.0])), (np.array([90.0, 100.0]),) * 2)
    assert tested.p_S[0] < 1e-6
    assert stats.fisher_exact([[5, 45], [90, 0]]).pvalue < 1e-6
    assert tested.low_S[1] < 0 < tested.high_S[1]
    assert tested.difference_S[1] == 0


def test_a_small_calibrated_slice_is_not_worse_calibrated() -> None:
    """The mean calibration error of calibrated slices of 40 images is far from 0, and near what is expected."""
    count, bins = 4000, 15
    confidence = (np.arange(bins) + 0.5) / bins
    n_SB = RANDOM.multinomial(40, np.full(bins, 1 / bins), count).astype(float)
    right_SB = RANDOM.binomial(n_SB.astype(int), confidence).astype(float)
    inside = np.stack([n_SB, right_SB, n_SB * confidence])
    rest = np.broadcast_to(np.stack([np.full(bins, 1e5), 1e5 * confidence, 1e5 * confidence])[:, None], inside.shape)
    tested = calibration("ece", inside, rest)
    assert tested.value_S.mean() > 0.1
    assert tested.rest_S.mean() == pytest.approx(tested.value_S.mean(), rel=0.05)
    assert (tested.p_S < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_welch_is_that_of_scipy() -> None:
    one, other = RANDOM.normal(size=40), RANDOM.normal(0.5, 2, 100)
    sums = [np.array([[len(x), x.sum(), (x**2).sum()]]) for x in (one, other)]
    tested = means("m", "higher", ("predicted", "gradcam"), *sums)
    wanted = stats.ttest_ind(one, other, equal_var=False)
    assert tested.p_S[0] == pytest.approx(wanted.pvalue)
    assert (tested.low_S[0], tested.high_S[0]) == pytest.approx(tuple(wanted.confidence_interval()))
