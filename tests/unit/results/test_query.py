"""Queries on a run: the views, tables and maps for notebooks, and damaged or unfinished runs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from handmade import GRID, PARTS, RunMaker
from queries import refusal, rows

import pipeline
from pipeline.errors import ConfigError, DamagedRunError
from pipeline.results.query import MAP_COLUMNS, Run, decode_row, decode_table, open_run
from pipeline.storage.run_folder import PartName
from schemas.explanation import NAME_COLUMNS, explanation_schema


def test_explanations_are_the_rows_with_a_map(opened: Run, small_run: RunMaker) -> None:
    table = opened.arrow("SELECT * FROM explanations")
    assert table.column_names == [*small_run.schema.names, *NAME_COLUMNS]
    assert table.num_rows == 7
    assert table["map"].null_count == 0
    assert table["error_code"].null_count == 7


def test_images_have_one_row_each_including_failed_ones_but_not_shard_damage(opened: Run) -> None:
    assert opened.arrow("SELECT * FROM images").column_names == [
        "shard", "image_key", "chunk", "image_height", "image_width", "label", "predicted", "confidence", "correct",
        "maps", "error_stage", "error_code", "image_offset", "image_bytes", "image_row", "sample_offset",
        "sample_bytes", "label_name", "predicted_name",
    ]  # fmt: skip
    assert rows(
        opened, "SELECT shard, image_key, chunk, label, predicted, correct, maps, error_code FROM images ORDER BY ALL"
    ) == [
        ("a.tar", "0-0-0", 0, 1, 0, False, 2, None),
        ("a.tar", "0-0-1", 0, None, 1, None, 2, None),
        ("a.tar", "0-1-0", 1, 1, 0, False, 1, "nonfinite"),
        ("b.tar", "1-0-0", 0, 1, 0, False, 2, None),
        ("b.tar", "1-0-1", 0, None, None, None, 0, "truncated"),
    ]


def test_one_key_in_two_shards_is_two_images(tmp_path: Path) -> None:
    class SameKeys(RunMaker):
        def image(self, part: PartName, number: int) -> str:
            return f"{part.chunk}-{number}"

    with open_run(SameKeys(tmp_path / "run").complete().folder) as run:
        assert rows(run, "SELECT count(*), count(DISTINCT image_key) FROM images") == [(5, 3)]


def test_failures_are_all_rows_with_an_error_including_shard_damage(opened: Run) -> None:
    assert rows(opened, "SELECT image_key, method, error_stage, error_code FROM failures") == [
        ("0-1-0", "scorecam", "explain", "nonfinite"),
        ("1-0-1", None, "decode", "truncated"),
        ("b.tar@512", None, "shard", "tar"),
    ]


def test_the_leaderboard_averages_over_explanations_only(opened: Run) -> None:
    table = opened.arrow("SELECT * FROM leaderboard")
    assert table.column_names == ["method", "target_rule", "images", "degenerate", "average_drop", "pointing_game"]
    gradcam = (0.25 + 0.5 + 0.25 + 0.25) / 4
    scorecam = (0.5 + 0.75 + 0.5) / 3
    assert rows(opened, "SELECT * FROM leaderboard") == [
        ("gradcam", "predicted", 4, 0.0, gradcam, gradcam),
        ("scorecam", "predicted", 3, 0.0, pytest.approx(scorecam), pytest.approx(scorecam)),
    ]


def test_the_leaderboard_ignores_null_metric_values(tmp_path: Path) -> None:
    class Sparse(RunMaker):
        def rows(self, part: PartName) -> list[dict[str, Any]]:
            made = super().rows(part)
            made[0]["average_drop"] = None
            return made

    with open_run(Sparse(tmp_path / "run").complete().folder) as run:
        assert rows(run, "SELECT average_drop FROM leaderboard WHERE method = 'gradcam'") == [(0.5,)]


def test_a_run_without_metrics_has_a_leaderboard_without_them(tmp_path: Path) -> None:
    with open_run(RunMaker(tmp_path / "run", metrics=()).complete().folder) as run:
        assert rows(run, "SELECT * FROM leaderboard") == [
            ("gradcam", "predicted", 4, 0.0),
            ("scorecam", "predicted", 3, 0.0),
        ]
        assert run.table().column_names == [*explanation_schema().names, *NAME_COLUMNS]


@pytest.mark.parametrize("name", ["select", "order", "group", "count", "avg", "drop", "été"])
def test_a_metric_may_have_the_name_of_an_sql_keyword(tmp_path: Path, name: str) -> None:
    with open_run(RunMaker(tmp_path / "run", metrics=(name, "increase")).complete().folder) as run:
        assert set(run.arrow("SELECT * FROM leaderboard").column_names[4:]) == {name, "increase"}
        assert run.table([name]).num_rows == 7


def test_sql_returns_a_data_frame(opened: Run) -> None:
    frame = opened.sql("SELECT method, count(*) AS n FROM explanations GROUP BY method ORDER BY n")
    assert frame.to_dict("records") == [{"method": "scorecam", "n": 3}, {"method": "gradcam", "n": 4}]


def test_question_marks_are_replaced_by_parameters(opened: Run) -> None:
    query = "SELECT count(*) FROM images WHERE shard = ? AND predicted = ?"
    assert rows(opened, query, ["a.tar", 0]) == [(2,)]
    assert "1" in refusal(opened, query)
    assert "excess parameters: 3" in refusal(opened, query, ["a.tar", 0, 1])


def test_table_returns_columns_in_the_requested_order(opened: Run) -> None:
    table = opened.table(["method", "image_key"], "method = 'gradcam' AND predicted = 1")
    assert table.to_pylist() == [{"method": "gradcam", "image_key": "0-0-1"}]
    assert opened.table().num_rows == 7
    assert opened.table(where="method = 'none'").num_rows == 0


@pytest.mark.parametrize("column", ["bogus", "count(*)", "map_min + 1", "method; DROP VIEW images", "'x'", "", "*"])
def test_table_accepts_column_names_but_no_sql_expressions(opened: Run, column: str) -> None:
    with pytest.raises(ConfigError, match=f"SQL: no column '{re.escape(column)}'"):
        opened.table([column])
    assert opened.arrow("SELECT * FROM images").num_rows == 5


@pytest.mark.parametrize("where", ["bogus = 1", "1; DROP VIEW images", "method =", "1 = 1) --"])
def test_table_refuses_an_invalid_condition(opened: Run, where: str) -> None:
    with pytest.raises(ConfigError, match="SQL: "):
        opened.table(where=where)
    assert opened.arrow("SELECT * FROM images").num_rows == 5


def test_maps_are_decoded_in_the_order_of_the_table(opened: Run, small_run: RunMaker) -> None:
    maps_Nuv = opened.maps("method = 'scorecam'")
    assert maps_Nuv.shape == (3, *GRID)
    assert maps_Nuv.dtype == np.float32
    low = opened.table(["map_min"], "method = 'scorecam'")["map_min"].to_pylist()
    assert maps_Nuv.min((1, 2)).tolist() == low
    expected = np.arange(12, dtype=np.float32).reshape(GRID) - 1
    assert np.abs(maps_Nuv[0] - expected).max() <= 11 / 510 + 1e-6


def test_no_maps_are_an_empty_array(opened: Run) -> None:
    assert opened.maps("method = 'none'").shape == (0, 0, 0)


def test_maps_of_several_grids_are_refused(opened: Run) -> None:
    table = opened.table(MAP_COLUMNS)
    other = table.set_column(2, "map_width", [[2] * table.num_rows])
    with pytest.raises(ValueError, match="several grids or encodings"):
        decode_table(pa.concat_tables([table, other.cast(table.schema)]))


def test_decoding_rows_equals_decoding_the_table(opened: Run) -> None:
    table = opened.table(MAP_COLUMNS)
    singles = [decode_row(row) for row in table.to_pylist()]
    assert np.array_equal(np.stack(singles), decode_table(table))


def test_the_manifest_is_available(opened: Run, small_run: RunMaker) -> None:
    assert opened.manifest.run_id == small_run.manifest.run_id
    assert opened.manifest.classes == ("cat", "dog", "owl")


def test_the_package_exports_open_run(small_run: RunMaker) -> None:
    with pipeline.open_run(str(small_run.folder)) as run:
        assert isinstance(run, pipeline.Run)
        assert run.table().num_rows == 7


def test_a_closed_run_refuses_queries(small_run: RunMaker) -> None:
    with open_run(small_run.folder) as run:
        pass
    with pytest.raises(ConfigError, match="SQL: "):
        run.arrow("SELECT 1")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
@pytest.mark.parametrize("damage", ["empty", "cut", "middle"])
def test_a_damaged_part_is_refused_and_named(small_run: RunMaker, part: PartName, damage: str) -> None:
    path = small_run.folder / part.file
    data = path.read_bytes()
    middle = data[:100] + bytes(1500) + data[1600:]
    path.write_bytes({"empty": b"", "cut": data[:-1], "middle": middle}[damage])
    with (
        pytest.raises(DamagedRunError, match=f"{part.file} cannot be read .*; run `camatlas verify`"),
        open_run(small_run.folder) as run,
    ):
        run.arrow("SELECT * FROM explanations")


def test_a_part_damaged_while_the_run_is_open_is_named(opened: Run, small_run: RunMaker) -> None:
    (small_run.folder / PARTS[2].file).write_bytes(b"")
    with pytest.raises(DamagedRunError, match=PARTS[2].file):
        opened.table()


def test_a_folder_that_is_not_a_run_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="is not a run folder"):
            open_run(path)


def test_a_run_without_a_finished_chunk_is_refused(maker: RunMaker) -> None:
    with pytest.raises(ConfigError, match="holds no finished chunk yet"):
        open_run(maker.owned().folder)


def test_a_run_can_be_queried_while_it_is_running(maker: RunMaker) -> None:
    maker.owned().publish(PARTS[0])
    (maker.folder / f".{PARTS[1].file}.{'0' * 32}.tmp").write_bytes(b"half")
    with open_run(maker.folder) as run:
        assert rows(run, "SELECT count(*) FROM images") == [(2,)]
