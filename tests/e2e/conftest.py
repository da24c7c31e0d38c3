"""Fixtures: a small dataset of demo images, and runs over it in this process on the session's local Ray."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import Place, Settings
from faults.s3 import BUCKET, Proxy, s3_server, use

from jobs.explain import Ended, run
from pipeline.demo.data import run_file, write_demo
from pipeline.settings.run_file import parse_config


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
    fields: Any = run_file(scenes)
    fields["data"]["shards"] = place.put(scenes / "shards")
    fields["data"]["chunk_images"] = 4
    fields["explain"]["methods"] = ["gradcam", "gradcam_pp"]
    fields["output"]["path"] = f"{place.root}/run"
    return fields


@pytest.fixture
def explained(local_ray: None) -> Callable[[Settings], Ended]:
    """Function that runs a run file in this process."""

    def explain(fields: Settings) -> Ended:
        config, mistakes = parse_config(fields)
        assert not mistakes
        return run(config)

    return explain
