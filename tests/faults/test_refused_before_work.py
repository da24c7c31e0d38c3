"""`explain` and `plan` refuse an output that cannot publish safely, before any work is done."""

from pathlib import Path
from typing import NoReturn

import pytest
import typer
from disk import everything_in
from e2e.runs import write_run_file
from faults.s3 import Proxy, use
from typer.testing import CliRunner, Result

from jobs import explain, plan
from jobs.support.console import EXIT_STORE
from pipeline.demo.data import run_file, write_demo
from pipeline.storage.object_store import ObjectStore


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one shard of two scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    write_demo(folder, scenes=2, scenes_per_shard=2)
    return folder


@pytest.fixture(autouse=True)
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> NoReturn:
        raise AssertionError("work was started")

    monkeypatch.setattr(explain, "_work", work)


def invoked(verb: str, scenes: Path, folder: Path, output: str) -> Result:
    fields = run_file(scenes)
    fields["output"]["path"] = output
    app = typer.Typer()
    app.command("explain")(explain.explain)
    app.command("plan")(plan.plan)
    return CliRunner().invoke(app, [verb, str(write_run_file(fields, folder / "run.yaml"))])


@pytest.mark.parametrize("verb", ["explain", "plan"])
def test_a_store_that_overwrites_objects_is_refused_with_the_reason(
    server: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, scenes: Path, tmp_path: Path, verb: str
) -> None:
    proxy = Proxy(server, lambda _verb, _path: "unconditional")
    with proxy.running() as url:
        use(url, monkeypatch)
        answer = invoked(verb, scenes, tmp_path, store.url)
    assert answer.exit_code == EXIT_STORE
    assert f"{store.url} overwrites existing objects (it ignores If-None-Match)" in answer.stderr
    assert "Use a store with conditional puts, or a local folder." in answer.stderr
    assert answer.stdout == ""
    assert not any(path.endswith(("run.json", ".parquet")) for verb, path, _ in proxy.requests if verb == "PUT")
    use(server, monkeypatch)
    assert store.names() == [], "the object of the check is deleted"


def test_a_store_that_honours_the_condition_is_accepted(
    server: str, store: ObjectStore, scenes: Path, tmp_path: Path
) -> None:
    """Check that in the test above only the condition makes the difference."""
    answer = invoked("explain", scenes, tmp_path, store.url)
    assert "work was started" in str(answer.exception)
    assert store.names() == ["run.json"]


def test_a_run_folder_with_a_link_in_it_is_refused(scenes: Path, tmp_path: Path) -> None:
    for name in ("run", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "_receipts").symlink_to(tmp_path / "theirs")
    answer = invoked("explain", scenes, tmp_path, str(tmp_path / "run"))
    assert answer.exit_code == 2
    assert "output.path: " in answer.stderr
    assert "_receipts' is a link" in answer.stderr
    assert everything_in(tmp_path / "run") == ["_receipts"]
    assert everything_in(tmp_path / "theirs") == []
