"""Disks that are full, and listings that are incomplete."""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from disk import temporaries, visible
from faults.broken_stores import FaultStore, Plan
from handmade import PARTS, RunMaker

from pipeline.errors import StoreError
from pipeline.results.verify import verify

_KIB = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("not allowed to mount a file system of fixed size")
    yield folder
    subprocess.run(["umount", folder], check=True)


def attempt(run: RunMaker) -> str:
    try:
        run.work(run.store)
    except StoreError as error:
        return str(error)
    return ""


def test_a_full_disk_is_reported_with_path_and_bytes_and_the_run_resumes_when_there_is_space(small_disk: Path) -> None:
    chance, refused = random.Random(0), 0
    for trial in range(10):
        run = RunMaker(small_disk / f"run-{trial}")
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(_KIB * chance.randrange(190, 250)))
        error = attempt(run)
        if error:
            refused += 1
            assert f"cannot publish {run.folder}/" in error
            assert "bytes): No space left on device" in error
            assert temporaries(run.folder) == []
        ballast.unlink()
        run.work(run.store)
        assert verify(run.store).problems == []
        for path in sorted(run.folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    assert refused >= 5


@dataclass
class StaleStore(FaultStore):
    """A store whose listings are incomplete at random."""

    chance: random.Random

    def names(self, folder: str = "") -> list[str]:
        """List each name with a probability of one half."""
        return [name for name in super().names(folder) if self.chance.random() < 0.5]


def test_an_incomplete_listing_only_costs_repeated_work(tmp_path: Path) -> None:
    truth = visible(RunMaker(tmp_path / "truth" / "run").complete().folder)
    for seed in range(100):
        chance = random.Random(seed)
        run = RunMaker(tmp_path / f"run-{seed}").owned().publish(*chance.sample(PARTS, chance.randrange(4)))
        before = visible(run.folder)
        for _ in range(2):
            run.work(StaleStore(run.store, Plan(), chance))
            assert before.items() <= visible(run.folder).items()
        assert visible(run.folder) == truth
        assert temporaries(run.folder) == []
