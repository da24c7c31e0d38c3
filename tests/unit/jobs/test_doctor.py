"""camatlas doctor: every check is told, what is unfit has exit code 1, and advice alone has not."""

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
from pipeline.run.cluster import reach
from pipeline.storage.local_store import LocalStore

app = typer.Typer()
app.command()(doctor.doctor)
GB = 1 << 30


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(doctor, "_engine", lambda: Found("Ray starts"))
    monkeypatch.setattr(fitness, "room", lambda output: Found("room"))
    monkeypatch.setattr(fitness, "files", lambda: Found("many"))


def asked(*words: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_fit_machine_is_told_line_by_line(tmp_path: Path) -> None:
    answer = asked(tmp_path / "run")
    assert answer.exit_code == 0, answer.stdout
    names = [line.split(":")[0].split()[-1] for line in answer.stdout.splitlines() if line.startswith(("ok", "note"))]
    assert names == ["libraries", "device", "decode", "explain", "files", "room", "engine", "output", "clock"]
    assert not (tmp_path / "run").exists(), "nothing is left behind"


def test_folders_that_were_not_there_are_none_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert asked("~/a/b/c").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_advice_does_not_make_a_machine_unfit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "files", lambda: Found("a process may open 64", "allow more"))
    answer = asked()
    assert answer.exit_code == 0
    assert "note  files: a process may open 64\n      allow more\n" in answer.stdout


def test_what_is_unfit_is_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfit() -> Found:
        raise CamatlasError("nothing works")

    monkeypatch.setattr(doctor, "_explain", unfit)
    answer = asked()
    assert answer.exit_code == 1
    assert "UNFIT explain: nothing works" in answer.stdout
    assert "ok    engine: Ray starts" in answer.stdout


def test_torch_and_torchvision_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops.nms", refuse)
    with pytest.raises(CamatlasError, match=r"do not fit together .*nms does not exist.* install both at once"):
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
def test_a_gpu_that_is_not_used_is_told(driver: bool, built_for: str | None, env: dict[str, str], words: str) -> None:
    found = fitness.unused_gpu(driver=driver, built_for=built_for, env=env)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_the_device() -> None:
    assert fitness.device().what.startswith("no CUDA device; CPU with ")


@pytest.mark.parametrize(
    ("soft", "hard", "enough"), [(1024, 1_048_576, True), (1024, -1, True), (-1, -1, True), (1024, 1024, False)]
)
def test_few_open_files_are_told(soft: int, hard: int, enough: bool) -> None:
    assert (fitness.file_limit(soft, hard).advice == "") is enough


def test_scarce_room_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    output = str(tmp_path / "not" / "there")
    plenty = fitness.room(output, lambda _: 100 * GB)
    assert plenty.advice == ""
    assert f"107.4 GB in {tmp_path} (output)" in plenty.what or f"107 GB in {tmp_path} (output)" in plenty.what
    scarce = fitness.room(output, lambda _: GB // 2)
    for words in ("TMPDIR", "camatlas plan", "--shm-size"):
        assert words in scarce.advice
    assert "(output)" not in fitness.room("s3://bucket/run", lambda _: GB).what
    assert "free: " in fitness.room(None).what


@pytest.mark.parametrize(
    ("ahead", "words"),
    [(0.0, "agrees"), (-59, "agrees"), (61, "61 s behind that of the output"), (-7200, "2.0 h ahead of")],
)
def test_a_clock_that_is_off_is_told(ahead: float, words: str) -> None:
    found = fitness.clock(ahead)
    assert words in found.what
    assert bool(found.advice) == (abs(ahead) > 60)


def test_the_clock_of_the_output_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._clock(str(tmp_path)).advice == ""
    publish = LocalStore.publish

    def in_the_past(store: LocalStore, name: str, data: bytes) -> bool:
        done = publish(store, name, data)
        os.utime(store.folder / name, (time.time() - 300,) * 2)
        return done

    monkeypatch.setattr(LocalStore, "publish", in_the_past)
    assert doctor._clock(str(tmp_path)).what == "5 min ahead of that of the output"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_puts_twice_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "publish", lambda *_: True)
    monkeypatch.setattr(LocalStore, "read", lambda *_: b"second")
    with pytest.raises(CamatlasError, match="does not publish if absent"):
        doctor._output(str(tmp_path))


def test_an_address_at_which_nothing_listens_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    answer = asked("--address", address)
    assert answer.exit_code == 1
    assert f"UNFIT engine: compute.address: nothing answers at '{address}'" in answer.stdout


def test_an_address_that_answers_is_passed() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        reach(f"127.0.0.1:{server.getsockname()[1]}")
    reach("auto")


@pytest.mark.parametrize(
    ("url", "open_to_others"),
    [(None, False), ("", False), ("127.0.0.1:8265", False), ("localhost:8265", False), ("[::1]:8265", False),
     ("0.0.0.0:8265", True), ("10.0.0.7:8265", True), ("head.cluster:8265", True)],
)  # fmt: skip
def test_a_dashboard_that_others_reach_is_told(url: str | None, open_to_others: bool) -> None:
    assert bool(fitness.dashboard(url).advice) == open_to_others


def test_a_cluster_is_told_with_its_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def joined(address: str | None) -> Iterator[str | None]:
        yield "10.0.0.7:8265"

    monkeypatch.setattr(cluster, "connected", joined)
    monkeypatch.setattr(cluster, "cluster_resources", lambda: {"CPU": 64.0, "GPU": 8.0})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    answer = asked()
    assert "at 10.0.0.7:6379, with 64 CPUs and 8 GPUs; dashboard at 10.0.0.7:8265" in answer.stdout
    assert "--dashboard-host 127.0.0.1" in answer.stdout
