"""Links in a run folder are not followed, whichever verb meets them: nothing outside is read, written or deleted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from disk import everything_in
from handmade import PARTS, RunMaker
from typer.testing import CliRunner, Result

from jobs import audit, compact, query, verify


def asked(verb: Callable[..., int], *words: object) -> Result:
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("place", ["_audit", "_audit/report.html", "_audit/tables"])
def test_a_report_is_not_written_through_a_link(small_run: RunMaker, tmp_path: Path, place: str) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir() if "." not in place else theirs.write_bytes(b"theirs")
    (small_run.folder / "_audit").mkdir() if "/" in place else None
    (small_run.folder / place).symlink_to(theirs)
    answer = asked(audit.audit, small_run.folder)
    assert answer.exit_code == 2
    assert f"{place}' is a link" in answer.stderr
    assert everything_in(theirs) == [] if theirs.is_dir() else theirs.read_bytes() == b"theirs"


@pytest.mark.parametrize(("verb", "place"), [(verify.verify, "_receipts"), (compact.compact, "_compact")])
def test_a_folder_that_is_a_link_is_no_folder_of_the_run(
    small_run: RunMaker, tmp_path: Path, verb: Callable[..., int], place: str
) -> None:
    theirs = tmp_path / "theirs"
    if (small_run.folder / place).exists():
        (small_run.folder / place).rename(theirs)
    theirs.mkdir(exist_ok=True)
    (small_run.folder / place).symlink_to(theirs)
    before = everything_in(theirs)
    answer = asked(verb, small_run.folder)
    assert answer.exit_code == 5
    assert f"{place} is a link" in answer.stderr
    assert everything_in(theirs) == before


def test_a_part_that_is_a_link_is_refused_by_questions_too(small_run: RunMaker, tmp_path: Path) -> None:
    part = small_run.folder / PARTS[1].file
    part.rename(tmp_path / "part")
    part.symlink_to(tmp_path / "part")
    answer = asked(query.query, small_run.folder)
    assert answer.exit_code == 4
    assert f"{part} cannot be read" in answer.stderr
