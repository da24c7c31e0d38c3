"""Drivers that publish, crash, resume, race and sweep in any order: the folder only ever holds correct files."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from disk import temporaries, visible
from faults.broken_stores import CrashError, Fault, Plan, faulty_disk
from faults.checker import check
from handmade import PARTS, RunMaker
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.errors import StoreError
from pipeline.results.verify import verify
from pipeline.storage.parts import encode_part, publish_part, sweep
from pipeline.storage.run_folder import MANIFEST, PartName, Receipt

FAULTS: tuple[Fault, ...] = ("EIO", "ENOSPC", "partial", "after", "crash")
_MOST_OPERATIONS = 60


def truth() -> dict[str, bytes]:
    """Return every file of a run without accidents."""
    run = RunMaker(Path("nowhere"))
    files = {MANIFEST: run.manifest.to_json()}
    for part in PARTS:
        data = encode_part(run.table(part), run.footer(part))
        files[part.file] = data
        files[part.receipt] = Receipt.of(part, data, run.table(part).num_rows).to_json()
    return files


TRUTH = truth()


class Drivers(RuleBasedStateMachine):
    """One run folder, and the drivers and workers that use it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp()) / "run"
        self.run = RunMaker(self.folder)

    def teardown(self) -> None:
        shutil.rmtree(self.folder.parent)

    @rule(part=st.sampled_from(PARTS))
    def a_worker_publishes(self, part: PartName) -> None:
        if (self.folder / MANIFEST).exists():
            publish_part(self.run.store, self.run.table(part), self.run.footer(part))

    @rule(at=st.integers(0, _MOST_OPERATIONS), fault=st.sampled_from(FAULTS))
    def a_driver_has_an_accident(self, at: int, fault: Fault) -> None:
        try:
            with faulty_disk(Plan(at, fault)):
                self.run.work(self.run.store)
        except (StoreError, OSError, CrashError):
            return

    @rule(part=st.sampled_from(PARTS), at=st.integers(0, 10))
    def a_worker_dies_while_it_publishes(self, part: PartName, at: int) -> None:
        if (self.folder / MANIFEST).exists():
            try:
                with faulty_disk(Plan(at, "crash")):
                    publish_part(self.run.store, self.run.table(part), self.run.footer(part))
            except CrashError:
                return

    @rule()
    def somebody_sweeps(self) -> None:
        sweep(self.run.store)

    @rule()
    def somebody_verifies(self) -> None:
        if (self.folder / MANIFEST).exists():
            problems = verify(self.run.store).problems
            assert all("incomplete, " in problem for problem in problems), problems

    @rule()
    def a_driver_finishes(self) -> None:
        self.run.work(self.run.store)
        verify(self.run.store)  # writes receipts that were lost
        assert visible(self.folder) == TRUTH
        assert temporaries(self.folder) == []

    @invariant()
    def visible_files_are_correct(self) -> None:
        assert visible(self.folder).items() <= TRUTH.items()

    @invariant()
    def the_independent_checker_agrees(self) -> None:
        if (self.folder / MANIFEST).exists():
            assert check(self.folder, methods=2) == []


TestDrivers = Drivers.TestCase
TestDrivers.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)
