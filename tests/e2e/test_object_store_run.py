"""A run with shards and output in S3: it equals the run on a disk, and every verb takes its URL."""

import json
import shutil
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e.runs import Place, Settings, table_of, write_run_file
from faults.s3 import SECRET, Accident, Proxy
from inline import publish_all
from typer.testing import CliRunner

from jobs.cli import app
from jobs.explain import Ended
from pipeline.errors import StoreError
from pipeline.storage import object_store
from pipeline.storage.run_folder import part_names, read_manifest
from pipeline.storage.store import open_store

Explained = Callable[[Settings], Ended]
pytestmark = pytest.mark.timeout(300)
ROWS = "SELECT shard, image_key, method, map_min, map_max, average_drop FROM explanations ORDER BY ALL"
in_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


def camatlas(*arguments: object) -> str:
    """Run a verb that succeeds; return its stdout."""
    threads = torch.get_num_threads()
    ended = CliRunner().invoke(app, list(map(str, arguments)))
    torch.set_num_threads(threads)
    assert ended.exit_code == 0, ended.output
    return ended.stdout.strip()


@pytest.mark.slow
@in_s3
def test_a_run_in_s3_equals_the_run_in_a_folder_and_every_verb_takes_its_url(
    explained: Explained, settings: Settings, place: Place, scenes: Path, tmp_path: Path
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    shutil.copy(scenes / "classes.csv", tables)
    settings["data"]["classes"] = f"{place.put(tables)}classes.csv"
    remote = open_store(explained(settings).path)
    local_settings: Any = json.loads(json.dumps(settings))
    local_settings["data"] |= {"shards": str(scenes / "shards"), "classes": str(scenes / "classes.csv")}
    local_settings["output"]["path"] = str(tmp_path / "run")
    local = open_store(str(publish_all(local_settings)))
    assert read_manifest(remote).run_id == read_manifest(local).run_id
    assert [remote.read(p.file) for p in part_names(remote)] == [local.read(p.file) for p in part_names(local)]
    assert part_names(remote) == part_names(local)
    assert SECRET.encode() not in remote.read("run.json"), "credentials stay in the environment"

    run_file = write_run_file(settings, tmp_path / "run.yaml")
    plan = json.loads(camatlas("plan", run_file, "--json", "--probe-seconds", 0, "--workers", 1))
    assert plan["estimated"]
    assert plan["images"] == pytest.approx(50, rel=0.05)
    assert camatlas("verify", remote.url).startswith("verified: 50 images = 50 explained + 0 failed")
    assert camatlas("query", remote.url, ROWS, "--csv") == camatlas("query", local.url, ROWS, "--csv")
    camatlas("show", remote.url, "scene_00009", "--out", tmp_path / "remote.png")
    camatlas("show", local.url, "scene_00009", "--out", tmp_path / "local.png")
    assert (tmp_path / "remote.png").read_bytes() == (tmp_path / "local.png").read_bytes()
    sanity = camatlas("sanity", remote.url, "--images", 4, "--steps", 1, "--csv")
    assert sanity == camatlas("sanity", local.url, "--images", 4, "--steps", 1, "--csv")
    camatlas("compact", remote.url)
    camatlas("export", remote.url, tmp_path / "hf", "--to", "hf")
    assert Path(camatlas("audit", remote.url, "--no-model", "--out", tmp_path / "audit")).is_file()
    assert camatlas("verify", remote.url).startswith("verified")


@pytest.mark.slow
@in_s3
def test_a_store_outage_ends_the_run_without_a_failure_row_and_the_same_command_completes_it(
    explained: Explained, settings: Settings, s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preflight sends two GETs for each of five shards, so the workers' second GET is the first that fails."""
    requests = count()

    def strike(verb: str, path: str) -> Accident | None:
        return "slow_down" if verb == "GET" and path.endswith(".tar") and next(requests) > 10 else None

    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(s3, "strike", strike)
    with pytest.raises(
        StoreError, match=r"cannot read s3://.*scenes-00\d\.tar: the store returned SlowDown.*run the same"
    ) as caught:
        explained(settings)
    assert SECRET not in "".join(traceback.format_exception(caught.value)), "nor in the messages of workers"
    assert StoreError.exit_code == 5
    store = open_store(settings["output"]["path"])
    done = [store.read(part.file) for part in part_names(store)]
    assert len(done) < 15
    if done:
        assert table_of(store.url)["error_code"].null_count == table_of(store.url).num_rows
    monkeypatch.setattr(s3, "strike", lambda _verb, _path: None)
    ended = explained(settings)
    assert (ended.images, ended.explained, ended.failures) == (50, 50, {})
    assert set(done) <= {store.read(part.file) for part in part_names(store)}
