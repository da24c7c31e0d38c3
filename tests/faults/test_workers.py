"""Workers that die: at the same image every time, or once per chunk for an unrelated reason."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.checker import check

from pipeline.data.decode import DecodedChunk
from pipeline.data.sources.shards import Failure
from pipeline.demo.data import run_file, write_demo
from pipeline.errors import StalledError
from pipeline.explain.rows import failure_row, to_table
from pipeline.results.verify import verify
from pipeline.run.dataflow import stream_chunks
from pipeline.run.paths import absolute
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.run.worker import Explain
from pipeline.settings.run_file import parse_config
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import progress
from pipeline.telemetry.events import Committed

pytestmark = pytest.mark.usefixtures("travels_whole")
POISON = "scene_00005"


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedRun:
    """Sixteen scenes in chunks of four, so small that the time is mostly spent on starting workers."""
    return owned_run(tmp_path, scenes=16, chunk_images=4)


def owned_run(
    tmp_path: Path, scenes: int, chunk_images: int, methods: Sequence[str] = ("gradcam",), **compute: int
) -> PreparedRun:
    write_demo(tmp_path, scenes=scenes, scenes_per_shard=scenes // 2)
    fields = run_file(tmp_path)
    fields["data"] = {**fields["data"], "chunk_images": chunk_images}  # type: ignore[dict-item]
    fields["explain"] = {"methods": list(methods), "targets": "predicted"}
    fields["compute"] = {**fields.get("compute", {}), **compute}  # type: ignore[dict-item]
    fields["output"] = {"path": str(tmp_path / "run")}
    run = prepare(absolute(parse_config(fields)[0]))
    take_ownership(run.store, run.manifest)
    return run


def end_by(way: str) -> None:
    """End this process as crashing libraries, the system and careless code do."""
    if way == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0 if way == "exit 0" else 1)


def seeing(schema: pa.Schema, dies: Callable[[DecodedChunk], None]) -> Explain:
    """Make a worker that marks each image as seen; it does not import torch, so that it restarts fast."""

    def explain(chunk: DecodedChunk) -> Iterator[pa.Table]:
        dies(chunk)
        seen = [Failure(sample.key, chunk.chunk.shard.name, "explain", "seen", "") for sample in chunk.samples]
        yield to_table([failure_row(each, chunk.chunk.ordinal) for each in (*seen, *chunk.failures)], schema)

    return explain


def outcome(
    run: PreparedRun, workers: int, dies: Callable[[DecodedChunk], None], images: int = 16, left: int | None = None
) -> dict[str, str | None]:
    """Explain the images that are left, check the run, and return the error code of every image."""
    events = stream_chunks(
        run, progress(run.store), workers, partial(seeing, run.explainer_spec("cpu", workers).schema, dies)
    )
    assert sum(item.images for item in events if isinstance(item, Committed)) == (left or images)
    folder = Path(run.store.url)
    assert check(folder, images=images, methods=1) == []
    assert verify(LocalStore(folder)).problems == []
    rows = pa.concat_tables(map(pq.read_table, folder.glob("*.parquet")))
    return dict(zip(rows["image_key"].to_pylist(), rows["error_code"].to_pylist(), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_image_that_kills_its_worker_every_time_is_a_failure_and_the_run_ends(
    prepared: PreparedRun, local_ray: None
) -> None:
    def dies(chunk: DecodedChunk) -> None:
        if any(sample.key == POISON for sample in chunk.samples):
            end_by("segfault")

    codes = outcome(prepared, 1, dies)
    assert codes.pop(POISON) == "worker_died"
    assert set(codes.values()) == {"seen"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_that_end_once_at_every_chunk_cost_no_image(
    prepared: PreparedRun, local_ray: None, tmp_path: Path
) -> None:
    dies = once_a_chunk(tmp_path, lambda chunk: "killed" if chunk.chunk.ordinal else "exit 0")
    assert set(outcome(prepared, 2, dies).values()) == {"seen"}
    assert len(list(tmp_path.glob("died-*"))) == 4


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_that_hangs_ends_the_run_with_an_error_and_finished_chunks_are_kept(
    tmp_path: Path, local_ray: None
) -> None:
    run = owned_run(tmp_path, scenes=16, chunk_images=4, stall_seconds=10)

    def hangs(chunk: DecodedChunk) -> None:
        if any(sample.key == POISON for sample in chunk.samples):
            time.sleep(3600)

    began = time.monotonic()
    with pytest.raises(StalledError, match=r"no progress for 10 s .*In progress: .*explain chunk 1 of scenes"):
        outcome(run, 2, hangs)
    assert 10 <= time.monotonic() - began < 60
    kept = sum(map(len, progress(run.store).done.values()))  # chunks of four
    assert 1 <= kept <= 3, "chunk 0 was finished, chunk 1 hung"
    assert set(outcome(run, 1, lambda _: None, left=16 - 4 * kept).values()) == {"seen"}, "finished chunks are kept"


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["exit 0", "exit 1", "segfault", "killed"])
def test_fifty_deaths_of_one_kind_cost_no_image(local_ray: None, tmp_path: Path, way: str) -> None:
    run = owned_run(tmp_path, scenes=50, chunk_images=1)
    assert set(outcome(run, 2, once_a_chunk(tmp_path, lambda _: way), images=50).values()) == {"seen"}
    assert len(list(tmp_path.glob("died-*"))) == 50


def once_a_chunk(folder: Path, way: Callable[[DecodedChunk], str]) -> Callable[[DecodedChunk], None]:
    """End the worker the first time each chunk is explained."""

    def dies(chunk: DecodedChunk) -> None:
        mark = folder / f"died-{chunk.chunk.shard.ordinal}-{chunk.chunk.ordinal}"
        if not mark.exists():
            mark.touch()
            end_by(way(chunk))

    return dies
