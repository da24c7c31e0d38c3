"""camatlas doctor: every check is reported; a failed check gives exit code 1, and advice alone does not."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from jobs import doctor
from jobs.support import fitness
from jobs.support.fitness import Found
from pipeline.errors import CamatlasError
from pipeline.run import cluster
from pipeline.run.cluster import check_reachable
from pipeline.storage.local_store import LocalStore

app = typer.Typer()
app.command()(doctor.doctor)
GB = 1 << 30


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(doctor, "_local_ray", lambda: Found("Ray starts"))
    monkeypatch.setattr(fitness, "free_space", lambda output: Found("plenty"))
    monkeypatch.setattr(fitness, "files", lambda: Found("many"))


def run_doctor(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_each_check_is_reported_on_a_line(tmp_path: Path) -> None:
    ended = run_doctor(tmp_path / "run")
    assert ended.exit_code == 0, ended.stdout
    names = [line.split(":")[0].split()[-1] for line in ended.stdout.splitlines() if line.startswith(("ok", "note"))]
    assert names == ["libraries", "device", "decode", "explain", "files", "space", "ray", "output", "clock"]
    assert not (tmp_path / "run").exists(), "nothing is left behind"


def test_folders_created_for_the_check_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_doctor("~/a/b/c").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_advice_does_not_change_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "files", lambda: Found("a process may open 64", "allow more"))
    ended = run_doctor()
    assert ended.exit_code == 0
    assert "note  files: a process may open 64\n      allow more\n" in ended.stdout


def test_a_failed_check_is_reported_and_the_others_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Found:
        raise CamatlasError("nothing works")

    monkeypatch.setattr(doctor, "_explain", fail)
    ended = run_doctor()
    assert ended.exit_code == 1
    assert "FAIL  explain: nothing works" in ended.stdout
    assert "ok    ray: Ray starts" in ended.stdout


def test_incompatible_builds_of_torch_and_torchvision_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops.nms", refuse)
    with pytest.raises(CamatlasError, match=r"different builds .*nms does not exist.* install both in one command"):
        fitness.libraries()


@pytest.mark.parametrize(
    ("driver", "built_for", "env", "words"),
    [
        (False, None, {}, ""),
        (True, None, {}, "built without CUDA"),
        (True, "13.0", {"CUDA_VISIBLE_DEVICES": ""}, "hides its devices"),
        (True, "13.0", {"CUDA_VISIBLE_DEVICES": "0"}, "built for CUDA 13.0, finds no device"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_explained(
    driver: bool, built_for: str | None, env: dict[str, str], words: str
) -> None:
    advice = fitness.unused_gpu(driver=driver, built_for=built_for, env=env)
    assert words in advice
    assert bool(words) == bool(advice)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_the_device() -> None:
    assert fitness.device().what.startswith("no CUDA device; CPU with ")


@pytest.mark.parametrize(
    ("soft", "hard", "enough"), [(1024, 1_048_576, True), (1024, -1, True), (-1, -1, True), (1024, 1024, False)]
)
def test_a_low_limit_of_open_files_gives_advice(soft: int, hard: int, enough: bool) -> None:
    assert (fitness.file_limit(soft, hard).advice == "") is enough


def test_scarce_space_gives_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    output = str(tmp_path / "not" / "there")
    plenty = fitness.free_space(output, lambda _: 100 * GB)
    assert plenty.advice == ""
    assert f"107.4 GB in {tmp_path} (output)" in plenty.what or f"107 GB in {tmp_path} (output)" in plenty.what
    scarce = fitness.free_space(output, lambda _: GB // 2)
    for words in ("TMPDIR", "camatlas plan", "--shm-size"):
        assert words in scarce.advice
    assert "(output)" not in fitness.free_space("s3://bucket/run", lambda _: GB).what
    assert "free: " in fitness.free_space(None).what


@pytest.mark.parametrize(
    ("ahead", "words"),
    [(0.0, "agrees"), (-59, "agrees"), (61, "61 s behind the clock of the output"), (-7200, "2.0 h ahead of")],
)
def test_a_clock_that_is_off_gives_advice(ahead: float, words: str) -> None:
    found = fitness.clock(ahead)
    assert words in found.what
    assert bool(found.advice) == (abs(ahead) > 60)


def test_the_clock_of_the_output_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._clock(str(tmp_path)).advice == ""
    publish = LocalStore.publish

    def in_the_past(store: LocalStore, name: str, data: bytes) -> bool:
        done = publish(store, name, data)
        os.utime(store.folder / name, (time.time() - 300,) * 2)
        return done

    monkeypatch.setattr(LocalStore, "publish", in_the_past)
    assert doctor._clock(str(tmp_path)).what == "5 min ahead of the clock of the output"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_overwrites_files_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "publish", lambda *_: True)
    monkeypatch.setattr(LocalStore, "read", lambda *_: b"second")
    with pytest.raises(CamatlasError, match="overwrites existing files"):
        doctor._output(str(tmp_path))


def test_an_address_at_which_nothing_listens_fails_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ended = run_doctor("--address", address)
    assert ended.exit_code == 1
    assert f"FAIL  ray: compute.address: nothing answers at '{address}'" in ended.stdout


def test_an_address_that_accepts_connections_is_accepted() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        check_reachable(f"127.0.0.1:{server.getsockname()[1]}")
    check_reachable("auto")


@pytest.mark.parametrize(
    ("url", "open_to_others"),
    [(None, False), ("", False), ("127.0.0.1:8265", False), ("localhost:8265", False), ("[::1]:8265", False),
     ("0.0.0.0:8265", True), ("10.0.0.7:8265", True), ("head.cluster:8265", True)],
)  # fmt: skip
def test_a_dashboard_that_others_can_reach_gives_advice(url: str | None, open_to_others: bool) -> None:
    assert bool(fitness.dashboard(url).advice) == open_to_others


def test_a_cluster_is_reported_with_its_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def joined(address: str | None) -> Iterator[str | None]:
        yield "10.0.0.7:8265"

    monkeypatch.setattr(cluster, "connected", joined)
    monkeypatch.setattr(cluster, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    ended = run_doctor()
    assert "at 10.0.0.7:6379, with 64 CPUs and 8 GPUs; dashboard at 10.0.0.7:8265" in ended.stdout
    assert "--dashboard-host 127.0.0.1" in ended.stdout
