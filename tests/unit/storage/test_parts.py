"""Part files: rows are checked, read back unchanged, and readable by pandas and DuckDB."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import PARTS, RunMaker

from pipeline.errors import DamagedRunError
from pipeline.storage.parts import (
    Footer,
    Progress,
    encode_part,
    progress,
    publish_part,
    read_footer,
    read_part,
)
from pipeline.storage.run_folder import MANIFEST, PartName, Receipt
from schemas.explanation import SCHEMA_VERSION, explanation_schema

FIRST, SECOND, OTHER_SHARD = PARTS
FOOTER = Footer("run", 3, 4, True, 5)


def encoded(maker: RunMaker, part: PartName = FIRST) -> bytes:
    return encode_part(maker.table(part), maker.footer(part))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
def test_a_part_reads_back_as_it_was_written(maker: RunMaker, part: PartName) -> None:
    table, footer = read_part(encoded(maker, part))
    assert table.equals(maker.table(part))
    assert footer == maker.footer(part)
    assert read_footer(encoded(maker, part)) == footer


def test_the_same_rows_make_the_same_bytes(maker: RunMaker) -> None:
    assert encoded(maker) == encoded(maker)


def test_the_metadata_of_a_part_name_its_place_in_the_run(maker: RunMaker, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(encode_part(maker.table(FIRST), FOOTER))
    metadata = pq.read_schema(tmp_path / "x.parquet").metadata
    assert {key: value for key, value in metadata.items() if key.startswith(b"camatlas.")} == {
        b"camatlas.run_id": b"run",
        b"camatlas.shard": b"3",
        b"camatlas.chunk": b"4",
        b"camatlas.last_chunk": b"1",
        b"camatlas.images": b"5",
        b"camatlas.schema_version": str(SCHEMA_VERSION).encode(),
    }


def test_the_columns_of_a_part_have_unit_and_description(maker: RunMaker) -> None:
    table, _ = read_part(encoded(maker))
    assert table.schema.field("map_height").metadata == explanation_schema().field("map_height").metadata


@pytest.mark.parametrize("last", [True, False])
def test_a_footer_can_be_parsed_from_its_metadata(last: bool) -> None:
    footer = Footer("run", 3, 4, last, 5, 9)
    assert Footer.from_metadata({key.encode(): value.encode() for key, value in footer.to_metadata().items()}) == footer


@pytest.mark.parametrize("field", ["run_id", "shard", "chunk", "last_chunk", "images", "schema_version"])
def test_an_incomplete_footer_is_refused(field: str) -> None:
    metadata = {key.encode(): value.encode() for key, value in FOOTER.to_metadata().items()}
    del metadata[f"camatlas.{field}".encode()]
    with pytest.raises(ValueError, match=f"the footer has no 'camatlas.{field}'"):
        Footer.from_metadata(metadata)


@pytest.mark.parametrize("metadata", [None, {}, {b"camatlas.shard": b"x"}])
def test_a_missing_footer_is_refused(metadata: dict[bytes, bytes] | None) -> None:
    with pytest.raises(ValueError, match="the footer has no"):
        Footer.from_metadata(metadata)


def test_rows_of_another_schema_are_not_written(maker: RunMaker) -> None:
    table = maker.table(FIRST)
    wrong = (
        table.drop_columns(["chunk"]),
        table.select(sorted(table.column_names)),
        table.set_column(2, "chunk", table["chunk"].cast(pa.int64())),
        table.append_column("extra", table["chunk"]),
    )
    for other in wrong:
        with pytest.raises(ValueError, match="do not have the schema of a part"):
            encode_part(other, FOOTER)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
def test_a_duplicate_row_is_not_written(maker: RunMaker, part: PartName) -> None:
    """Rows of failures and damage have null target and method; equal keys with nulls are duplicates, too."""
    table = maker.table(part)
    for index in range(table.num_rows):
        doubled = pa.concat_tables([table, table.slice(index, 1)])
        with pytest.raises(ValueError, match="same key"):
            encode_part(doubled, FOOTER)


def test_a_row_that_does_not_read_back_is_not_written(maker: RunMaker) -> None:
    table = maker.table(FIRST)
    place = table.column_names.index("confidence")
    broken = table.set_column(place, table.schema.field(place), pa.array([np.nan] * table.num_rows, pa.float32()))
    with pytest.raises(ValueError, match="does not read back"):
        encode_part(broken, FOOTER)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 10, b"x" * 1000])
def test_bytes_that_are_not_parquet_are_refused(data: bytes) -> None:
    for read in (read_part, read_footer):
        with pytest.raises(ValueError):  # noqa: PT011 - the messages are pyarrow's
            read(data)


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="the footer has no"):
        read_part((tmp_path / "x.parquet").read_bytes())


def test_every_truncated_part_is_refused_with_a_value_error(maker: RunMaker) -> None:
    data = encoded(maker)
    for size in range(0, len(data), 97):
        for read in (read_part, read_footer):
            with pytest.raises(ValueError):  # noqa: PT011 - the messages are pyarrow's
                read(data[:size])


def test_publishing_a_part_writes_it_and_its_receipt(maker: RunMaker) -> None:
    maker.owned()
    receipt = publish_part(maker.store, maker.table(FIRST), maker.footer(FIRST))
    assert receipt == Receipt.of(FIRST, maker.store.read(FIRST.file), 4)
    assert Receipt.from_json(maker.store.read(FIRST.receipt)) == receipt


def test_a_part_is_not_overwritten(maker: RunMaker) -> None:
    maker.owned().publish(FIRST)
    before = maker.store.read(FIRST.file), maker.store.read(FIRST.receipt)
    assert publish_part(maker.store, maker.table(FIRST).slice(0, 2), maker.footer(FIRST)) is None
    assert (maker.store.read(FIRST.file), maker.store.read(FIRST.receipt)) == before


def test_a_part_written_again_after_deletion_gets_a_new_receipt(maker: RunMaker) -> None:
    """Users are advised to delete a damaged part and run again; the old receipt must not make the new part invalid."""
    maker.owned().publish(FIRST)
    maker.store.delete(FIRST.file)
    receipt = publish_part(maker.store, maker.table(FIRST).slice(0, 2), maker.footer(FIRST))
    assert receipt is not None
    assert Receipt.from_json(maker.store.read(FIRST.receipt)) == receipt
    assert receipt.rows == 2


def test_invalid_rows_leave_no_file(maker: RunMaker) -> None:
    maker.owned()
    table = maker.table(FIRST)
    with pytest.raises(ValueError, match="same key"):
        publish_part(maker.store, pa.concat_tables([table, table]), maker.footer(FIRST))
    assert maker.store.names() == [MANIFEST]


def test_an_empty_folder_has_no_progress(maker: RunMaker) -> None:
    assert progress(maker.store) == Progress({}, frozenset())
    assert progress(maker.owned().store) == Progress({}, frozenset())


@pytest.mark.parametrize(
    ("published", "done", "finished"),
    [
        ([FIRST], {0: {0}}, set()),
        ([SECOND], {0: {1}}, set()),
        ([FIRST, SECOND], {0: {0, 1}}, {0}),
        ([OTHER_SHARD], {1: {0}}, {1}),
        (PARTS, {0: {0, 1}, 1: {0}}, {0, 1}),
    ],
)
def test_a_shard_is_finished_when_its_last_chunk_and_all_before_are_there(
    maker: RunMaker, published: list[PartName], done: dict[int, set[int]], finished: set[int]
) -> None:
    maker.owned().publish(*published)
    found = progress(maker.store)
    assert found.done == done
    assert found.finished == finished


def test_temporary_files_are_not_progress(maker: RunMaker) -> None:
    maker.owned()
    (maker.folder / f".{FIRST.file}.{'0' * 32}.tmp").write_bytes(encoded(maker))
    assert progress(maker.store) == Progress({}, frozenset())


@pytest.mark.parametrize("data", [b"", b"PAR1PAR1", b"x" * 4000, b"PAR1" + b"\xff" * 1000 + b"\x08\x00\x00\x00PAR1"])
def test_a_damaged_last_part_stops_a_resumed_run_with_advice(small_run: RunMaker, data: bytes) -> None:
    (small_run.folder / SECOND.file).write_bytes(data)
    with pytest.raises(DamagedRunError, match=f"{SECOND.file} is damaged .* verify --repair` deletes damaged files"):
        progress(small_run.store)


def add_temporary_files(run: RunMaker) -> str:
    """Add temporary files to a run folder and return the glob of its parts."""
    (run.folder / f".{FIRST.file}.{'0' * 32}.tmp").write_bytes(encoded(run)[:100])
    (run.folder / "_receipts" / f".x.json.{'0' * 32}.tmp").write_bytes(b"{")
    return f"{run.folder}/*.parquet"


def keys(run: RunMaker) -> list[tuple[str, str | None]]:
    rows = [row for part in PARTS for row in run.rows(part)]
    return sorted((row["image_key"], row.get("method") or "") for row in rows)


def test_pandas_reads_exactly_the_rows(small_run: RunMaker) -> None:
    add_temporary_files(small_run)
    frame = pd.concat(map(pd.read_parquet, sorted(small_run.folder.glob("*.parquet"))))
    assert sorted(zip(frame["image_key"], frame["method"].fillna(""), strict=True)) == keys(small_run)


def test_duckdb_reads_exactly_the_rows(small_run: RunMaker) -> None:
    pattern = add_temporary_files(small_run)
    found = duckdb.sql("SELECT image_key, coalesce(method, '') FROM read_parquet(?)", params=[pattern]).fetchall()
    assert sorted(found) == keys(small_run)
