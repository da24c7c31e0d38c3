"""Every operation of a compaction fails once, in every way: readers always see each row exactly once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from disk import temporaries
from faults.broken_stores import CrashError, Fault, FaultStore, Plan, faulty_disk
from handmade import PARTS, RunMaker
from merging import Key, copy_of, ordered, seen, seen_plainly

from pipeline.errors import CamatlasError
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.compaction import Limits, compact
from pipeline.storage.merged import COMPACT, files_of

FAULTS: tuple[Fault, ...] = ("EIO", "partial", "after", "crash")
LIMITS = Limits(rows=6)
"""Makes two merged files from a run of ten rows."""
Session = Callable[[RunMaker, Plan], None]


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder in which rows are sorted; a process that crashes leaves files there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def on_faulty_store(run: RunMaker, plan: Plan) -> None:
    """Compact in a store in which one operation fails."""
    compact(FaultStore(run.store, plan), LIMITS)


def on_faulty_disk(run: RunMaker, plan: Plan) -> None:
    """Compact in a sound store, on a disk on which one system call fails."""
    with faulty_disk(plan):
        compact(run.store, LIMITS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Finished runs, by the number of parts that were compacted before the others were published."""
    folder = tmp_path_factory.mktemp("made")
    return {compacted: made_run(folder / f"run-{compacted}", compacted).folder for compacted in (0, 2)}


def made_run(folder: Path, compacted: int) -> RunMaker:
    run = RunMaker(folder).owned().publish(*PARTS[:compacted])
    if compacted:
        compact(run.store, LIMITS)
    return run.publish(*PARTS)


def copied(run: Path, folder: Path) -> RunMaker:
    shutil.copytree(run, folder)
    return RunMaker(folder)


def attempt(run: RunMaker, session: Session, plan: Plan) -> BaseException | None:
    try:
        session(run, plan)
    except (CamatlasError, OSError, CrashError) as error:
        return error
    return None


def operations(run: RunMaker, session: Session) -> list[str]:
    """List the operations of a compaction when nothing fails."""
    plan = Plan()
    session(run, plan)
    return plan.operations


@pytest.fixture(scope="module")
def expected(made: dict[int, Path]) -> list[Key]:
    """The rows of the run."""
    return seen_plainly(made[0])


@pytest.mark.parametrize(
    ("session", "compacted"),
    [(on_faulty_store, 2), (on_faulty_disk, 2), pytest.param(on_faulty_store, 0, marks=pytest.mark.campaign)],
)
@pytest.mark.parametrize("fault", FAULTS)
def test_after_any_fault_each_row_occurs_once_and_a_second_compaction_completes_the_copy(
    tmp_path: Path, made: dict[int, Path], expected: list[Key], fault: Fault, session: Session, compacted: int
) -> None:
    for at, name in enumerate(operations(copied(made[compacted], tmp_path / "count"), session)):
        run = copied(made[compacted], tmp_path / f"run-{at}")
        with open_run(run.folder) as reader:
            attempt(run, session, Plan(at, fault))
            assert ordered(reader.arrow("SELECT * FROM parts")) == expected, (
                f"reader opened before {fault} at {at} {name}"
            )
        assert seen(run.folder) == expected, f"not each row once after {fault} at {at} {name}"
        compact(run.store, LIMITS)
        used = {path.removeprefix(f"{COMPACT}/") for path in files_of(run.store, run.manifest.run_id).names}
        left = {file for file in copy_of(run.folder) if not file.startswith("record-")}
        assert used == left, f"missing or extra files in the copy after {fault} at {at} {name}"
        assert verify(run.store).problems == []
        assert temporaries(run.folder) == []


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "after"])
def test_disk_errors_are_reported_and_leave_no_temporary_files(
    tmp_path: Path, made: dict[int, Path], scratch: Path, fault: Fault
) -> None:
    for at, name in enumerate(operations(copied(made[0], tmp_path / "count"), on_faulty_disk)):
        run = copied(made[0], tmp_path / f"run-{at}")
        error = attempt(run, on_faulty_disk, Plan(at, fault))
        assert error is None or isinstance(error, CamatlasError), (at, name)
        if name not in ("mkdir", "unlink", "open"):  # these create and remove the temporary folder itself
            assert list(scratch.iterdir()) == [], (at, name)
        shutil.rmtree(scratch)
        scratch.mkdir()


def test_every_step_is_among_the_operations(tmp_path: Path, made: dict[int, Path]) -> None:
    """Check that the loops above cover all operations."""
    names = operations(copied(made[2], tmp_path / "run"), on_faulty_store)
    verbs = [name.split()[0] for name in names]
    assert verbs.count("publish") == 3, "two merged files and their record"
    assert verbs[-2:] == ["delete"] * 2, "the older record and its file"
    assert sum(name.startswith("read part-") for name in names) == 3
    last_publish = max(at for at, verb in enumerate(verbs) if verb == "publish")
    assert "record-000002.json" in names[last_publish]
    assert "delete" not in verbs[:last_publish]
    assert operations(copied(made[2], tmp_path / "other"), on_faulty_disk).count("link") == 3


@pytest.mark.parametrize("fault", ["EIO", "after", "crash"])
def test_a_compaction_that_fails_again_and_again_still_finishes(
    tmp_path: Path, made: dict[int, Path], expected: list[Key], fault: Fault
) -> None:
    """Every session fails one operation later than the previous one; the last one sweeps what they left."""
    run = copied(made[0], tmp_path / "run")
    for at in range(200):
        if attempt(run, on_faulty_disk, Plan(at, fault)) is None:
            break
        assert seen(run.folder) == expected
    else:
        pytest.fail("the compaction never finished")
    compact(run.store)
    assert len(copy_of(run.folder)) == 3
    assert seen(run.folder) == expected
