"""Parquet read in a subprocess: the same items as in process, and a file that crashes it affects no other."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import LIMITS, PRESET
from tars import tar_of, three_samples

from pipeline.data.sandbox import start_python
from pipeline.data.selection import select
from pipeline.data.sources import PARQUET_COLUMNS, Failure, Item, Reading, Sample, Shard, list_items, read_shard
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.parquet import rows_in_process
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.data.sources.shards import is_image
from pipeline.demo.data import run_file
from pipeline.planning.sampling import take_sample
from pipeline.run.preflight import prepare
from pipeline.settings.data import DataConfig, SampleConfig
from pipeline.settings.run_file import parse_config

DEADLY = """
import os, signal, uuid
from pathlib import Path
from pipeline.data.sandbox import serve
from pipeline.data.sources import parquet, parquet_sandbox

described, row = parquet_sandbox._described, parquet._row

def die():
    Path(os.environ["MARKS"], uuid.uuid4().hex).touch()
    os.kill(os.getpid(), signal.SIGSEGV)

def describe(footer, arrow):
    return die() if b"deadly footer" in footer else described(footer, arrow)

def make(record, *rest):
    return die() if record.get("key") == "deadly" else row(record, *rest)

parquet_sandbox._described, parquet._row = describe, make
serve(parquet_sandbox.Reader().handle)
"""
"""A subprocess that crashes on `deadly footer` and on a row with the key `deadly`, and creates a marker file."""


@pytest.fixture
def sandbox() -> Iterator[ParquetSandbox]:
    with closing(ParquetSandbox()) as process:
        yield process


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use subprocesses that can crash; return the folder of their marker files."""
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("MARKS", str(folder))
    monkeypatch.setattr(ParquetSandbox, "_start", lambda _: start_python("-c", DEADLY))
    return folder


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record each start of a subprocess."""
    count: list[int] = []
    start = ParquetSandbox._start

    def counting(self: ParquetSandbox) -> "subprocess.Popen[bytes]":
        count.append(1)
        return start(self)

    monkeypatch.setattr(ParquetSandbox, "_start", counting)
    return count


def write(path: Path, keys: list[str], deadly_footer: bool = False) -> Shard:
    table = pa.table({"key": keys, "image": [key.encode() for key in keys]})
    if deadly_footer:
        table = table.replace_schema_metadata({"what": "deadly footer"})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return Shard(0, path.name, "parquet", str(path), path.stat().st_size, "")


def three(folder: Path, second: list[str], **how: bool) -> str:
    """Write three files: the second with the given keys, the others with ten images each."""
    write(folder / "a.parquet", [f"a{i}" for i in range(10)])
    write(folder / "b.parquet", second, **how)
    write(folder / "c.parquet", [f"c{i}" for i in range(10)])
    return str(folder)


def codes(items: list[Item]) -> list[tuple[str, str]]:
    return [(item.key, item.code) for item in items if isinstance(item, Failure)]


def test_a_footer_that_crashes_the_subprocess_does_not_affect_other_counts(tmp_path: Path, marks: Path) -> None:
    shards = list_shards(three(tmp_path / "d", ["b"], deadly_footer=True))
    assert [shard.images for shard in shards] == [10, None, 10]
    assert len(list(marks.iterdir())) == 2


def test_a_limit_continues_after_a_file_that_crashes_the_subprocess(tmp_path: Path, marks: Path) -> None:
    keys = [f"b{i}" for i in range(70)] + ["deadly", "b71"]
    data = {"shards": three(tmp_path / "d", keys, deadly_footer=True), "limit": 77}
    fields = run_file(tmp_path) | {"data": data, "explain": {"methods": ["gradcam"], "targets": "predicted"}}
    run = prepare(parse_config(fields)[0])
    assert [(shard.name, shard.images, shard.take) for shard in run.shards] == [
        ("a.parquet", 10, None), ("b.parquet", 64, None), ("c.parquet", 3, 3),
    ]  # fmt: skip
    assert len(list(marks.iterdir())) == 4, "two crashes on the footer, two on the rows"


def test_a_draw_leaves_out_rows_that_crash_the_subprocess_and_keeps_their_shard(tmp_path: Path, marks: Path) -> None:
    shards = list_shards(three(tmp_path / "d", ["b0", "deadly", "b2"]))
    kept, reading = select(DataConfig(shards="", sample=SampleConfig(n=15)), shards, Reading())
    assert [shard.name for shard in kept] == ["a.parquet", "b.parquet", "c.parquet"]
    assert (kept[1].images, sum(shard.images or 0 for shard in kept)) == (0, 15)
    assert reading.draw is not None
    assert reading.draw.of == 20
    assert len(list(marks.iterdir())) == 2


def test_images_of_a_dry_run_are_taken_from_the_other_files(tmp_path: Path, marks: Path) -> None:
    shards = list_shards(three(tmp_path / "d", ["deadly", "b"]))
    tried = take_sample(shards, Reading(), PRESET, LIMITS, 6)
    assert {failure.key for failure in tried.chunk.failures} == {"a0", "a1", "c0", "c1"}, "their bytes are no images"
    assert len(list(marks.iterdir())) == 2


def test_rows_before_a_crash_are_kept_and_one_row_reports_it(
    tmp_path: Path, marks: Path, sandbox: ParquetSandbox
) -> None:
    shard = write(tmp_path / "p.parquet", [f"k{i}" for i in range(130)] + ["deadly"])
    items = list(read_shard(shard, Reading(), sandbox.rows))
    assert [item.key for item in items if isinstance(item, Sample)] == [f"k{i}" for i in range(128)]
    assert codes(items) == [("p.parquet@128", "reader_died")]
    assert not is_image(items[-1])
    good = write(tmp_path / "q.parquet", ["x"])
    assert [item.key for item in read_shard(good, Reading(), sandbox.rows)] == ["x"], "in a new subprocess"


MANY = [
    {"key": "a", "image": b"1", "label": 3, "boxes": [[0.0, 1.0, 2.0, 3.0]]},
    {"key": "a", "image": b"2", "label": None, "boxes": None},
    {"key": None, "image": None, "label": -1, "boxes": []},
    {"key": "é\n\"'", "image": b"", "label": 2**62, "boxes": [[0.0, 1.0]]},
    {"key": "e", "image": b"\n" * 100_000, "label": 0, "boxes": [[float("nan"), 0.0, 1.0, 1.0]]},
]


@pytest.mark.parametrize(
    "table",
    [
        pa.Table.from_pylist(MANY),
        pa.Table.from_pylist([{"image": {"bytes": b"1", "path": "x"}, "label": 2.0}, {"image": None, "label": 2.5}]),
        pa.Table.from_pylist([{"image": b"1", "label": True, "boxes": b"\xff"}, {"image": b"2", "label": None}]),
        pa.table({"image": [b"1", b"2"], "label": pa.array([0, 1], pa.timestamp("s")), "key": [7, 8]}),
        pa.table({"image": [b"1"], "key": pa.array([b"\xff\xfe"]).view(pa.string())}),
        pa.table({"picture": [b"1"]}),
        *(pa.table({"image": [b"%d" % i for i in range(rows)]}) for rows in (0, 1, 63, 64, 65, 200)),
    ],
)
def test_the_same_items_are_read_as_in_process(tmp_path: Path, sandbox: ParquetSandbox, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / "p.parquet")
    shard = Shard(0, "p.parquet", "parquet", str(tmp_path / "p.parquet"), 0, "")
    for read in (read_shard, list_items):
        for _ in range(2):  # the second reading does not depend on the first
            assert list(read(shard, Reading(), sandbox.rows)) == list(read(shard, Reading()))


@pytest.mark.parametrize("damage", ["row group", "cut", "absent"])
def test_damage_is_the_same_as_in_process(tmp_path: Path, sandbox: ParquetSandbox, damage: str) -> None:
    path = tmp_path / "p.parquet"
    keys = [f"k{i}" for i in range(200)]
    table = pa.table({"key": keys, "image": [key.encode() * 99 for key in keys]})
    pq.write_table(table, path, row_group_size=90, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(data if damage == "row group" else data[:-9])
    shard = Shard(0, path.name, "parquet", str(path if damage != "absent" else tmp_path / "q"), 0, "")
    for _ in range(2):
        items = list(read_shard(shard, Reading(), sandbox.rows))
        assert items == list(read_shard(shard, Reading()))
        assert len(codes(items)) == 1


def test_a_subprocess_killed_from_outside_loses_nothing(tmp_path: Path, sandbox: ParquetSandbox) -> None:
    shard = write(tmp_path / "p.parquet", [f"k{i}" for i in range(200)])
    rows = sandbox.rows(shard, PARQUET_COLUMNS, False)
    found = list(islice(rows, 64))
    assert sandbox._process is not None
    os.kill(sandbox._process.pid, signal.SIGKILL)
    sandbox._process.wait()
    assert [*found, *rows] == list(rows_in_process(shard, PARQUET_COLUMNS, False))


def test_two_files_may_be_read_alternately(tmp_path: Path, sandbox: ParquetSandbox) -> None:
    shards = [write(tmp_path / f"{name}.parquet", [f"{name}{i}" for i in range(150)]) for name in "ab"]
    pairs = zip(*(sandbox.rows(shard, PARQUET_COLUMNS, True) for shard in shards), strict=True)
    assert [(one.key, two.key) for one, two in pairs] == [(f"a{i}", f"b{i}") for i in range(150)]


def test_one_subprocess_reads_all_files_and_starts_on_demand(tmp_path: Path, starts: list[int]) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of(three_samples()))
    select(DataConfig(shards="", limit=2), list_shards(str(tmp_path / "t.tar")), Reading())
    assert starts == []
    for name in range(20):
        write(tmp_path / "d" / f"{name:02d}.parquet", ["k"])
    assert [shard.images for shard in list_shards(str(tmp_path / "d"))] == [1] * 20
    assert starts == [1]
