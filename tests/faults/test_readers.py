"""Readers that crash: one Parquet file kills each reading process, as crafted bytes may do."""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.checker import check
from pictures import noise, saved

from pipeline.data.decode import DecodedChunk
from pipeline.data.sources.annotations import NOTHING, Annotations
from pipeline.data.sources.shards import Described, Failure
from pipeline.demo.data import run_file
from pipeline.explain.rows import failure_row, to_table
from pipeline.results.verify import verify
from pipeline.run.dataflow import stream_chunks
from pipeline.run.ledger import ENDS
from pipeline.run.paths import absolute
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.settings.run_file import parse_config
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import progress
from pipeline.telemetry.events import Committed

pytestmark = pytest.mark.usefixtures("travels_whole")
IMAGES = 8
"""Images in each file, which are two chunks."""
POISON = "b5"


@dataclass(frozen=True)
class Deadly(Annotations):
    """Kills the process in the middle of a file, as a native crash would; each crash leaves a marker file."""

    marks: Path = Path()

    def label_of(self, key: str, members: Mapping[str, bytes], said: Described = NOTHING) -> int | None:
        if key == POISON:
            (self.marks / f"died-{os.getpid()}").touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().label_of(key, members, said)


def three_files(folder: Path) -> PreparedRun:
    """Prepare a run on three files of eight images, in chunks of four; reading the second one crashes."""
    shards = folder / "shards"
    shards.mkdir()
    for name in "abc":
        images = [saved(noise(20, 20 + index), "JPEG") for index in range(IMAGES)]
        table = pa.table({"image": images, "key": [f"{name}{index}" for index in range(IMAGES)]})
        pq.write_table(table, shards / f"{name}.parquet")
    fields = run_file(folder) | {
        "data": {"shards": str(shards), "chunk_images": 4},
        "explain": {"methods": ["gradcam"], "targets": "predicted"},
    }
    run = prepare(absolute(parse_config(fields)[0]))
    take_ownership(run.store, run.manifest)
    return replace(run, reading=replace(run.reading, annotations=Deadly(marks=folder)))


def list_images(schema: pa.Schema, chunk: DecodedChunk) -> Iterator[pa.Table]:
    """Yield a row for each image that was read, with the code `seen`."""
    read = [Failure(sample.key, chunk.chunk.shard.name, "explain", "seen", "") for sample in chunk.samples]
    yield to_table([failure_row(each, chunk.chunk.ordinal) for each in (*read, *chunk.failures)], schema)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_file_that_always_kills_its_reader_is_one_row_and_the_run_ends(tmp_path: Path, local_ray: None) -> None:
    run = three_files(tmp_path)
    explain = partial(partial, list_images, run.explainer_spec("cpu", 1).schema)
    events = [item for item in stream_chunks(run, progress(run.store), 1, explain) if isinstance(item, Committed)]
    assert sum(item.images for item in events) == 20, "one chunk of the second file is lost"
    assert len(list(tmp_path.glob("died-*"))) == ENDS + 1, "one crash in a normal attempt, then ENDS isolated ones"
    folder = Path(run.store.url)
    assert check(folder, images=20, methods=1) == []
    assert verify(LocalStore(folder)).problems == []
    rows = pa.concat_tables(map(pq.read_table, folder.glob("*.parquet"))).to_pylist()
    (lost,) = [row for row in rows if row["error_code"] != "seen"]
    assert (lost["shard"], lost["error_stage"], lost["error_code"]) == ("b.parquet", "shard", "reader_died")
    kept = {row["image_key"] for row in rows if row is not lost}
    assert kept == {f"{name}{index}" for name in "ac" for index in range(IMAGES)} | {f"b{index}" for index in range(4)}
