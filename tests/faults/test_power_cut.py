"""The power fails at any operation, and all that was not synced may be lost, torn or out of order."""

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
    """Do as a driver does, or die at an operation; gives what the disk was asked to do."""
    plan = Plan(crash, "crash")
    with faulty_disk(plan):
        try:
            RunMaker(folder).work(RunMaker(folder).store)
        except CrashError:
            return list(zip(plan.told[:-1], plan.given[:-1], strict=True))
    return list(zip(plan.told, plan.given, strict=True))


@pytest.mark.parametrize("schedules", [200, pytest.param(1000, marks=pytest.mark.campaign)])
def test_whatever_the_disk_forgets_no_published_part_is_torn_and_the_run_is_completed(
    tmp_path: Path, schedules: int
) -> None:
    chance = random.Random(0)
    truth = visible(RunMaker(tmp_path / "truth" / "run").complete().folder)
    calls = len(session(tmp_path / "count" / "run", None))
    lost = 0
    for schedule in range(schedules):
        disk, after = tmp_path / f"disk-{schedule}", tmp_path / f"after-{schedule}"
        disk.mkdir()
        did = session(disk / "run", chance.randrange(calls)) + session(disk / "run", None)
        cut = chance.randint(0, len(did))
        write_after_power_cut(did[:cut], disk, after, chance)
        run = RunMaker(after / "run")
        seen = visible(run.folder)
        assert seen.items() <= truth.items(), (schedule, "torn or foreign")
        assert {part.file for part in PARTS if part.receipt in seen} <= set(seen), (schedule, "a receipt alone")
        assert MANIFEST in seen or seen == {}, (schedule, "rows of no run")
        lost += len(temporaries(run.folder))
        run.work(run.store)
        assert verify(run.store).problems == [], schedule
        sweep(run.store)
        assert visible(run.folder) == truth
        assert temporaries(run.folder) == []
        assert check(run.folder, images=5, methods=2) == []
    assert lost > schedules / 10, "the cuts come where something is under way"


@pytest.mark.parametrize("forgotten", ["files", "folders"])
def test_a_disk_that_syncs_nothing_is_noticed(tmp_path: Path, forgotten: str) -> None:
    """Or the proof above would prove nothing."""
    (tmp_path / "disk").mkdir()
    did = session(tmp_path / "disk" / "run", None)
    truth = visible(tmp_path / "disk" / "run")
    unsynced = [
        (name, given)
        for name, given in did
        if name != "fsync" or str(given[0]).endswith(".tmp") == (forgotten == "folders")
    ]
    torn = receipts_alone = 0
    for seed in range(100):
        after = tmp_path / f"after-{seed}"
        write_after_power_cut(unsynced, tmp_path / "disk", after, random.Random(seed))
        seen = visible(after / "run")
        torn += not seen.items() <= truth.items()
        receipts_alone += not {part.file for part in PARTS if part.receipt in seen} <= set(seen)
    assert (torn > 10, receipts_alone > 10) == (forgotten == "files", forgotten == "folders")
