"""Accidents of whole runs: each is done to real drivers on a real dataset, and judged by the independent checker.

A trial makes one run folder, has accidents happen to it, lets the same command finish, and gives how many accidents
there were and what was wrong afterwards.
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
"""No driver may take longer; a hang is a problem."""


@dataclass(frozen=True)
class Outcome:
    """How many accidents happened, and every breach of a promise."""

    accidents: int
    problems: list[str]


@dataclass(frozen=True)
class Scenes:
    """The dataset of all trials, and the run that nothing happened to."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Scenes":
        """Make both, or find them made."""
        scenes = cls(folder)
        if not (folder / "undisturbed.done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            write_demo(folder, scenes=IMAGES, scenes_per_shard=IMAGES_PER_SHARD)
            code = started(scenes.run_file("undisturbed")).wait(LONGEST)
            assert code == 0, f"the undisturbed run ended with {code}"
            (folder / "undisturbed.done").touch()
        return scenes

    def run_file(self, name: str) -> Path:
        """Write the run file of one run, of which nothing is there yet."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        fields = run_file(self.folder)
        fields["data"] = {**fields["data"], "chunk_images": CHUNK_IMAGES}  # type: ignore[dict-item]
        fields["explain"] = {"methods": ["gradcam", "layercam", "eigen_cam"], "targets": "predicted"}
        fields["output"] = {"path": str(self.folder / name)}
        return write_run_file(fields, self.folder / f"{name}.yaml")

    def judged(self, name: str) -> list[str]:
        """Say what is wrong with a finished run, and forget it."""
        run = self.folder / name
        problems = check(run, images=IMAGES, methods=METHODS)
        if not problems and not table_of(run).equals(table_of(self.folder / "undisturbed")):
            problems.append("the table is not that of the undisturbed run")
        left = [path.name for path in run.rglob(".*.tmp")]
        shutil.rmtree(run)
        return [*problems, *(f"{name} was not swept" for name in left)]


def workers_killed(scenes: Scenes, seed: int) -> Outcome:
    """C1: SIGKILL of a random process of Ray that works for the run, again and again."""
    chance, name = random.Random(seed), f"workers-{seed}"
    kills = 0
    with Watcher(scenes.folder / name) as watcher, driving(scenes.run_file(name)) as driver:
        until = time.monotonic() + LONGEST
        while driver.poll() is None and time.monotonic() < until:
            time.sleep(chance.uniform(1.0, 4.0))
            at_work = [process for process in descendants(driver.pid) if is_at_work(process)]
            if at_work and kills < 10:
                kills += signalled(chance.choice(at_work), signal.SIGKILL)
        code = driver.poll()
    problems = [] if code == 0 else [f"the driver ended with {code}"]
    return Outcome(kills, [*problems, *watcher.breaches, *scenes.judged(name)])


def driver_killed(scenes: Scenes, seed: int) -> Outcome:
    """C2: SIGKILL of the driver at random moments, then the same command again."""
    chance, name = random.Random(seed), f"driver-{seed}"

    def strike(driver: Process) -> list[str] | None:
        if ended_within(driver, chance.uniform(3, 15)):
            return None
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        return []

    return _again_and_again(scenes, name, 5, strike)


def raylet_killed(scenes: Scenes, seed: int) -> Outcome:
    """C3: SIGKILL of Ray's own node or head process: the driver ends within a minute, and says so with its code."""
    chance, name = random.Random(seed), f"raylet-{seed}"

    def strike(driver: Process) -> list[str] | None:
        if ended_within(driver, chance.uniform(6, 14)):
            return None
        names = ("raylet", "gcs_server") if chance.random() < 0.5 else ("gcs_server", "raylet")
        found = [
            process
            for wanted in names
            for process in descendants(driver.pid)
            if command(process).partition(" ")[0].endswith(f"/{wanted}")
        ]
        if found:
            signalled(found[0], signal.SIGKILL)
        if not ended_within(driver, 60):
            driver.kill()
            driver.wait()
            return [f"the driver went on for 60 s after its {names[0]} died"]
        whole = not check(scenes.folder / name, images=IMAGES, methods=METHODS)  # it may have died when all was done
        return [] if driver.returncode or whole else ["the driver ended with 0 although its engine died"]

    return _again_and_again(scenes, name, 3, strike)


def two_drivers(scenes: Scenes, seed: int) -> Outcome:
    """C6: a driver, and two more that begin the same run while it works."""
    chance, name = random.Random(seed), f"two-{seed}"
    path = scenes.run_file(name)
    with Watcher(scenes.folder / name) as watcher, ExitStack() as stack:
        drivers = [stack.enter_context(driving(path))]
        beside = 0
        for _ in range(2):
            time.sleep(chance.uniform(0, 8))
            beside += any(driver.poll() is None for driver in drivers)
            drivers.append(stack.enter_context(driving(path)))
        codes = [driver.wait(LONGEST) for driver in drivers]
    problems = [f"a driver ended with {code}" for code in codes if code]
    return Outcome(beside, [*problems, *watcher.breaches, *scenes.judged(name)])


def zombie(scenes: Scenes, seed: int) -> Outcome:
    """C7: drivers and all that works for them stand still, one after the other; another does the run; they wake up."""
    chance, name = random.Random(seed), f"zombie-{seed}"
    path = scenes.run_file(name)
    with Watcher(scenes.folder / name) as watcher, ExitStack() as stack:
        drivers = []
        asleep: list[int] = []
        for _ in range(3):
            driver = stack.enter_context(driving(path))
            if ended_within(driver, chance.uniform(6, 14)):
                break
            drivers.append(driver)
            family = [driver.pid, *descendants(driver.pid)]
            for process in family:
                signalled(process, signal.SIGSTOP)
            asleep += family
        code = started(path).wait(LONGEST)
        problems = [] if code == 0 else [f"the driver that overtook them ended with {code}"]
        for process in reversed(asleep):
            signalled(process, signal.SIGCONT)
        for driver in drivers:
            driver.wait(LONGEST)
    code = started(path).wait(LONGEST)  # sweeps what the zombies left
    problems += [] if code == 0 else [f"the last driver ended with {code}"]
    return Outcome(len(drivers), [*problems, *watcher.breaches, *scenes.judged(name)])


def stopped(scenes: Scenes, seed: int) -> Outcome:
    """C9: SIGINT or SIGTERM at a random moment: a clean stop within 30 s, with the signal's exit code."""
    chance, name = random.Random(seed), f"stopped-{seed}"

    def strike(driver: Process) -> list[str] | None:
        number = chance.choice([signal.SIGINT, signal.SIGTERM])
        if ended_within(driver, chance.uniform(4, 14)):
            return None
        driver.send_signal(number)
        if not ended_within(driver, 30):
            driver.kill()
            driver.wait()
            return [f"still there 30 s after signal {number}"]
        young = not (scenes.folder / name / "run.json").exists()  # Python itself was still starting
        fine = {0, 128 + number} | ({-number} if young else set())
        return [] if driver.returncode in fine else [f"ended with {driver.returncode} on signal {number}"]

    return _again_and_again(scenes, name, 3, strike)


def disk_full(scenes: Scenes, seed: int) -> Outcome:
    """S1: the disk is full before the run is done; with room, the same command completes it. Takes root to mount."""
    chance, name = random.Random(seed), f"full-{seed}"
    path, run = scenes.run_file(name), scenes.folder / name
    whole = sum(file.stat().st_size for file in (scenes.folder / "undisturbed").rglob("*") if file.is_file())
    run.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={int(whole * chance.uniform(0.3, 0.9))}", "tmpfs", run], check=True
    )
    try:
        ended = subprocess.run(explaining(path), capture_output=True, text=True, timeout=LONGEST, check=False)
        told = f"cannot publish {run}/" in ended.stderr and "No space left on device" in ended.stderr
        problems = [] if ended.returncode and told else [f"ended with {ended.returncode}: {ended.stderr[-300:]}"]
        problems += check_if_there(run)
        subprocess.run(["mount", "-o", "remount,size=1g", run], check=True)
        code = started(path).wait(LONGEST)
        problems += [] if code == 0 else [f"the last driver ended with {code}"]
        shutil.copytree(run, scenes.folder / f"{name}-kept")
    finally:
        subprocess.run(["umount", run], check=True)
        run.rmdir()
    return Outcome(1, [*problems, *scenes.judged(f"{name}-kept")])


Strike = Callable[[Process], list[str] | None]
"""Does something to a driver and says what was wrong with how it took that; None when it had ended before."""


def _again_and_again(scenes: Scenes, name: str, times: int, strike: Strike) -> Outcome:
    """Start the same command so often, have something happen to each, then let one finish, which redoes nothing."""
    path, run = scenes.run_file(name), scenes.folder / name
    problems: list[str] = []
    accidents = 0
    with Watcher(run) as watcher:
        for _ in range(times):
            with driving(path) as driver:
                told = strike(driver)
            problems += [*(told or ()), *check_if_there(run)]
            if told is None and driver.returncode:
                problems.append(f"a driver ended with {driver.returncode}, and nothing had happened to it")
            if told is None or driver.returncode == 0:
                break
            accidents += 1
        problems += _finished(path, run)
    return Outcome(accidents, [*problems, *watcher.breaches, *scenes.judged(name)])


def _finished(path: Path, run: Path) -> list[str]:
    """Let a driver finish the run; it must explain what is missing, and no chunk more."""
    missing = CHUNKS - len(list(run.glob("*.parquet")))
    ended = subprocess.run(explaining(path, "--json"), capture_output=True, text=True, timeout=LONGEST, check=False)
    events = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    redone = max((event["chunks"] for event in events if event["event"] == "progress"), default=0)
    problems = [] if ended.returncode == 0 else [f"the last driver ended with {ended.returncode}"]
    return problems if redone <= missing else [*problems, f"{missing} chunks were missing, {redone} were explained"]
