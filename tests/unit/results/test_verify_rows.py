"""verify checks the rows: problems in parts with a matching receipt are found, and the part is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from damage import FIRST, OTHER_SHARD, SECOND, only_problem, replace_part, with_column
from handmade import RunMaker

from pipeline.data.sources import Draw
from pipeline.results.verify import verify
from pipeline.storage.parts import Footer
from pipeline.storage.run_folder import PartName


def test_a_part_of_another_run_is_found(small_run: RunMaker) -> None:
    replace_part(small_run, FIRST, small_run.table(FIRST), small_run.footer(FIRST, run_id="0123"))
    assert only_problem(small_run) == f"{FIRST.file}: belongs to run 0123, not {small_run.manifest.run_id}"


def test_a_part_of_another_run_is_found_with_its_receipt_gone(small_run: RunMaker, tmp_path: Path) -> None:
    other = RunMaker(tmp_path / "other", seed=7).complete()
    (small_run.folder / FIRST.file).write_bytes((other.folder / FIRST.file).read_bytes())
    (small_run.folder / FIRST.receipt).unlink()
    assert only_problem(small_run).startswith(f"{FIRST.file}: belongs to run {other.manifest.run_id}")


def test_a_renamed_part_is_found(small_run: RunMaker) -> None:
    moved = PartName(1, 1)
    (small_run.folder / OTHER_SHARD.file).rename(small_run.folder / moved.file)
    problems = verify(small_run.store).problems
    assert f"{moved.file}: holds shard 1 chunk 0, which does not match its name" in problems
    assert f"{moved.file}: some rows name another shard or chunk" in problems
    assert f"{OTHER_SHARD.file}: the part is missing, but its receipt exists" in problems


def test_an_image_in_two_chunks_is_found(small_run: RunMaker) -> None:
    name = small_run.image(FIRST, 1)
    replace_part(small_run, SECOND, with_column(small_run.table(SECOND), "image_key", lambda keys: [name] * len(keys)))
    assert only_problem(small_run) == f"{SECOND.file}: 1 images also occur in an earlier chunk, for example '{name}'"


def test_the_same_key_in_two_shards_is_no_problem(small_run: RunMaker) -> None:
    table = with_column(
        small_run.table(OTHER_SHARD), "image_key", lambda keys: [key.replace("1-0-", "0-0-") for key in keys]
    )
    replace_part(small_run, OTHER_SHARD, table)
    assert verify(small_run.store).problems == []


def test_an_extra_target_is_found(small_run: RunMaker) -> None:
    """Every method also has rows for a class that the run does not explain."""
    table = small_run.table(FIRST)
    image = small_run.image(FIRST, 0)
    again = with_column(table.filter(pc.equal(table["image_key"], image)), "target", lambda targets: [9] * len(targets))
    replace_part(small_run, FIRST, pa.concat_tables([table, again]))
    assert only_problem(small_run) == (
        f"{FIRST.file}: image '{image}' has rows for 2 targets, which the rule 'predicted' does not allow"
    )


@pytest.mark.parametrize("row", range(4))
def test_a_missing_method_row_is_found(small_run: RunMaker, row: int) -> None:
    table = small_run.table(FIRST)
    replace_part(small_run, FIRST, table.filter(pa.array([index != row for index in range(4)])))
    image = small_run.image(FIRST, row // 2)
    assert only_problem(small_run).startswith(f"{FIRST.file}: image '{image}' has rows for ['")


def test_images_outside_the_sample_are_found(small_run: RunMaker, tmp_path: Path) -> None:
    tables = [small_run.table(part).to_pylist() for part in (FIRST, SECOND, OTHER_SHARD)]
    images = {(row["shard"], row["image_key"]) for rows in tables for row in rows if row["error_stage"] != "shard"}
    draw = Draw(4, 0, 5)
    *drawn, (last_shard, left_out) = sorted(images, key=lambda image: draw.rank(*image))
    whole = RunMaker(tmp_path / "whole", draw=draw).complete()
    assert verify(whole.store).problems == []
    most = RunMaker(tmp_path / "most", draw=replace(draw, last=draw.rank(last_shard, left_out))).complete()
    assert verify(most.store).problems == []
    few = RunMaker(tmp_path / "few", draw=replace(draw, last=draw.rank(*drawn[-1]))).complete()
    assert only_problem(few).endswith(f"holds 1 images that are not in the sample, for example '{left_out}'")


def test_a_missing_row_of_a_method_that_failed_is_found(small_run: RunMaker) -> None:
    table = small_run.table(SECOND)
    replace_part(small_run, SECOND, table.filter(pc.is_null(table["error_code"])))
    assert only_problem(small_run).startswith(f"{SECOND.file}: image '0-1-0' has rows for ['gradcam']")


def test_an_image_that_failed_and_was_explained_is_found(small_run: RunMaker) -> None:
    table = with_column(
        small_run.table(OTHER_SHARD), "image_key", lambda keys: [key.replace("1-0-1", "1-0-0") for key in keys]
    )
    replace_part(small_run, OTHER_SHARD, table, replace(small_run.footer(OTHER_SHARD), images=1))
    assert only_problem(small_run).startswith(f"{OTHER_SHARD.file}: image '1-0-0' has rows for ")


def test_a_row_of_an_unknown_method_is_found(small_run: RunMaker) -> None:
    table = with_column(small_run.table(FIRST), "method", lambda names: ["surprise", *names[1:]])
    replace_part(small_run, FIRST, table)
    assert only_problem(small_run).startswith(f"{FIRST.file}: image '0-0-0' has rows for ['surprise', 'scorecam']")


@pytest.mark.parametrize("images", [0, 1, 3])
def test_a_wrong_number_of_images_is_found(small_run: RunMaker, images: int) -> None:
    replace_part(small_run, FIRST, small_run.table(FIRST), replace(small_run.footer(FIRST), images=images))
    assert only_problem(small_run) == f"{FIRST.file}: holds 2 images, but {images} were in the chunk"


def test_an_image_without_any_row_is_found(small_run: RunMaker) -> None:
    replace_part(small_run, FIRST, small_run.table(FIRST).slice(0, 2))
    assert only_problem(small_run) == f"{FIRST.file}: holds 1 images, but 2 were in the chunk"


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("map", lambda maps: [maps[0][:-1], *maps[1:]]),
        ("map", lambda maps: [*maps[:-1], maps[-1] + b"x"]),
        ("map", lambda maps: [b"", *maps[1:]]),
        ("map_height", lambda heights: [4, *heights[1:]]),
        ("map_width", lambda widths: [None, *widths[1:]]),
        ("map_dtype", lambda dtypes: ["f16", *dtypes[1:]]),
        ("map_dtype", lambda dtypes: [None, *dtypes[1:]]),
        ("map_dtype", lambda dtypes: ["u9", *dtypes[1:]]),
    ],
)
def test_a_map_of_the_wrong_size_is_found(
    small_run: RunMaker, column: str, change: Callable[[list[Any]], list[Any]]
) -> None:
    replace_part(small_run, FIRST, with_column(small_run.table(FIRST), column, change))
    assert only_problem(small_run) == f"{FIRST.file}: a map does not have the size given in its row"


@pytest.mark.parametrize(
    ("part", "column", "change"),
    [
        (FIRST, "map", lambda maps: [None, *maps[1:]]),
        (FIRST, "error_code", lambda codes: ["nonfinite", *codes[1:]]),
        (SECOND, "error_code", lambda codes: [None] * len(codes)),
    ],
)
def test_a_row_with_neither_map_nor_error_or_with_both_is_found(
    small_run: RunMaker, part: PartName, column: str, change: Callable[[list[Any]], list[Any]]
) -> None:
    replace_part(small_run, part, with_column(small_run.table(part), column, change))
    assert f"{part.file}: a row has neither a map nor an error, or has both" in verify(small_run.store).problems


@pytest.mark.parametrize(("column", "value"), [("shard", "b.tar"), ("chunk", 1)])
def test_rows_that_name_another_shard_or_chunk_are_found(small_run: RunMaker, column: str, value: object) -> None:
    replace_part(small_run, FIRST, with_column(small_run.table(FIRST), column, lambda old: [*old[1:], value]))
    assert only_problem(small_run) == f"{FIRST.file}: some rows name another shard or chunk"


def test_a_missing_last_chunk_is_found(small_run: RunMaker) -> None:
    replace_part(small_run, SECOND, small_run.table(SECOND), replace(small_run.footer(SECOND), last_chunk=False))
    assert only_problem(small_run).startswith("shard 0 (a.tar): incomplete, 2 chunks were found")


def test_a_last_chunk_before_the_end_is_found(small_run: RunMaker) -> None:
    replace_part(small_run, FIRST, small_run.table(FIRST), replace(small_run.footer(FIRST), last_chunk=True))
    assert only_problem(small_run).startswith("shard 0 (a.tar): ")


def test_a_part_of_an_unknown_shard_is_found(small_run: RunMaker) -> None:
    extra = PartName(2, 0)
    replace_part(small_run, extra, small_run.table(FIRST), Footer(small_run.manifest.run_id, 2, 0, True, 2))
    assert only_problem(small_run) == f"{extra.file}: the run has only 2 shards"


def test_more_images_than_the_run_takes_are_found(tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run", take=2).complete()
    assert only_problem(run) == "shard 0 (a.tar): 3 images, but the run takes only 2"


@pytest.mark.parametrize("metrics", [("increase",), ("average_drop",), ()])
def test_a_part_with_other_columns_is_found(small_run: RunMaker, tmp_path: Path, metrics: tuple[str, ...]) -> None:
    table = RunMaker(tmp_path / "other", metrics=metrics).table(FIRST)
    replace_part(small_run, FIRST, table)
    assert only_problem(small_run) == f"{FIRST.file}: its columns differ from those of this run"


WRONG_PLACES: dict[str, dict[str, list[int | None]]] = {
    "say that it lies in different places": {"sample_offset": [0, 512], "sample_bytes": [100, 100]},
    "image_offset is negative": {"image_offset": [-1, -1]},
    "image_row, in a shard that is a tar": {"image_row": [0, 0]},
    "sample_offset without sample_bytes": {"sample_offset": [0, 0]},
    "image_offset without its sample": {"image_offset": [0, 0]},
    "its sample ends at 1001, but the shard has 1000 bytes": {"sample_offset": [0, 0], "sample_bytes": [1001, 1001]},
    "it is not within its sample": {
        "image_offset": [512, 512], "image_bytes": [9, 9], "sample_offset": [0, 0], "sample_bytes": [520, 520]
    },
}  # fmt: skip


@pytest.mark.parametrize("problem", WRONG_PLACES)
def test_a_place_where_an_image_cannot_lie_is_found(small_run: RunMaker, problem: str) -> None:
    table = small_run.table(SECOND)
    for name, values in WRONG_PLACES[problem].items():
        table = with_column(table, name, lambda _, values=values: values)
    replace_part(small_run, SECOND, table)
    assert problem in only_problem(small_run)
    assert only_problem(small_run).startswith(f"{SECOND.file}: ")


def test_two_images_in_one_place_are_found(small_run: RunMaker) -> None:
    table = small_run.table(FIRST)
    for name, value in {"image_offset": 512, "image_bytes": 9, "sample_offset": 0, "sample_bytes": 521}.items():
        table = with_column(table, name, lambda keys, value=value: [value] * len(keys))
    replace_part(small_run, FIRST, table)
    first, second = small_run.image(FIRST, 0), small_run.image(FIRST, 1)
    assert f"images '{first}' and '{second}' lie in one place" in only_problem(small_run)


def test_places_that_are_possible_are_no_problem(small_run: RunMaker) -> None:
    table = small_run.table(SECOND)
    for name, value in {"image_offset": 512, "image_bytes": 9, "sample_offset": 0, "sample_bytes": 521}.items():
        table = with_column(table, name, lambda keys, value=value: [value] * len(keys))
    replace_part(small_run, SECOND, table)
    assert not verify(small_run.store).problems
