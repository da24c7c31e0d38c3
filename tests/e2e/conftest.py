"""Fixtures: a small dataset of demo images, and runs over it in this process on the session's local Ray."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import Place, Settings
from faults.s3 import BUCKET, Proxy, s3_server, use
from inline import config_of

from jobs.explain import Ended, run
from pipeline.demo.data import run_file, write_demo


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with five shards of ten scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    write_demo(folder, scenes=50, scenes_per_shard=10)
    return folder


@pytest.fixture(scope="session")
def s3(s3_port: int) -> Iterator[Proxy]:
    """S3 at the port that the workers use, behind a proxy that injects no fault until a test sets one."""
    with s3_server() as url:
        proxy = Proxy(url, lambda _verb, _path: None, port=s3_port)
        with proxy.running():
            yield proxy


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Place of the test's files: a local folder, or S3 when the parameter says so."""
    if getattr(request, "param", "folder") == "folder":
        return Place(str(tmp_path))
    proxy: Proxy = request.getfixturevalue("s3")
    use(f"http://127.0.0.1:{proxy.port}", monkeypatch)
    return Place(f"s3://{BUCKET}/{tmp_path.name}-{uuid.uuid4().hex}")


@pytest.fixture
def settings(scenes: Path, place: Place) -> Settings:
    """Fields of a run file over the demo images: two cheap methods, small chunks."""
    return settings_of(scenes, place.put(scenes / "shards"), f"{place.root}/run")


def settings_of(scenes: Path, shards: str, output: str) -> Settings:
    fields: Any = run_file(scenes)
    fields["data"] |= {"shards": shards, "chunk_images": 4}
    fields["explain"]["methods"] = ["gradcam", "gradcam_pp"]
    fields["output"]["path"] = output
    return fields


@pytest.fixture
def explained(local_ray: None) -> Callable[[Settings], Ended]:
    """Function that runs a run file with Ray."""
    return lambda fields: run(config_of(fields))


@pytest.fixture(scope="session")
def finished(scenes: Path, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the demo images, as `settings` describes it; tests work on copies of it."""
    path = tmp_path_factory.mktemp("finished") / "run"
    run(config_of(settings_of(scenes, str(scenes / "shards"), str(path))))
    return path
