"""Plans: estimated passes, bytes and prices of a run; nothing is written."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from explaining import chunk, spec
from nets import ToyNet

from pipeline.data.decode import decode_chunk
from pipeline.data.sources import chunked, read_shard
from pipeline.demo.data import run_file, write_demo
from pipeline.errors import ConfigError
from pipeline.explain.explainer import Explainer
from pipeline.planning.dry_run import DryRunner
from pipeline.planning.planner import Line, PartSize, Plan, Sampled, plan
from pipeline.run.placement import Machines
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.settings.run_file import RunConfig
from pipeline.storage.parts import Footer, encode_part

MADE = Plan(
    images=3600,
    shards=4,
    chunks=40,
    encoded_bytes=10**6,
    rows=7200,
    maps=7200,
    run_bytes=10**5,
    lines=(Line("shared", "clean pass, rows", 1, 0, 1, 1, 0.5), Line("method", "scorecam", 99.5, 0, 0, 128, 1.5)),
    reading_seconds=0.01,
    start_seconds=36.0,
    machines=Machines("cuda", 2, 32, 32),
    sampled=Sampled(32, 4, 32, 0.015, 20.0),
)


@pytest.fixture(autouse=True)
def threads() -> object:
    """Restore the number of threads, which a plan sets to that of a worker."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with twelve scenes in two shards."""
    folder = tmp_path_factory.mktemp("plan")
    write_demo(folder, scenes=12, scenes_per_shard=6)
    return folder


def prepared(folder: Path, **changes: object) -> PreparedRun:
    fields = run_file(folder)
    fields["explain"] = {"methods": ["gradcam", "scorecam"], "metrics": ["average_drop"]}
    config = RunConfig.model_validate(fields | {"compute": {"device": "cpu", "workers": 1}})
    return prepare(config.model_copy(update={"data": config.data.model_copy(update=changes)}))


def test_time_and_price_are_computed() -> None:
    assert MADE.image_seconds == 2
    assert MADE.forwards == 361_800
    assert MADE.wall_seconds == 36 + 3600
    assert MADE.worker_hours == pytest.approx(2.02)
    assert MADE.cost(2.5) == pytest.approx(5.05)
    result = MADE.to_json(2.5)
    assert (result["cost"], result["wall_seconds"]) == (pytest.approx(5.05), 3636)
    assert [line["share"] for line in result["lines"]] == [0.25, 0.75]
    assert MADE.to_json(None)["cost"] is None


def test_more_workers_are_faster_and_cost_no_less() -> None:
    more = dataclasses.replace(MADE, machines=Machines("cuda", 4, 32, 32))
    assert more.wall_seconds == 36 + 1800
    assert more.cost(1) > MADE.cost(1)


def test_passes_rows_and_bytes_of_a_run(demo: Path) -> None:
    run = prepared(demo)
    before = sorted(demo.rglob("*"))
    found = plan(run, probe_seconds=2)
    assert sorted(demo.rglob("*")) == before
    explainer = Explainer(run.loaded.model, run.explainer_spec("cpu", 1))
    written, rows = len(run.manifest.to_json()), 0
    for shard in run.shards:
        for one in chunked(read_shard(shard, run.reading), shard, run.config.data.chunk_images):
            table = pa.concat_tables(explainer.tables(decode_chunk(one, run.loaded.preprocess, run.limits)))
            rows += table.num_rows
            written += len(encode_part(table, Footer("x" * 16, shard.ordinal, 0, last_chunk=True, images=6)))
    assert (found.images, found.shards, found.chunks, found.rows) == (12, 2, 2, rows)
    assert found.forwards == pytest.approx(explainer.probe.counts.forwards, rel=0.25)
    assert found.run_bytes == pytest.approx(written, rel=0.1)
    assert found.encoded_bytes == sum(shard.size for shard in run.shards)
    named = {line.name: line for line in found.lines}
    assert named["gradcam"].forwards == 0
    assert 1 < named["scorecam"].forwards <= named["scorecam"].forwards_bound
    assert named["average_drop"].forwards == named["average_drop"].forwards_bound == 2
    assert found.sampled.images == 6


def test_a_limit_is_respected(demo: Path) -> None:
    found = plan(prepared(demo, limit=7, chunk_images=4), probe_seconds=0)
    assert (found.images, found.shards, found.chunks, found.rows) == (7, 2, 3, 14)
    assert found.encoded_bytes < sum(path.stat().st_size for path in (demo / "shards").iterdir())


def test_unreadable_images_count_as_rows_without_passes(tmp_path: Path, demo: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    run = prepared(demo)
    for i, item in enumerate(read_shard(run.shards[0], run.reading)):
        (images / f"{i}.jpg").write_bytes(item.image if i % 2 else b"no image")  # type: ignore[union-attr]
    found = plan(prepared(demo, shards=str(images)), probe_seconds=0)
    assert (found.images, found.rows) == (6, 3 * 2 + 3)
    assert found.lines[0].forwards == 0.5


def test_a_sample_without_readable_images_is_refused(tmp_path: Path, demo: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ConfigError, match="none of the 1 sampled images can be read"):
        plan(prepared(demo, shards=str(tmp_path / "images")))


@pytest.mark.parametrize("maps", ["u8", "f32"])
def test_the_size_of_a_part_is_predicted_from_few_rows(maps: str) -> None:
    explainer = Explainer(ToyNet(0), spec(maps=maps, batch=64))
    few = DryRunner(explainer).explain(chunk(16), 16).rows
    many = pa.concat_tables(explainer.tables(chunk(64)))
    size = len(encode_part(many, Footer("x" * 16, 0, 0, last_chunk=True, images=64)))
    assert PartSize.of(few).bytes(many.num_rows) == pytest.approx(size, rel=0.1)
