"""Fault injection into whole runs: real drivers on a real dataset, checked by `tests/faults/checker.py`.

Each trial makes one run folder, injects accidents, lets the same command finish, and returns the number of accidents
and the problems found afterwards.
"""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from e2e.runs import table_of, write_run_file
from faults.checker import check
from faults.harness import Watcher, check_if_there
from trust.drivers import Process, command, driving, ended_within, explaining, is_at_work, signalled, started

from pipeline.bench.memory import descendants
from pipeline.demo.data import run_file, write_demo

SHARDS, IMAGES_PER_SHARD, METHODS = 64, 64, 3
CHUNK_IMAGES = 16
CHUNKS = SHARDS * IMAGES_PER_SHARD // CHUNK_IMAGES
IMAGES = SHARDS * IMAGES_PER_SHARD
LONGEST = 600.0
"""Time limit of a driver in seconds; longer counts as a hang."""


@dataclass(frozen=True)
class Outcome:
    """Result of a trial: the number of accidents, and every violated promise."""

    accidents: int
    problems: list[str]


@dataclass(frozen=True)
class Scenes:
    """The dataset of all trials, with an undisturbed run over it."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Scenes":
        """Create the dataset and the undisturbed run, unless they exist."""
        scenes = cls(folder)
        if not (folder / "undisturbed.done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            write_demo(folder, scenes=IMAGES, scenes_per_shard=IMAGES_PER_SHARD)
            code = started(scenes.run_file("undisturbed")).wait(LONGEST)
            assert code == 0, f"the undisturbed run ended with {code}"
            (folder / "undisturbed.done").touch()
        return scenes

    def run_file(self, name: str) -> Path:
        """Write the run file of one run, and delete its run folder if there is one."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        fields = run_file(self.folder)
        fields["data"] = {**fields["data"], "chunk_images": CHUNK_IMAGES}  # type: ignore[dict-item]
        fields["explain"] = {"methods": ["gradcam", "layercam", "eigen_cam"], "targets": "predicted"}
        fields["output"] = {"path": str(self.folder / name)}
        return write_run_file(fields, self.folder / f"{name}.yaml")

    def problems_of(self, name: str) -> list[str]:
        """Check a finished run and delete it; return its problems."""
        run = self.folder / name
        problems = check(run, images=IMAGES, methods=METHODS)
        if not problems and not table_of(run).equals(table_of(self.folder / "undisturbed")):
            problems.append("the table differs from that of the undisturbed run")
        temporaries = [path.name for path in run.rglob(".*.tmp")]
        shutil.rmtree(run)
        return [*problems, *(f"the temporary file {name} was left behind" for name in temporaries)]


def workers_killed(scenes: Scenes, seed: int) -> Outcome:
    """C1: SIGKILL of random worker, reader or ledger processes of the run, up to ten times."""
    rng, name = random.Random(seed), f"workers-{seed}"
    kills = 0
    with Watcher(scenes.folder / name) as watcher, driving(scenes.run_file(name)) as driver:
        until = time.monotonic() + LONGEST
        while driver.poll() is None and time.monotonic() < until:
            time.sleep(rng.uniform(1.0, 4.0))
            at_work = [process for process in descendants(driver.pid) if is_at_work(process)]
            if at_work and kills < 10:
                kills += signalled(rng.choice(at_work), signal.SIGKILL)
        code = driver.poll()
    problems = [] if code == 0 else [f"the driver ended with {code}"]
    return Outcome(kills, [*problems, *watcher.breaches, *scenes.problems_of(name)])


def driver_killed(scenes: Scenes, seed: int) -> Outcome:
    """C2: SIGKILL of the driver at a random moment, then the same command again."""
    rng, name = random.Random(seed), f"driver-{seed}"

    def strike(driver: Process) -> list[str] | None:
        if ended_within(driver, rng.uniform(3, 15)):
            return None
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        return []

    return _disturbed(scenes, name, 5, strike)


def raylet_killed(scenes: Scenes, seed: int) -> Outcome:
    """C3: SIGKILL of Ray's node or head process; the driver must end within a minute with a non-zero exit code."""
    rng, name = random.Random(seed), f"raylet-{seed}"

    def strike(driver: Process) -> list[str] | None:
        if ended_within(driver, rng.uniform(6, 14)):
            return None
        names = ("raylet", "gcs_server") if rng.random() < 0.5 else ("gcs_server", "raylet")
        while not (processes := _of_ray(driver, names)) and not ended_within(driver, 1):
            pass  # a busy machine starts Ray late
        if processes:
            signalled(processes[0], signal.SIGKILL)
        if not ended_within(driver, 60):
            driver.kill()
            driver.wait()
            return [f"the driver was still running 60 s after its {names[0]} died"]
        run = scenes.folder / name
        begun = (run / "run.json").exists()
        complete = begun and not check(run, images=IMAGES, methods=METHODS)  # Ray may have died after the work
        return [] if driver.returncode or complete else ["the driver ended with 0 although Ray died"]

    return _disturbed(scenes, name, 3, strike)


def _of_ray(driver: Process, names: tuple[str, str]) -> list[int]:
    """Return the processes of Ray with one of the names, those of the first name first."""
    return [
        process
        for wanted in names
        for process in descendants(driver.pid)
        if command(process).partition(" ")[0].endswith(f"/{wanted}")
    ]


def two_drivers(scenes: Scenes, seed: int) -> Outcome:
    """C6: two more drivers start the same run while a driver is working on it."""
    rng, name = random.Random(seed), f"two-{seed}"
    path = scenes.run_file(name)
    with Watcher(scenes.folder / name) as watcher, ExitStack() as stack:
        drivers = [stack.enter_context(driving(path))]
        concurrent = 0
        for _ in range(2):
            time.sleep(rng.uniform(0, 8))
            concurrent += any(driver.poll() is None for driver in drivers)
            drivers.append(stack.enter_context(driving(path)))
        codes = [driver.wait(LONGEST) for driver in drivers]
    problems = [f"a driver ended with {code}" for code in codes if code]
    return Outcome(concurrent, [*problems, *watcher.breaches, *scenes.problems_of(name)])


def zombie(scenes: Scenes, seed: int) -> Outcome:
    """C7: drivers are stopped with all their processes, another driver completes the run, then they continue."""
    rng, name = random.Random(seed), f"zombie-{seed}"
    path = scenes.run_file(name)
    with Watcher(scenes.folder / name) as watcher, ExitStack() as stack:
        drivers = []
        stopped_processes: list[int] = []
        for _ in range(3):
            driver = stack.enter_context(driving(path))
            if ended_within(driver, rng.uniform(6, 14)):
                break
            drivers.append(driver)
            family = [driver.pid, *descendants(driver.pid)]
            for process in family:
                signalled(process, signal.SIGSTOP)
            stopped_processes += family
        code = started(path).wait(LONGEST)
        problems = [] if code == 0 else [f"the driver that completed the run ended with {code}"]
        for process in reversed(stopped_processes):
            signalled(process, signal.SIGCONT)
        for driver in drivers:
            driver.wait(LONGEST)
    code = started(path).wait(LONGEST)  # deletes temporary files of the stopped drivers
    problems += [] if code == 0 else [f"the last driver ended with {code}"]
    return Outcome(len(drivers), [*problems, *watcher.breaches, *scenes.problems_of(name)])


def stopped(scenes: Scenes, seed: int) -> Outcome:
    """C9: SIGINT or SIGTERM at a random moment; the driver must stop within 30 s, with the signal's exit code."""
    rng, name = random.Random(seed), f"stopped-{seed}"

    def strike(driver: Process) -> list[str] | None:
        number = rng.choice([signal.SIGINT, signal.SIGTERM])
        if ended_within(driver, rng.uniform(4, 14)):
            return None
        driver.send_signal(number)
        if not ended_within(driver, 30):
            driver.kill()
            driver.wait()
            return [f"the driver was still running 30 s after signal {number}"]
        starting = not (scenes.folder / name / "run.json").exists()  # Python itself may still have been starting
        expected = {0, 128 + number} | ({-number} if starting else set())
        return [] if driver.returncode in expected else [f"ended with {driver.returncode} on signal {number}"]

    return _disturbed(scenes, name, 3, strike)


def disk_full(scenes: Scenes, seed: int) -> Outcome:
    """S1: the disk fills up during the run; with more space, the same command must complete it. Mounting needs root."""
    rng, name = random.Random(seed), f"full-{seed}"
    path, run = scenes.run_file(name), scenes.folder / name
    whole = sum(file.stat().st_size for file in (scenes.folder / "undisturbed").rglob("*") if file.is_file())
    run.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(whole * rng.uniform(0.3, 0.9))}", "tmpfs", run], check=True
    )
    try:
        ended = subprocess.run(explaining(path), capture_output=True, text=True, timeout=LONGEST, check=False)
        reported = f"cannot publish {run}/" in ended.stderr and "No space left on device" in ended.stderr
        problems = [] if ended.returncode and reported else [f"ended with {ended.returncode}: {ended.stderr[-300:]}"]
        problems += check_if_there(run)
        subprocess.run(["mount", "-o", "remount,size=1g", run], check=True)
        code = started(path).wait(LONGEST)
        problems += [] if code == 0 else [f"the last driver ended with {code}"]
        shutil.copytree(run, scenes.folder / f"{name}-kept")
    finally:
        subprocess.run(["umount", run], check=True)
        run.rmdir()
    return Outcome(1, [*problems, *scenes.problems_of(f"{name}-kept")])


Strike = Callable[[Process], list[str] | None]
"""Injects a fault into a driver and returns the problems of its reaction; None when it had ended before."""


def _disturbed(scenes: Scenes, name: str, times: int, strike: Strike) -> Outcome:
    """Start the same command up to `times` times and strike each; then one driver must finish without redoing work."""
    path, run = scenes.run_file(name), scenes.folder / name
    problems: list[str] = []
    accidents = 0
    with Watcher(run) as watcher:
        for _ in range(times):
            with driving(path) as driver:
                reaction = strike(driver)
            problems += [*(reaction or ()), *check_if_there(run)]
            if reaction is None and driver.returncode:
                problems.append(f"an undisturbed driver ended with {driver.returncode}")
            if reaction is None or driver.returncode == 0:
                break
            accidents += 1
        problems += _finished(path, run)
    return Outcome(accidents, [*problems, *watcher.breaches, *scenes.problems_of(name)])


def _finished(path: Path, run: Path) -> list[str]:
    """Let a driver finish the run, which must explain only the missing chunks; return the problems."""
    missing = CHUNKS - len(list(run.glob("*.parquet")))
    ended = subprocess.run(explaining(path, "--json"), capture_output=True, text=True, timeout=LONGEST, check=False)
    events = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    redone = max((event["chunks"] for event in events if event["event"] == "progress"), default=0)
    problems = [] if ended.returncode == 0 else [f"the last driver ended with {ended.returncode}"]
    return problems if redone <= missing else [*problems, f"{missing} chunks were missing, {redone} were explained"]
