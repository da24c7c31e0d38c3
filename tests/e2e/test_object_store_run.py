"""A whole run whose folder is a prefix in S3, by the commands that a user types."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.runs import Settings, table_of, write_run_file
from faults.s3 import BUCKET, SECRET, s3_server, use

from jobs.explain import Ended
from pipeline.object_store import ObjectStore
from pipeline.verify import verify

RUN = f"s3://{BUCKET}/atlas/run"


@pytest.fixture
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with s3_server() as url:
        use(url, monkeypatch)
        yield


def camatlas(*words: str) -> str:
    """Run a command as a user would; gives what it says on stdout."""
    command = [sys.executable, "-m", "jobs.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_server")
def test_a_run_in_s3_is_the_run_in_a_folder(
    explained: Callable[[Settings], Ended], settings: Settings, tmp_path: Path
) -> None:
    settings["data"]["limit"] = 16
    explained(settings)
    run_file = str(write_run_file(settings, tmp_path / "run.yaml"))
    assert camatlas("explain", run_file, "--out", RUN) == RUN
    store = ObjectStore(RUN)
    parts = [name for name in store.names() if name.endswith(".parquet")]
    table = pa.concat_tables(pq.read_table(io.BytesIO(store.read(name))) for name in parts)
    assert table.sort_by([(key, "ascending") for key in ("shard", "image_key", "target", "method")]).equals(
        table_of(settings["output"]["path"])
    )
    assert (verify(store).problems, verify(store).images) == ([], 16)
    assert SECRET.encode() not in store.read("run.json"), "credentials stay in the environment"
    assert "gradcam" in camatlas("query", RUN)
    assert Path(camatlas("audit", RUN, "--out", str(tmp_path / "audit"))).is_file()
