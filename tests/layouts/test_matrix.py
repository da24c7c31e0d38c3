"""The whole matrix: every layout through `plan`, `explain` and `pack`, on a disk and in an object store.

The truth, or a sentence before the work: nothing else is allowed, wherever the dataset lies.
"""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from faults.s3 import BUCKET, Proxy, s3_server, use
from layouts import described, folders, tables, tars
from layouts.base import LAYOUTS, Truth
from layouts.judge import faults_in_run, faults_in_shards
from layouts.running import fields_of
from typer.testing import CliRunner, Result

from jobs.cli import app
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.storage.store import open_store

PAGES = (described, folders, tables, tars)
pytestmark = [pytest.mark.campaign, pytest.mark.timeout(300)]

REFUSED = 2


@pytest.fixture(scope="module")
def store(s3_port: int) -> Iterator[str]:
    """The URL of an object store at the port that workers use, which the environment points at."""
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        proxy = Proxy(url, lambda _verb, _path: None, port=s3_port)
        with proxy.running():
            use(f"http://127.0.0.1:{s3_port}", patch)
            with parquet_sandbox() as shared:
                shared.close()  # so that it starts again, with the credentials of the store
            yield f"s3://{BUCKET}"


def camatlas(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def run_file(where: Path, folder: str, truth: Truth, output: str) -> str:
    (where / "run.yaml").write_text(yaml.safe_dump(fields_of(folder, truth, output)))
    return str(where / "run.yaml")


def is_refused(result: Result, truth: Truth, *, must: bool) -> bool:
    """Return whether a verb refused the layout, in the words of its truth if it must."""
    if result.exit_code != REFUSED:
        assert not must, "it was not refused"
        assert result.exit_code in (0, 3), result.output  # 3: more failed images than allowed
        return False
    said = " ".join(result.stderr.split())
    assert re.search(r"(^| )error: ", said), said  # after a line on the progress, on a busy machine
    assert not must or re.search(truth.refused, said, re.DOTALL), said
    return True


def uploaded(folder: Path, store: str) -> str:
    """Copy all files of a folder into the store; return the URL of the copy."""
    url = f"{store}/{uuid.uuid4().hex}"
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder)
            assert open_store(f"{url}/{name.parent}".removesuffix("/.")).publish(name.name, path.read_bytes())
    return f"{url}/"


@pytest.mark.parametrize("name", LAYOUTS)
def test_plan_accounts_for_it(name: str, tmp_path: Path) -> None:
    truth = LAYOUTS[name](tmp_path / "data")
    path = run_file(tmp_path, str(tmp_path / "data"), truth, str(tmp_path / "run"))
    planned = camatlas("plan", path, "--json", "--probe-seconds", "0")
    if not is_refused(planned, truth, must=bool(truth.refused)):
        account = json.loads(planned.stdout)["labels"]
        known = account["images"] - account["unreadable"]
        if known == len(truth.pictures) + len(truth.failed):
            assert (account["labelled"] - account["several"], account["boxed"]) == (len(truth.labels), len(truth.boxes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_command_explains_it(name: str, tmp_path: Path, store: str, local_ray: None) -> None:
    truth = LAYOUTS[name](tmp_path / "data")
    ended = camatlas("explain", run_file(tmp_path, str(tmp_path / "data"), truth, str(tmp_path / "run")))
    if not is_refused(ended, truth, must=bool(truth.refused)):
        assert faults_in_run(tmp_path / "run", truth.boxes, truth) == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_in_a_store_it_is_the_same_or_refused(name: str, tmp_path: Path, store: str, local_ray: None) -> None:
    """Dataset and run lie in the store."""
    truth = LAYOUTS[name](tmp_path / "data")
    url, run = uploaded(tmp_path / "data", store), f"{store}/{uuid.uuid4().hex}/run"
    ended = camatlas("explain", run_file(tmp_path, url, truth, run))
    if not is_refused(ended, truth, must=False):
        assert faults_in_run(downloaded(run, tmp_path / "copy"), truth.boxes, truth) == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_packed_it_is_the_same_or_refused(name: str, tmp_path: Path) -> None:
    truth = LAYOUTS[name](tmp_path / "data")
    classes = ["--classes", str(truth.data["classes"])] if "classes" in truth.data else []
    packed = camatlas("pack", str(tmp_path / "data"), str(tmp_path / "shards"), *classes)
    if not is_refused(packed, truth, must=False) and truth.packed:
        assert faults_in_shards(tmp_path / "shards", truth) == []
    else:
        assert not truth.packed


def downloaded(run: str, folder: Path) -> Path:
    """Copy the parts of a run in a store into a new folder."""
    folder.mkdir()
    store = open_store(run)
    for name in store.names():
        if name.endswith(".parquet"):
            (folder / name).write_bytes(store.read(name))
    return folder
