"""verify checks the merged copy, too: its problems are named, and repair removes it."""

import json
from pathlib import Path

import pytest
import typer
from damage import replace_part, with_column
from handmade import PARTS, RunMaker
from merging import copy_of, seen, seen_plainly
from typer.testing import CliRunner, Result

from jobs.compact import compact as compact_verb
from jobs.verify import verify as verify_verb
from pipeline.errors import ConfigError
from pipeline.results.verify import verify
from pipeline.storage.compaction import Limits, compact
from pipeline.storage.merged import merged_path, record_path
from pipeline.storage.run_folder import MANIFEST, PartName, Receipt
from schemas.compaction import CompactionRecord

app = typer.Typer()
app.command("verify")(verify_verb)
app.command("compact")(compact_verb)


@pytest.fixture
def compacted(small_run: RunMaker) -> tuple[RunMaker, CompactionRecord]:
    """A finished run with a merged copy of two files."""
    return small_run, compact(small_run.store, Limits(rows=6)).record


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def only_merged(run: RunMaker) -> str:
    findings = verify(run.store)
    (problem,) = findings.problems
    assert findings.merged == [problem]
    assert findings.damaged == []
    assert "`camatlas verify --repair` removes the merged copy" in problem
    return problem


def test_an_intact_copy_has_no_problems_and_is_not_counted(
    compacted: tuple[RunMaker, CompactionRecord], tmp_path: Path
) -> None:
    plain = verify(RunMaker(tmp_path / "plain").complete().store)
    assert verify(compacted[0].store) == plain


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("at", [0, 4, 700, -1])
def test_a_flipped_bit_in_a_merged_file_is_found(
    compacted: tuple[RunMaker, CompactionRecord], number: int, at: int
) -> None:
    run, record = compacted
    path = merged_path(record.files[number].name)
    flip(run.folder / path, at)
    assert only_merged(run).startswith(f"{path}: changed after it was published, sha256 or size differs")


def test_a_missing_merged_file_is_found(compacted: tuple[RunMaker, CompactionRecord]) -> None:
    run, record = compacted
    path = merged_path(record.files[1].name)
    (run.folder / path).unlink()
    assert only_merged(run).startswith(f"{path}: FileNotFoundError")


def test_a_damaged_record_is_found(compacted: tuple[RunMaker, CompactionRecord]) -> None:
    run, _ = compacted
    (run.folder / record_path(1)).write_bytes(b"{")
    assert only_merged(run).startswith(f"{record_path(1)}: not a valid record (")


def test_a_copy_of_replaced_parts_is_found(compacted: tuple[RunMaker, CompactionRecord]) -> None:
    """A part may be replaced by one with slightly different values, as another processor would compute them."""
    run, _ = compacted
    replace_part(run, PARTS[0], with_column(run.table(PARTS[0]), "average_drop", lambda old: [0.125] * len(old)))
    assert only_merged(run).startswith(f"{record_path(1)}: parts that it covers are missing or changed")


def test_a_copy_of_another_version_is_not_checked(small_run: RunMaker) -> None:
    small_run.store.publish(record_path(1), json.dumps({"version": 2}).encode())
    findings = verify(small_run.store)
    assert findings.problems == []
    assert findings.notes == [f"{record_path(1)}: not checked: version 2, known is 1"]


def test_repair_removes_a_damaged_copy_without_explaining_anything(
    compacted: tuple[RunMaker, CompactionRecord],
) -> None:
    """The run file in this manifest cannot be run, so explaining would fail."""
    run, record = compacted
    flip(run.folder / merged_path(record.files[0].name), 700)
    verified = invoke("verify", run.folder)
    assert verified.exit_code == 4
    assert record.files[0].name in verified.stderr
    repaired = invoke("verify", run.folder, "--repair")
    assert repaired.exit_code == 0, repaired.stderr
    assert repaired.stdout.startswith("verified: 5 images")
    assert copy_of(run.folder) == {}
    assert seen(run.folder) == seen_plainly(run.folder)


def test_repair_deletes_nothing_if_the_run_cannot_be_explained_again(
    compacted: tuple[RunMaker, CompactionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(store: object) -> None:
        raise ConfigError.one("data.shards", "the shards have moved")

    run, record = compacted
    monkeypatch.setattr("jobs.verify._runnable", moved)
    flip(run.folder / merged_path(record.files[0].name), 700)
    flip(run.folder / PARTS[1].file, 700)
    before = copy_of(run.folder)
    assert invoke("verify", run.folder, "--repair").exit_code == 2
    assert copy_of(run.folder) == before
    assert (run.folder / PARTS[1].file).exists()


@pytest.mark.parametrize("stale", [True, False])
def test_repair_of_a_part_removes_the_copy_too(
    compacted: tuple[RunMaker, CompactionRecord], monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    """The copy may match the damaged part, if it was made after the damage."""
    run, _ = compacted
    if stale:
        flip(run.folder / PARTS[1].file, 700)
    else:
        (run.folder / "_compact").rename(run.folder / "_kept")
        replace_part(run, PARTS[1], run.table(PARTS[1]).slice(1))
        compact(run.store)
    explained = object()
    ran: list[object] = []
    monkeypatch.setattr("jobs.verify._runnable", lambda store: explained)
    monkeypatch.setattr("jobs.explain.run", lambda config: ran.append(config) or run.publish(*PARTS))
    repaired = invoke("verify", run.folder, "--repair")
    assert (repaired.exit_code, ran) == (0, [explained]), repaired.stderr
    assert copy_of(run.folder) == {}


@pytest.mark.parametrize("with_receipt", [False, True])
def test_repair_removes_a_stray_part_and_its_receipt(
    small_run: RunMaker, monkeypatch: pytest.MonkeyPatch, with_receipt: bool
) -> None:
    """A remaining receipt would make the part look missing for ever, because the run has no such chunk."""
    stray, data = PartName(0, 2), small_run.store.read(PARTS[0].file)
    small_run.store.publish(stray.file, data)
    if with_receipt:
        small_run.store.publish(stray.receipt, Receipt.of(stray, data, 4).to_json())
    monkeypatch.setattr("jobs.verify._runnable", lambda store: object())
    monkeypatch.setattr("jobs.explain.run", lambda config: small_run.publish(*PARTS))
    repaired = invoke("verify", small_run.folder, "--repair")
    assert (repaired.exit_code, repaired.stdout[:18]) == (0, "verified: 5 images"), repaired.stderr
    assert seen(small_run.folder) == seen_plainly(small_run.folder)


def test_the_compact_command_reports_its_result(small_run: RunMaker) -> None:
    first = invoke("compact", small_run.folder)
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout.startswith("merged 10 rows of 3 parts; files: 1, ")
    assert invoke("compact", small_run.folder).stdout.startswith("already merged: 10 rows of 3 parts; files: 1, ")


@pytest.mark.parametrize("at", [0, 700, -1])
def test_a_damaged_copy_is_written_again(small_run: RunMaker, at: int) -> None:
    (file,) = compact(small_run.store).record.files
    flip(small_run.folder / merged_path(file.name), at)
    assert invoke("compact", small_run.folder).stdout.startswith("merged 10 rows of 3 parts; files: 1, ")
    assert verify(small_run.store).problems == []


def test_the_compact_command_fails_with_the_right_exit_code(small_run: RunMaker, tmp_path: Path) -> None:
    refused = invoke("compact", tmp_path / "none")
    assert refused.exit_code == 2
    assert "is not a run folder" in refused.stderr
    (small_run.folder / PARTS[0].file).write_bytes(b"")
    assert invoke("compact", small_run.folder).exit_code == 4
    (small_run.folder / MANIFEST).write_bytes(b"{}")
    assert invoke("compact", small_run.folder).exit_code == 4
