"""camatlas export: path on stdout, counts on stderr, exit codes."""

from pathlib import Path

import pytest
import typer
from handmade import RunMaker
from typer.testing import CliRunner, Result

from jobs.export import export
from pipeline.export import TARGETS

app = typer.Typer()
app.command()(export)


def run_export(run: RunMaker, *arguments: str) -> Result:
    return CliRunner().invoke(app, [str(run.folder), *arguments])


def test_the_path_goes_to_stdout_and_counts_to_stderr(small_run: RunMaker, tmp_path: Path) -> None:
    ended = run_export(small_run, str(tmp_path / "table"), "--to", "delta")
    assert (ended.exit_code, ended.stdout) == (0, f"{tmp_path}/table\n")
    assert ended.stderr == "7 explanations; 3 failures: in the same table, with an error_code\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/x", "--to", "deltas"], "--to: unknown target 'deltas' (did you mean 'delta'?)"),
        (["{tmp}/run", "--to", "delta"], "DEST: "),
        (["{tmp}", "--to", "hf"], "is not an empty folder"),
    ],
)
def test_usage_errors_are_printed_on_stderr(
    small_run: RunMaker, tmp_path: Path, arguments: list[str], words: str
) -> None:
    ended = run_export(small_run, *(word.format(tmp=tmp_path) for word in arguments))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert words in ended.stderr


def test_a_target_must_be_named_and_the_help_names_all(small_run: RunMaker, tmp_path: Path) -> None:
    assert run_export(small_run, str(tmp_path / "x")).exit_code == 2
    help_text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    assert all(target in help_text for target in TARGETS)


def test_a_damaged_run_ends_with_4(small_run: RunMaker, tmp_path: Path) -> None:
    (small_run.folder / "part-00001-000.parquet").write_bytes(b"")
    assert run_export(small_run, str(tmp_path / "x"), "--to", "delta").exit_code == 4


def test_a_folder_that_is_no_run_ends_with_2(maker: RunMaker, tmp_path: Path) -> None:
    ended = run_export(maker, str(tmp_path / "x"), "--to", "delta")
    assert ended.exit_code == 2
    assert "is not a run folder" in ended.stderr
