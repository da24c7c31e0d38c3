"""Every operation of a run on its store fails once, in every way: nothing is torn, repeated or lost."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disk import temporaries, visible
from faults.broken_stores import CrashError, Fault, FaultStore, Plan, faulty_disk
from faults.checker import check
from handmade import PARTS, RunMaker

from pipeline.errors import StoreError
from pipeline.results.verify import verify
from pipeline.storage.parts import sweep
from pipeline.storage.run_folder import MANIFEST

pytestmark = pytest.mark.usefixtures("encoded_once")

FAULTS: tuple[Fault, ...] = get_args(Fault)
Session = Callable[[RunMaker, Plan], None]


@pytest.fixture(scope="module")
def fault_free(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every visible file of the run when nothing fails; the independent checker accepts them."""
    run = RunMaker(tmp_path_factory.mktemp("fault-free") / "run").complete()
    table = pa.concat_tables([pq.read_table(path) for path in sorted(run.folder.glob("*.parquet"))])
    assert table.replace_schema_metadata(None).equals(pa.concat_tables(run.table(part) for part in PARTS))
    assert check(run.folder, images=5, methods=2) == []
    return visible(run.folder)


def on_faulty_store(run: RunMaker, plan: Plan) -> None:
    """Work in a store in which one operation fails."""
    run.work(FaultStore(run.store, plan))


def on_faulty_disk(run: RunMaker, plan: Plan) -> None:
    """Work in a sound store, on a disk on which one system call fails."""
    with faulty_disk(plan):
        run.work(run.store)


def operations(folder: Path, session: Session, begun: int) -> list[str]:
    """List the operations of a session when nothing fails."""
    plan = Plan()
    session(started(folder, begun), plan)
    return plan.operations


def started(folder: Path, begun: int) -> RunMaker:
    """Make a run of which an earlier session finished some chunks."""
    run = RunMaker(folder)
    return run.owned().publish(*PARTS[:begun]) if begun else run


def attempt(run: RunMaker, session: Session, plan: Plan) -> BaseException | None:
    try:
        session(run, plan)
    except (StoreError, OSError, CrashError) as error:
        return error
    return None


@pytest.mark.parametrize("begun", [0, 2])
@pytest.mark.parametrize("session", [on_faulty_store, on_faulty_disk])
@pytest.mark.parametrize("fault", FAULTS)
def test_after_any_fault_nothing_is_torn_and_a_second_session_completes_the_run(
    tmp_path: Path, fault_free: dict[str, bytes], fault: Fault, session: Session, begun: int
) -> None:
    names = operations(tmp_path / "count", session, begun)
    for at, name in enumerate(names):
        run = started(tmp_path / f"run-{at}", begun)
        plan = Plan(at, fault)
        attempt(run, session, plan)
        assert plan.has_failed, (at, name)
        assert visible(run.folder).items() <= fault_free.items(), f"torn or foreign after {fault} at {at} {name}"
        on_faulty_disk(run, Plan())
        findings = verify(run.store)
        assert findings.problems == []
        assert len(findings.notes) <= 1, "at most the receipt that was about to be written is missing"
        sweep(run.store)
        assert visible(run.folder) == fault_free, f"not the same run after {fault} at {at} {name}"
        assert temporaries(run.folder) == []


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EINTR", "partial", "after"])
def test_a_disk_error_becomes_a_store_error_and_leaves_no_temporary(tmp_path: Path, fault: Fault) -> None:
    """Only cleaning up, and making a folder that already exists, may fail silently."""
    (tmp_path / "count").mkdir()
    for at, name in enumerate(operations(tmp_path / "count", on_faulty_disk, 0)):
        run = RunMaker(tmp_path / f"run-{at}")
        run.folder.mkdir()
        error = attempt(run, on_faulty_disk, Plan(at, fault))
        if name in ("unlink", "mkdir"):
            assert error is None or isinstance(error, StoreError)
        elif (at, fault) == (0, "after"):
            assert error is None, "it only looked for a manifest, which does not exist"
        else:
            assert isinstance(error, StoreError), (at, name)
            assert temporaries(run.folder) == []


def test_every_step_of_publishing_is_among_the_operations(tmp_path: Path) -> None:
    """Check that the loops above cover all operations."""
    names = operations(tmp_path / "run", on_faulty_disk, 0)
    steps = ["mkdir", "create", "write", "fsync", "link", "open", "fsync", "unlink"]
    published = "".join(names).split("create")
    assert len(published) == 1 + len([MANIFEST, *PARTS, *PARTS])
    assert all("".join(steps[2:]) in after for after in published[1:])
    assert names.count("write") == names.count("link") == names.count("unlink") == 7
    assert operations(tmp_path / "other", on_faulty_store, 0)[:3] == [
        f"read {MANIFEST}",
        "list ",
        f"publish {MANIFEST}",
    ]


def test_half_a_write_is_never_seen(tmp_path: Path, fault_free: dict[str, bytes]) -> None:
    run = RunMaker(tmp_path / "run")
    writes = [at for at, name in enumerate(operations(tmp_path / "count", on_faulty_disk, 0)) if name == "write"]
    for at in writes:
        error = attempt(run, on_faulty_disk, Plan(at, "partial"))
        assert error is None or "No space left on device" in str(error)
        assert visible(run.folder).items() <= fault_free.items()


def test_a_crash_leaves_only_temporaries_behind_and_they_are_swept(tmp_path: Path) -> None:
    left = set()
    for at, name in enumerate(operations(tmp_path / "count", on_faulty_disk, 0)):
        run = RunMaker(tmp_path / f"run-{at}")
        assert isinstance(attempt(run, on_faulty_disk, Plan(at, "crash")), CrashError)
        if temporaries(run.folder):
            left.add(name)
        run.work(run.store)
        verify(run.store)
        sweep(run.store)
        assert temporaries(run.folder) == []
    assert left == {"write", "fsync", "link", "open", "unlink"}


@pytest.mark.parametrize("fault", ["EIO", "after", "crash"])
def test_a_run_that_fails_again_and_again_still_finishes(
    tmp_path: Path, fault_free: dict[str, bytes], fault: Fault
) -> None:
    """Every session fails one operation later than the previous one; finished parts stay."""
    run = RunMaker(tmp_path / "run")
    seen = 0
    for at in range(200):
        if attempt(run, on_faulty_disk, Plan(at, fault)) is None:
            break
        assert visible(run.folder).items() <= fault_free.items()
        assert len(visible(run.folder)) >= seen
        seen = len(visible(run.folder))
    else:
        pytest.fail("the run never finished")
    verify(run.store)
    sweep(run.store)
    assert visible(run.folder) == fault_free
