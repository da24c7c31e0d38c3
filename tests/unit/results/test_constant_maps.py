"""The share of constant maps of each method, from column statistics, and its warning."""

from pathlib import Path

import pyarrow.dataset as ds
import pytest
from damage import FIRST
from handmade import RunMaker
from judged import Case, JudgedRun

from pipeline.explain.rows import Row
from pipeline.results import footers
from pipeline.results.constant_maps import constant_shares, constant_warning
from pipeline.results.footers import scan
from pipeline.results.query import open_run
from pipeline.results.status import status
from pipeline.results.summary import totals
from pipeline.storage.run_folder import PartName, part_names

TARGET = {1: ("predicted", 0.7, 1.0)}
CASES = [Case(1, 1, 0.7, TARGET, ["scorecam"] if number < 3 else []) for number in range(10)]


def shares_by_query(run: RunMaker) -> dict[str, float]:
    with open_run(run.folder) as opened:
        rows = opened.arrow("SELECT method, degenerate FROM leaderboard").to_pylist()
    return {row["method"]: row["degenerate"] for row in rows}


def test_shares_equal_those_of_the_rows(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path / "run", cases=CASES).complete()
    assert totals(run.store).degenerate == {"gradcam": 0.0, "scorecam": 0.3} == shares_by_query(run)
    assert status(run.store, 0.0).degenerate == {"gradcam": 0.0, "scorecam": 0.3}


def test_failed_methods_have_fewer_maps(tmp_path: Path) -> None:
    class Constant(RunMaker):
        def explained(self, part: PartName, number: int, failing: str = "") -> list[Row]:
            rows = super().explained(part, number, failing)
            return [row | {"degenerate": row["method"] == "scorecam" and number == 0} if "map" in row else row
                    for row in rows]  # fmt: skip

    run = Constant(tmp_path / "run").complete()
    found = constant_shares(
        scan(run.store, [part.file for part in part_names(run.store)]).statistics.values(), run.methods
    )
    assert found == {"gradcam": 0.0, "scorecam": pytest.approx(2 / 3)} == shares_by_query(run)


def test_without_constant_maps_no_row_is_read(small_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fragment: ds.Fragment) -> None:
        raise AssertionError("a part was read")

    monkeypatch.setattr(footers, "_count_constant", refuse)
    assert scan(small_run.store, [FIRST.file]).statistics[FIRST.file].constant_maps.total() == 0


def test_many_constant_maps_are_a_warning_with_a_usual_cause(small_run: RunMaker) -> None:
    manifest = small_run.manifest
    assert constant_warning({"gradcam": 0.2, "scorecam": 0.0}, manifest) == ""
    warning = constant_warning({"gradcam": 0.1, "scorecam": 0.875}, manifest)
    assert "scorecam 87.5 %" in warning
    assert "gradcam" not in warning
    assert "where 'features' is mostly negative" in warning
    assert "'features:input'" in warning


def test_an_input_is_not_suggested_twice(small_run: RunMaker) -> None:
    identity = small_run.identity
    model = identity.model | {"layer": "bn:input"}
    manifest = small_run.manifest.model_copy(update={"identity": identity.model_copy(update={"model": model})})
    assert ":input:input" not in constant_warning({"scorecam": 0.5}, manifest)
