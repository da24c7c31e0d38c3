"""The start of a run: what is imported, and which processes there are, counted while a run goes on."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import write_run_file

from pipeline.demo.data import run_file, write_demo

NEEDED = ("gcs_server", "raylet/raylet", "dashboard/agent.py", "runtime_env/agent/main.py")
"""Processes of Ray that a local run cannot do without; the raylet starts the two agents."""
LEFT_OUT = ("dashboard/dashboard.py", "_private/log_monitor.py", "_private/monitor.py")
HEAVY = ("duckdb", "sklearn", "scipy", "vl_convert", "torchvision", "PIL")
MOST_WORKERS = 6
"""Ray Data's three actors, the ledger, one that explains and one that reads."""
TORCH = "libtorch_cpu.so"


def children(root: int) -> Iterator[int]:
    """Yield the process and its descendants."""
    parents = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int((folder / "stat").read_text().rpartition(")")[2].split()[1])].append(int(folder.name))
            except OSError:
                continue  # it has ended
    waiting = [root]
    for process in waiting:
        yield process
        waiting += parents[process]


def libraries(process: int) -> set[str]:
    """Return which native libraries a process has loaded, by the names of the packages; empty if it has ended."""
    try:
        files = {line.split()[-1] for line in Path(f"/proc/{process}/maps").read_text().splitlines() if ".so" in line}
    except OSError:
        return set()
    return {name for name in (*HEAVY, TORCH) for file in files if f"/{name}" in file}


class Seen:
    """What the processes of a run are, and what they have loaded, sampled until it ends."""

    def __init__(self, command: list[str]) -> None:
        self.first: dict[int, str] = {}
        self.loaded: defaultdict[int, set[str]] = defaultdict(set)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as self.driver:
            while self.driver.poll() is None:
                for process in children(self.driver.pid):
                    self._sample(process)
                time.sleep(0.05)
            assert self.driver.stderr is not None
            self.stderr = self.driver.stderr.read()

    def _sample(self, process: int) -> None:
        try:
            called = " ".join(Path(f"/proc/{process}/cmdline").read_text().split("\0")[:3])  # later ones name others
        except OSError:
            return
        known = self.first.get(process, "")
        if not known or "-m camatlas" in known:  # a child is a copy of its parent at first
            self.first[process] = called
        self.loaded[process] |= libraries(process)

    def named(self, part: str) -> list[int]:
        """Return the processes whose first arguments hold a text."""
        return [process for process, called in self.first.items() if part in called]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A run of one chunk with a model by a function, with metrics, sampled."""
    folder = tmp_path_factory.mktemp("start")
    write_demo(folder, scenes=4, scenes_per_shard=4)
    fields: dict[str, Any] = run_file(folder)
    fields["compute"] = {"workers": 1, "device": "cpu"}
    fields["output"] = {"path": str(folder / "run")}
    path = write_run_file(fields, folder / "run.yaml")
    seen = Seen([sys.executable, "-m", "camatlas", "explain", str(path)])
    assert seen.driver.returncode == 0, seen.stderr
    return seen


def test_a_run_starts_the_processes_that_it_needs_and_no_others(seen: Seen) -> None:
    assert {part: len(seen.named(part)) for part in NEEDED} == dict.fromkeys(NEEDED, 1)
    assert not [part for part in LEFT_OUT if seen.named(part)]
    assert len(seen.named("workers/default_worker.py")) <= MOST_WORKERS
    until = time.monotonic() + 20
    while left := [process for process in seen.first if Path(f"/proc/{process}").exists()]:
        assert time.monotonic() < until, [seen.first[process] for process in left]
        time.sleep(0.1)


def test_processes_load_only_the_libraries_that_they_use(seen: Seen) -> None:
    workers = seen.named("workers/default_worker.py")
    assert len([process for process in workers if TORCH in seen.loaded[process]]) == 1
    images = [process for process in workers if "PIL" in seen.loaded[process]]
    assert len(images) <= 2  # one reads, one explains
    for process in [seen.driver.pid, *workers]:
        assert seen.loaded[process] <= {TORCH, "PIL"}, seen.first[process]


def test_the_first_line_comes_before_torch_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from jobs.support import console\n"
        "def say(text):\n"
        "    slow = [name for name in ('torch', 'ray', 'pandas', 'duckdb', 'sklearn') if name in sys.modules]\n"
        "    print(text, slow, file=sys.stderr, flush=True)\n"
        "console.err.say = say\n"
        "from jobs.cli import main\n"
        "sys.argv = ['camatlas', 'explain', sys.argv[1]]\n"
        "main()\n"
    )
    fields = {
        "data": {"shards": "none", "chunk_image": 3},
        "model": {"name": "torchvision/resnet18", "weights": "random"},
        "explain": {"methods": ["grad_cam"]},
        "output": {"path": f"{tmp_path}/run"},
    }
    command = [sys.executable, "-c", script, str(write_run_file(fields, tmp_path / "run.yaml"))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ, timeout=200)
    assert ended.returncode == 2
    assert [line for line in ended.stderr.splitlines() if line.endswith("[]")] == [
        "error: data.chunk_image: unknown key (did you mean 'chunk_images'?) []",
        "error: explain.methods: unknown name 'grad_cam' (did you mean 'gradcam'?) []",
        "looking for more mistakes, in the data and the model []",
    ]
    assert "3 mistakes, nothing was started" in ended.stderr
