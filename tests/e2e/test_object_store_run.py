"""A whole run whose shards and folder are in S3: the run of the same shards on a disk, and every verb by its URL."""

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


def camatlas(*words: object) -> str:
    """Run a command as a user would; gives what it says on stdout."""
    threads = torch.get_num_threads()
    done = CliRunner().invoke(app, list(map(str, words)))
    torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


@pytest.mark.slow
@in_s3
def test_a_run_in_s3_is_the_run_in_a_folder_and_every_verb_takes_its_url(
    explained: Explained, settings: Settings, place: Place, scenes: Path, tmp_path: Path
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    shutil.copy(scenes / "classes.csv", tables)
    settings["data"]["classes"] = f"{place.put(tables)}classes.csv"
    there = open_store(explained(settings).path)
    at_home: Any = json.loads(json.dumps(settings))
    at_home["data"] |= {"shards": str(scenes / "shards"), "classes": str(scenes / "classes.csv")}
    at_home["output"]["path"] = str(tmp_path / "run")
    here = open_store(explained(at_home).path)
    assert read_manifest(there).run_id == read_manifest(here).run_id
    assert [there.read(part.file) for part in part_names(there)] == [here.read(part.file) for part in part_names(here)]
    assert part_names(there) == part_names(here)
    assert SECRET.encode() not in there.read("run.json"), "credentials stay in the environment"

    run_file = write_run_file(settings, tmp_path / "run.yaml")
    plan = json.loads(camatlas("plan", run_file, "--json", "--probe-seconds", 0, "--workers", 1))
    assert plan["estimated"]
    assert plan["images"] == pytest.approx(50, rel=0.05)
    assert camatlas("verify", there.url).startswith("verified: 50 images = 50 explained + 0 failed")
    assert camatlas("query", there.url, ROWS, "--csv") == camatlas("query", here.url, ROWS, "--csv")
    camatlas("show", there.url, "scene_00009", "--out", tmp_path / "there.png")
    camatlas("show", here.url, "scene_00009", "--out", tmp_path / "here.png")
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    sane = camatlas("sanity", there.url, "--images", 4, "--steps", 1, "--csv")
    assert sane == camatlas("sanity", here.url, "--images", 4, "--steps", 1, "--csv")
    camatlas("compact", there.url)
    camatlas("export", there.url, tmp_path / "hf", "--to", "hf")
    assert Path(camatlas("audit", there.url, "--no-model", "--out", tmp_path / "audit")).is_file()
    assert camatlas("verify", there.url).startswith("verified")


@pytest.mark.slow
@in_s3
def test_a_store_that_goes_down_ends_the_run_without_a_row_and_the_same_command_completes_it(
    explained: Explained, settings: Settings, s3: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preparation asks three times for each of five shards; the workers' second request is the first to be lost."""
    asked = count()

    def strike(verb: str, path: str) -> Accident | None:
        return "slow_down" if verb == "GET" and path.endswith(".tar") and next(asked) > 10 else None

    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(s3, "strike", strike)
    with pytest.raises(
        StoreError, match=r"cannot read s3://.*scenes-00\d\.tar: the store says SlowDown.*run the same"
    ) as caught:
        explained(settings)
    assert SECRET not in "".join(traceback.format_exception(caught.value)), "nor in what workers said of it"
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
