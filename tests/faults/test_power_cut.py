"""The power fails at any operation, and everything that was not synced may be lost, torn or out of order."""

import random
from pathlib import Path

import pytest
from disk import temporaries, visible
from faults.broken_stores import CrashError, Plan, faulty_disk
from faults.checker import check
from faults.power_cut import write_after_power_cut
from handmade import PARTS, RunMaker

from pipeline.results.verify import verify
from pipeline.storage.parts import sweep
from pipeline.storage.run_folder import MANIFEST

pytestmark = pytest.mark.usefixtures("encoded_once")

Operations = list[tuple[str, tuple[object, ...]]]


def session(folder: Path, crash: int | None) -> Operations:
    """Work as a driver does, or die at an operation; returns the operations on the disk."""
    plan = Plan(crash, "crash")
    with faulty_disk(plan):
        try:
            RunMaker(folder).work(RunMaker(folder).store)
        except CrashError:
            return list(zip(plan.operations[:-1], plan.arguments[:-1], strict=True))
    return list(zip(plan.operations, plan.arguments, strict=True))


@pytest.mark.parametrize("schedules", [200, pytest.param(1000, marks=pytest.mark.campaign)])
def test_after_a_power_cut_no_published_part_is_torn_and_the_run_can_be_completed(
    tmp_path: Path, schedules: int
) -> None:
    chance = random.Random(0)
    truth = visible(RunMaker(tmp_path / "truth" / "run").complete().folder)
    calls = len(session(tmp_path / "count" / "run", None))
    lost = 0
    for schedule in range(schedules):
        disk, after = tmp_path / f"disk-{schedule}", tmp_path / f"after-{schedule}"
        disk.mkdir()
        operations = session(disk / "run", chance.randrange(calls)) + session(disk / "run", None)
        cut = chance.randint(0, len(operations))
        write_after_power_cut(operations[:cut], disk, after, chance)
        run = RunMaker(after / "run")
        seen = visible(run.folder)
        assert seen.items() <= truth.items(), (schedule, "torn or foreign")
        assert {part.file for part in PARTS if part.receipt in seen} <= set(seen), (
            schedule,
            "a receipt without its part",
        )
        assert MANIFEST in seen or seen == {}, (schedule, "parts without a manifest")
        lost += len(temporaries(run.folder))
        run.work(run.store)
        assert verify(run.store).problems == [], schedule
        sweep(run.store)
        assert visible(run.folder) == truth
        assert temporaries(run.folder) == []
        assert check(run.folder, images=5, methods=2) == []
    assert lost > schedules / 10, "too few cuts happened during a write"


@pytest.mark.parametrize("unsynced_kind", ["files", "folders"])
def test_a_disk_that_syncs_nothing_is_noticed(tmp_path: Path, unsynced_kind: str) -> None:
    """Check that the test above can fail."""
    (tmp_path / "disk").mkdir()
    operations = session(tmp_path / "disk" / "run", None)
    truth = visible(tmp_path / "disk" / "run")
    unsynced = [
        (name, arguments)
        for name, arguments in operations
        if name != "fsync" or str(arguments[0]).endswith(".tmp") == (unsynced_kind == "folders")
    ]
    torn = lone_receipts = 0
    for seed in range(100):
        after = tmp_path / f"after-{seed}"
        write_after_power_cut(unsynced, tmp_path / "disk", after, random.Random(seed))
        seen = visible(after / "run")
        torn += not seen.items() <= truth.items()
        lone_receipts += not {part.file for part in PARTS if part.receipt in seen} <= set(seen)
    assert (torn > 10, lone_receipts > 10) == (unsynced_kind == "files", unsynced_kind == "folders")
