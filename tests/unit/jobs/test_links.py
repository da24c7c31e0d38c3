"""No verb follows links in a run folder: nothing outside is read, written or deleted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from disk import everything_in
from handmade import PARTS, RunMaker
from typer.testing import CliRunner, Result

from jobs import audit, compact, query, verify


def run_verb(verb: Callable[..., int], *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("place", ["_audit", "_audit/report.html", "_audit/tables"])
def test_a_report_is_not_written_through_a_link(small_run: RunMaker, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir() if "." not in place else outside.write_bytes(b"outside")
    (small_run.folder / "_audit").mkdir() if "/" in place else None
    (small_run.folder / place).symlink_to(outside)
    ended = run_verb(audit.audit, small_run.folder)
    assert ended.exit_code == 2
    assert f"{place}' is a link" in ended.stderr
    assert everything_in(outside) == [] if outside.is_dir() else outside.read_bytes() == b"outside"


@pytest.mark.parametrize(("verb", "place"), [(verify.verify, "_receipts"), (compact.compact, "_compact")])
def test_a_subfolder_that_is_a_link_is_refused(
    small_run: RunMaker, tmp_path: Path, verb: Callable[..., int], place: str
) -> None:
    outside = tmp_path / "outside"
    if (small_run.folder / place).exists():
        (small_run.folder / place).rename(outside)
    outside.mkdir(exist_ok=True)
    (small_run.folder / place).symlink_to(outside)
    before = everything_in(outside)
    ended = run_verb(verb, small_run.folder)
    assert ended.exit_code == 5
    assert f"{place} is a link" in ended.stderr
    assert everything_in(outside) == before


def test_a_part_that_is_a_link_is_refused_by_queries(small_run: RunMaker, tmp_path: Path) -> None:
    part = small_run.folder / PARTS[1].file
    part.rename(tmp_path / "part")
    part.symlink_to(tmp_path / "part")
    ended = run_verb(query.query, small_run.folder)
    assert ended.exit_code == 4
    assert f"{part} cannot be read" in ended.stderr
