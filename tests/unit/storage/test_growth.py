"""A run of the first images grows when its limit is raised: the same rows, verified at each stage, never shrinking."""

import json
from pathlib import Path
from typing import Any

import pytest
from inline import config_of
from layouts.base import put_pictures
from layouts.net import model_section
from preparing import rows_of

from pipeline.errors import ConfigError, DamagedRunError
from pipeline.explain.explainer import Explainer
from pipeline.results.query import open_run
from pipeline.results.status import status
from pipeline.results.verify import verify
from pipeline.run.ledger import Ledger
from pipeline.run.loading import ReadPlan
from pipeline.run.paths import absolute
from pipeline.run.preflight import prepare
from pipeline.run.worker import Worker
from pipeline.storage.compaction import compact
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import progress
from pipeline.storage.run_folder import MANIFEST, read_manifest

CHUNK, IMAGES = 3, 14


def fields_of(images: Path, run: Path, limit: int | None, **data: Any) -> dict[str, Any]:
    return {
        "data": {"shards": str(images), "chunk_images": CHUNK, **({} if limit is None else {"limit": limit}), **data},
        "model": model_section(),
        "explain": {"methods": ["gradcam"], "metrics": ["average_drop"]},
        "output": {"path": str(run)},
    }


def explain(fields: dict[str, Any], most: int | None = None) -> list[tuple[int, int]]:
    """Explain what is missing, or at most some chunks of it, as `camatlas explain` does; return the new chunks."""
    run = prepare(absolute(config_of(fields)))
    take_ownership(run.store, run.manifest)
    worker = Worker(
        Explainer(run.loaded.model, run.explainer_spec("cpu", 1)).tables, run.manifest.run_id, run.store.url, Ledger()
    )
    found, made = progress(run.store), []
    for shard in run.pending(found):
        for unit in ReadPlan.of(run, unit_bytes=0).work_units(shard, found.done.get(shard.ordinal, ())):
            if most is not None and len(made) >= most:
                return made
            made += [(chunk.chunk.shard.ordinal, chunk.chunk.ordinal) for chunk in unit]
            list(worker.process(unit))
    return made


@pytest.fixture
def images(tmp_path: Path) -> Path:
    put_pictures(tmp_path / "images", [f"{number:02d}.jpg" for number in range(IMAGES)])
    return tmp_path / "images"


def rows(run: Path) -> list[dict[str, Any]]:
    return sorted(rows_of(run), key=lambda row: row["image_key"])


def problems(run: Path) -> list[str]:
    return verify(LocalStore(run)).problems


def state(run: Path) -> tuple[str, int | None, int | None]:
    found = status(LocalStore(run), 2e9, None)
    return found.state, found.images_done.number, found.images_total.number


def test_a_run_grows_and_only_the_chunks_that_were_cut_are_explained_again(images: Path, tmp_path: Path) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert explain(fields_of(images, run, 4)) == [(0, 0), (0, 1)]
    first = rows(run)
    assert (len(first), problems(run), state(run)) == (4, [], ("complete", 4, 4))
    kept = (run / "part-00000-000.parquet").stat().st_mtime_ns
    assert explain(fields_of(images, run, 10)) == [(0, 1), (0, 2), (0, 3)]
    assert (problems(run), state(run), rows(run)[:4]) == ([], ("complete", 10, 10), first)
    assert explain(fields_of(images, run, 10)) == []
    assert explain(fields_of(images, run, None)) == [(0, 3), (0, 4)]
    explain(fields_of(images, whole, None))
    assert (problems(run), state(run), rows(run)) == ([], ("complete", IMAGES, IMAGES), rows(whole))
    assert (run / "part-00000-000.parquet").stat().st_mtime_ns == kept
    grown, straight = read_manifest(LocalStore(run)), read_manifest(LocalStore(whole))
    assert (grown.run_id, grown.identity) == (straight.run_id, straight.identity)
    assert [each.take for each in grown.grown_from] == [4, 10]
    assert "grown_from" not in json.loads((whole / MANIFEST).read_bytes())
    with open_run(str(run)) as opened:
        assert opened.sql("SELECT count(*) AS n FROM explanations")["n"].tolist() == [IMAGES]


def test_while_it_grows_it_counts_as_incomplete(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain(fields_of(images, run, 5))
    assert explain(fields_of(images, run, 11), most=1) == [(0, 1)]
    assert "incomplete, 2 chunks" in problems(run)[0]
    assert state(run)[0] != "complete"
    assert explain(fields_of(images, run, 11)) == [(0, 2), (0, 3)]
    assert problems(run) == []


def test_a_cut_chunk_that_came_back_is_noticed_and_removed(images: Path, tmp_path: Path) -> None:
    """A worker of the earlier limit that is still alive publishes its last chunk after the run has grown."""
    run = tmp_path / "run"
    explain(fields_of(images, run, 4))
    cut = (run / "part-00000-001.parquet").read_bytes()
    explain(fields_of(images, run, 5), most=0)
    assert not (run / "part-00000-001.parquet").exists()
    (run / "part-00000-001.parquet").write_bytes(cut)
    assert "incomplete" in problems(run)[0]
    assert state(run)[0] != "complete"
    with pytest.raises(DamagedRunError, match=r"an earlier limit cut this chunk"):
        compact(LocalStore(run))
    assert explain(fields_of(images, run, 5)) == [(0, 1)]
    assert (problems(run), len(rows(run))) == ([], 5)


@pytest.mark.parametrize("limit", [3, 4])
def test_a_run_does_not_shrink(images: Path, tmp_path: Path, limit: int) -> None:
    run = tmp_path / "run"
    explain(fields_of(images, run, 7))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"data.limit: .* holds a run of more of these images .* does not shrink"):
        explain(fields_of(images, run, limit))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_another_setting_is_another_run_whatever_the_limit(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain(fields_of(images, run, 4))
    with pytest.raises(ConfigError, match=r"holds another run .* differs in: shards, data"):
        explain(fields_of(images, run, 8, alpha="black"))
    put_pictures(images, ["00.jpg", "15.jpg"])
    with pytest.raises(ConfigError, match=r"holds another run .* differs in: shards"):
        explain(fields_of(images, run, 8))


def test_a_merged_copy_of_fewer_images_is_dropped(images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain(fields_of(images, run, 4))
    compact(LocalStore(run))
    explain(fields_of(images, run, 8))
    assert problems(run) == []
    compact(LocalStore(run))
    with open_run(str(run)) as opened:
        assert opened.sql("SELECT count(*) AS n FROM explanations")["n"].tolist() == [8]
    assert problems(run) == []


def test_a_limit_at_the_end_of_a_shard_grows_into_the_next(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for place, folder in enumerate(folders):
        put_pictures(folder, [f"{place}{number}.jpg" for number in range(4)])
    shards = [str(folder) for folder in folders]
    run = tmp_path / "run"
    fields = fields_of(folders[0], run, 4, shards=shards)
    explain(fields)
    assert state(run) == ("complete", 4, 4)
    explain(fields_of(folders[0], run, 6, shards=shards))
    assert (problems(run), state(run)) == ([], ("complete", 6, 6))
    assert [row["image_key"] for row in rows(run)] == ["00.jpg", "01.jpg", "02.jpg", "03.jpg", "10.jpg", "11.jpg"]


def test_a_random_sample_grows_with_its_limit(images: Path, tmp_path: Path) -> None:
    run, sample = tmp_path / "run", {"n": 9, "seed": 3}
    explain(fields_of(images, run, 2, sample=sample))
    first = rows(run)
    explain(fields_of(images, run, None, sample=sample))
    assert problems(run) == []
    assert len(rows(run)) == 9
    assert {row["image_key"] for row in first} <= {row["image_key"] for row in rows(run)}
