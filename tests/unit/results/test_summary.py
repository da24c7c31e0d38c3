"""Totals of a run, counted from its parts."""

from pathlib import Path

import pytest
from handmade import PARTS, RunMaker

from pipeline.errors import DamagedRunError
from pipeline.results.query import open_run
from pipeline.results.run_totals import Totals
from pipeline.results.summary import totals

_COUNTS = """
SELECT (SELECT count(*) FROM images) AS images, (SELECT count(*) FROM images WHERE maps > 0) AS explained,
  (SELECT count(*) FROM explanations) AS rows,
  (SELECT count(DISTINCT (shard, image_key)) FROM failures) AS with_failures,
  (SELECT count(DISTINCT (shard, image_key)) FROM failures WHERE error_stage = 'shard') AS damages
"""


def test_totals_equal_counts_of_the_rows(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "run").complete()
    found = totals(maker.store)
    with open_run(maker.folder) as run:
        (counted,) = run.arrow(_COUNTS).to_pylist()
    assert {name: value for name, value in vars(found).items() if name not in ("failures", "degenerate")} == counted
    assert found == Totals(
        images=5,
        explained=4,
        rows=7,
        with_failures=3,
        damages=1,
        failures={"decode/truncated": 1, "explain/nonfinite": 1, "shard/tar": 1},
        degenerate={"gradcam": 0.0, "scorecam": 0.0},
    )


def test_totals_of_a_run_without_parts_are_zero(tmp_path: Path) -> None:
    assert totals(RunMaker(tmp_path / "run").owned().store) == Totals(0, 0, 0, 0, 0, {})


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "run").complete()
    (maker.folder / PARTS[1].file).write_bytes(b"no part")
    with pytest.raises(DamagedRunError, match=PARTS[1].file):
        totals(maker.store)
