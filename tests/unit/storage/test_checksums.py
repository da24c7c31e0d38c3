"""Checksums: queries refuse files that were damaged on disk, and no flipped bit changes a result."""

import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import typer
from damage import flipped
from handmade import PARTS, RunMaker
from typer.testing import CliRunner

from jobs import agreement, audit, export, query, sanity, show
from pipeline.errors import DamagedRunError
from pipeline.results.query import Run, open_run
from pipeline.results.summary import totals
from pipeline.storage.checksums import CHECKED_FORMAT, check_footer, checksummed, open_checksummed
from pipeline.storage.compaction import Limits, compact
from pipeline.storage.merged import merged_path
from pipeline.storage.parts import encode_part, read_footer, read_part

ROWS = pa.table({"image_key": [f"image-{number}" for number in range(99)], "map": [bytes([n]) * 49 for n in range(99)]})

QUERIES: dict[str, Callable[[Run], object]] = {
    "rows": lambda run: run.arrow("SELECT * FROM explanations ORDER BY ALL").to_pylist(),
    "failures": lambda run: run.arrow("SELECT * FROM failures ORDER BY ALL").to_pylist(),
    "leaderboard": lambda run: run.arrow("SELECT * FROM leaderboard").to_pylist(),
    "count": lambda run: run.arrow("SELECT count(*) FROM parts WHERE image_key >= '1'").to_pylist(),
    "table": lambda run: sorted(run.table(["image_key", "method", "map_max"]).to_pylist(), key=repr),
    "maps": lambda run: sorted(run.maps().ravel().tolist()),
    "parts": lambda run: [(part, table.to_pylist()) for part, table in run.tables()],
}


def results_of(folder: Path) -> dict[str, object]:
    with open_run(folder) as run:
        return {name: query(run) for name, query in QUERIES.items()}


def outcomes_of_flips(folder: Path, files: list[str], flips: int) -> Counter[str]:
    """Flip single bits, half of them in footers, run one query after each, and count the outcomes."""
    expected, found, chance = results_of(folder), Counter[str](), random.Random(0)
    names = list(QUERIES)
    for number in range(flips):
        path = folder / chance.choice(files)
        intact, query_name = path.read_bytes(), names[number // 2 % len(names)]
        path.write_bytes(flipped(intact, chance, footer=number % 2 == 0))
        try:
            with open_run(folder) as run:
                found["same" if QUERIES[query_name](run) == expected[query_name] else f"changed: {query_name}"] += 1
        except DamagedRunError as error:
            named = f"{path} cannot be read" in str(error) and "`camatlas verify`" in str(error)
            found["refused" if named else str(error)] += 1
        path.write_bytes(intact)
    return found


def check_outcomes(found: Counter[str]) -> None:
    assert set(found) == {"same", "refused"}
    assert found["refused"] > 2 * found["same"], "only flips in padding and in data that was not read may go unnoticed"


def test_no_flipped_bit_in_a_part_changes_a_result(small_run: RunMaker) -> None:
    check_outcomes(outcomes_of_flips(small_run.folder, [part.file for part in PARTS], 60))


def test_no_flipped_bit_in_a_merged_copy_changes_a_result(small_run: RunMaker) -> None:
    files = compact(small_run.store, Limits(rows=6, group_rows=2)).record.files
    found = outcomes_of_flips(small_run.folder, [merged_path(file.name) for file in files], 40)
    assert set(found) == {"same", "refused"}


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("merged", [False, True])
def test_none_of_two_thousand_flipped_bits_changes_a_result(small_run: RunMaker, *, merged: bool) -> None:
    files = [part.file for part in PARTS]
    if merged:
        files = [merged_path(file.name) for file in compact(small_run.store, Limits(rows=6, group_rows=2)).record.files]
    found = outcomes_of_flips(small_run.folder, files, 2000)
    assert set(found) == {"same", "refused"}


@pytest.mark.parametrize("bit", [0, *(pytest.param(bit, marks=pytest.mark.campaign) for bit in range(1, 8))])
def test_no_flipped_bit_outside_the_footer_changes_rows(tmp_path: Path, bit: int) -> None:
    """Covers every byte except the footer; the next test covers the footer."""
    data, path, found = checksummed(ROWS.slice(0, 4)), tmp_path / "file.parquet", Counter[str]()
    footer = int.from_bytes(data[-8:-4], "little")
    for place in [*range(len(data) - 8 - footer), *range(len(data) - 8, len(data))]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            check_footer(io.BytesIO(damaged))
            table = ds.dataset([str(path)], format=CHECKED_FORMAT).to_table()
            found["same" if table.equals(ROWS.slice(0, 4)) else f"changed at {place}"] += 1
        except (pa.ArrowException, OSError):
            found["refused"] += 1
    assert set(found) == {"same", "refused"}


def test_every_flipped_bit_in_a_footer_is_detected() -> None:
    data = checksummed(ROWS)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in range(start, len(data) - 8):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(pa.ArrowInvalid, match="checksum differs"):
            check_footer(io.BytesIO(damaged))


def test_a_long_footer_is_checked_completely() -> None:
    data = checksummed(pa.concat_tables([ROWS] * 8), row_group_size=1)
    assert int.from_bytes(data[-8:-4], "little") > 1 << 16
    check_footer(io.BytesIO(data))
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in (start, start + 1, len(data) - 9):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(pa.ArrowInvalid, match="checksum differs"):
            check_footer(io.BytesIO(damaged))


def test_encoding_is_deterministic_and_readable_by_pyarrow(tmp_path: Path) -> None:
    data = checksummed(ROWS)
    assert checksummed(pa.concat_tables([ROWS.slice(0, 5), ROWS.slice(5)]).combine_chunks()) == data
    assert pq.read_table(io.BytesIO(data)).equals(ROWS)
    assert open_checksummed(data).read().equals(ROWS)


def test_a_file_without_a_footer_checksum_can_be_read(small_run: RunMaker) -> None:
    """Older versions wrote such parts."""
    before, part = results_of(small_run.folder), PARTS[0]
    table = pq.read_table(io.BytesIO(encode_part(small_run.table(part), small_run.footer(part))))
    pq.write_table(table, small_run.folder / part.file, compression="zstd")
    data = (small_run.folder / part.file).read_bytes()
    assert b"camatlas.sum" not in data
    assert (read_part(data)[0], read_footer(data)) == (small_run.table(part), small_run.footer(part))
    assert results_of(small_run.folder) == before


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (query.query, []),
        (show.show, ["0-0-0"]),
        (agreement.agreement, []),
        (sanity.sanity, []),
        (audit.audit, []),
        (export.export, ["DEST", "--to", "hf"]),
        (export.export, ["DEST", "--to", "delta"]),
        (export.export, ["DEST", "--to", "iceberg"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["keys", "footer"])
def test_every_command_that_reads_rows_refuses_a_damaged_part(
    small_run: RunMaker, verb: Callable[..., int], words: list[str], where: str
) -> None:
    part = small_run.folder / PARTS[0].file
    data = bytearray(part.read_bytes())
    column = pq.read_metadata(part).row_group(0).column(pq.read_schema(part).names.index("image_key"))
    data[len(data) - 100 if where == "footer" else column.data_page_offset + column.total_compressed_size - 2] ^= 4
    part.write_bytes(data)
    app = typer.Typer()
    app.command()(verb)
    dest = str(small_run.folder.parent / "dest")
    ended = CliRunner().invoke(app, [str(small_run.folder), *(dest if word == "DEST" else word for word in words)])
    assert ended.exit_code == 4
    assert f"{PARTS[0].file} cannot be read" in ended.stderr
    assert "`camatlas verify`" in ended.stderr


def test_totals_refuse_a_damaged_footer(small_run: RunMaker) -> None:
    part = small_run.folder / PARTS[1].file
    part.write_bytes(flipped(part.read_bytes(), random.Random(1), footer=True))
    with pytest.raises(DamagedRunError, match=f"{PARTS[1].file} cannot be read"):
        totals(small_run.store)
