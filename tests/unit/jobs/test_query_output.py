"""camatlas query: printed and written output, in which no cell becomes a formula or controls the terminal."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from handmade import RunMaker, TwoRules
from typer.testing import CliRunner, Result

from jobs.query import query
from jobs.support.answers import _distinct, _to_json, _to_terminal, write_csv
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.results.leaderboard import MODEL_METRICS, direction
from pipeline.results.query import open_run

app = typer.Typer()
app.command()(query)

ONE_OF_EACH = """
SELECT 'text' AS word, 7 AS whole, 1.5 AS exact, sum(images) AS total, 0.1::DOUBLE AS part, NULL AS nothing,
  true AS yes, '\\x00\\xff'::BLOB AS bytes, DATE '2024-02-03' AS day, TIME '01:02:03' AS hour,
  TIMESTAMP '2024-02-03 01:02:03' AS moment,
  [1.5, NULL] AS list, {'a': '\\x01'::BLOB, 'b': 2} AS record, MAP {'k': 3} AS map, 'nan'::DOUBLE AS none,
  '-inf'::DOUBLE AS least, uuid() IS NOT NULL AS id
FROM leaderboard
"""


def run_query(run: RunMaker, *arguments: str) -> Result:
    return CliRunner().invoke(app, [str(run.folder), *arguments])


def written_csv(table: pa.Table) -> list[list[str]]:
    file = io.StringIO()
    write_csv(table, file)
    return list(csv.reader(io.StringIO(file.getvalue(), newline="")))


def written_json(table: pa.Table) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    file = io.StringIO()
    _to_json(table, file)
    return [json.loads(line, parse_constant=refuse) for line in file.getvalue().splitlines()]


def test_the_default_query_prints_the_leaderboard(small_run: RunMaker) -> None:
    ended = run_query(small_run)
    assert ended.exit_code == 0
    header, *lines = [line.split() for line in ended.stdout.splitlines()]
    assert header == [
        "method", "target_rule", "images", "degenerate", "average_drop", "↓", "pointing_game", "↑",
    ]  # fmt: skip
    assert lines == [
        ["gradcam", "predicted", "4", "0", "0.3125", "0.3125"],
        ["scorecam", "predicted", "3", "0", "0.5833", "0.5833"],
    ]


def test_rows_of_several_target_rules_are_said_to_be_of_different_images(small_run: RunMaker, tmp_path: Path) -> None:
    ended = run_query(TwoRules(tmp_path / "two").complete())
    lines = [line.split()[:3] for line in ended.stdout.splitlines()[1:]]
    assert lines[:2] == [["gradcam", "label", "3"], ["gradcam", "predicted", "4"]]
    assert "target rules are of different images and must not be compared" in ended.stderr
    assert "target rules" not in run_query(small_run).stderr


def test_metrics_that_judge_the_model_stand_apart(tmp_path: Path) -> None:
    made = RunMaker(tmp_path / "run", metrics=("box_only_confidence", "energy_in_box", "sparsity")).complete()
    ended = run_query(made)
    maps, model = ended.stdout.split("\n\nThe next metrics judge the model, not the maps")
    assert maps.splitlines()[0].split()[4:] == ["energy_in_box", "↑", "sparsity"]
    assert [line.split() for line in model.splitlines()[1:]] == [
        ["target_rule", "images", "box_only_confidence"],
        ["predicted", "4", "0.3125"],
    ]
    plain = run_query(made, "--csv").stdout.splitlines()[0]
    assert plain == "method,target_rule,images,degenerate,box_only_confidence,energy_in_box,sparsity"


def test_the_metrics_of_the_model_are_those_that_read_no_map() -> None:
    found = [name for name, kind in METRICS.items() if kind.better == "neither" and kind.reads != "map"]
    assert sorted(found) == sorted(MODEL_METRICS)
    for name, kind in METRICS.items():
        assert direction({"name": name}) == ("neither" if kind.curve else kind.better), name


def test_a_file_that_is_there_is_kept_without_force(small_run: RunMaker, tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    path.write_text("mine", encoding="utf-8")
    refused = run_query(small_run, "SELECT 1 AS n", "--out", str(path))
    assert (refused.exit_code, path.read_text(encoding="utf-8")) == (2, "mine")
    assert f"--out: '{path}' is already there (give another name, or --force to replace it)" in refused.stderr
    assert run_query(small_run, "SELECT 1 AS n", "--out", str(path), "--force").exit_code == 0
    assert path.read_text(encoding="utf-8") == "n\n1\n"


def test_a_folder_one_too_high_names_its_run(small_run: RunMaker) -> None:
    above = small_run.folder.parent
    (above / "shards").mkdir()
    (above / "shards" / "a.tar").write_bytes(b"")
    ended = CliRunner().invoke(app, [str(above)])
    assert ended.exit_code == 2
    assert f"to query a run, name it: '{small_run.folder}'" in ended.stderr
    with pytest.raises(ConfigError, match=f"did you mean '{small_run.folder}'"):
        open_run(above)


def test_the_place_of_a_mistake_is_printed_below_its_line(small_run: RunMaker) -> None:
    ended = run_query(small_run, "SELECT label,\n  bogus\nFROM images")
    lines = ended.stderr.splitlines()
    place = lines.index("LINE 2:   bogus")
    assert lines[place + 1] == " " * lines[place].index("bogus") + "^" * len("bogus")


def test_csv_goes_to_stdout(small_run: RunMaker) -> None:
    ended = run_query(small_run, "SELECT method, images FROM leaderboard", "--csv")
    assert (ended.exit_code, ended.stdout) == (0, "method,images\ngradcam,4\nscorecam,3\n")


def test_json_is_one_object_per_row(small_run: RunMaker) -> None:
    ended = run_query(small_run, "SELECT method, images FROM leaderboard", "--json")
    assert ended.stdout == '{"method": "gradcam", "images": 4}\n{"method": "scorecam", "images": 3}\n'


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_answer_can_be_written_to_a_file(small_run: RunMaker, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answer{suffix}"
    ended = run_query(small_run, "SELECT method, images FROM leaderboard", "--out", str(path))
    assert (ended.exit_code, ended.stdout) == (0, f"{path}\n")
    readers = {
        ".csv": lambda: path.read_text(encoding="utf-8"),
        ".json": lambda: path.read_text(encoding="utf-8").count('{"method": '),
        ".parquet": lambda: pq.read_table(path).to_pylist(),
    }
    assert (
        readers[suffix]()
        == {
            ".csv": "method,images\ngradcam,4\nscorecam,3\n",
            ".json": 2,
            ".parquet": [{"method": "gradcam", "images": 4}, {"method": "scorecam", "images": 3}],
        }[suffix]
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["SELEC 1"], 2, "SQL: "),
        (["COPY images TO 'owned.csv'"], 2, "the query must be exactly one SELECT"),
        (["SELECT 1", "--out", "answer.xls"], 2, "--out: 'answer.xls' has an unknown suffix"),
        (["SELECT 1", "--out", "/nowhere/answer.csv"], 2, "--out: cannot write '/nowhere/answer.csv'"),
        (["SELECT 1", "--out", "/nowhere/answer.parquet"], 2, "--out: cannot write '/nowhere/answer.parquet'"),
    ],
)
def test_usage_errors_are_printed_on_stderr(
    small_run: RunMaker, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str
) -> None:
    monkeypatch.chdir(small_run.folder.parent)
    ended = run_query(small_run, *arguments)
    assert (ended.exit_code, ended.stdout) == (code, "")
    assert words in ended.stderr
    assert not (small_run.folder.parent / "owned.csv").exists()


def test_a_damaged_run_ends_with_4(small_run: RunMaker) -> None:
    (small_run.folder / "part-00001-000.parquet").write_bytes(b"")
    assert run_query(small_run, "SELECT * FROM images").exit_code == 4


def test_a_folder_that_is_no_run_ends_with_2(maker: RunMaker) -> None:
    ended = run_query(maker)
    assert ended.exit_code == 2
    assert "is not a run folder" in ended.stderr


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
@pytest.mark.parametrize("rest", ["1+1", "", "cmd|' /C calc'!A0"])
def test_no_text_becomes_a_formula_in_a_spreadsheet(first: str, rest: str) -> None:
    text = f"{first}{rest}"
    assert written_csv(pa.table({"key": [text], text: [1]})) == [["key", f"'{text}"], [f"'{text}", "1"]]


@pytest.mark.parametrize("line_end", ["\r", "\n", "\r\n"])
def test_a_text_with_line_ends_stays_in_its_cell(line_end: str) -> None:
    """Otherwise the rest of the text would start a line, where it could be a formula again."""
    text = f"a{line_end}=1+1"
    assert written_csv(pa.table({"key": [text], "n": [1]})) == [["key", "n"], [text, "1"]]


def test_numbers_and_harmless_texts_are_unchanged_in_csv() -> None:
    table = pa.table({"number": [-1.5], "text": ["a=b"], "quote": ['"'], "comma": ["a,b"], "none": pa.nulls(1)})
    assert written_csv(table)[1] == ["-1.5", "a=b", '"', "a,b", ""]


@pytest.mark.parametrize("text", ["a\0b", "\u202e", "zwölf\n", '"', "</script>"])
def test_json_keeps_every_text(text: str) -> None:
    assert written_json(pa.table({"key": [text]})) == [{"key": text}]


def test_json_is_valid_for_every_type_that_sql_gives(small_run: RunMaker) -> None:
    ended = run_query(small_run, ONE_OF_EACH, "--json")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == {
        "word": "text",
        "whole": 7,
        "exact": 1.5,
        "total": 7,
        "part": 0.1,
        "nothing": None,
        "yes": True,
        "bytes": "00ff",
        "day": "2024-02-03",
        "hour": "01:02:03",
        "moment": "2024-02-03 01:02:03",
        "list": [1.5, None],
        "record": {"a": "01", "b": 2},
        "map": [["k", 3]],
        "none": None,
        "least": None,
        "id": True,
    }


@pytest.mark.parametrize("form", ["--csv", "--json", ""])
def test_every_type_can_be_printed(small_run: RunMaker, form: str) -> None:
    ended = run_query(small_run, ONE_OF_EACH, *([form] if form else []))
    assert ended.exit_code == 0
    assert "00ff" in ended.stdout


def test_columns_that_share_a_name_are_all_written() -> None:
    table = pa.Table.from_arrays([pa.array([number]) for number in range(4)], ["a", "a", "a_1", "a"])
    assert _distinct(table).column_names == ["a", "a_1", "a_1_1", "a_2"]
    assert written_csv(_distinct(table))[1] == ["0", "1", "2", "3"]
    assert written_json(_distinct(table)) == [{"a": 0, "a_1": 1, "a_1_1": 2, "a_2": 3}]


def test_a_query_keeps_columns_that_share_a_name(small_run: RunMaker) -> None:
    ended = run_query(small_run, "SELECT 1 AS a, 2 AS a", "--json")
    assert json.loads(ended.stdout) == {"a": 1, "a_1": 2}


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\x08", "\r", "\n", "\x9b", "\u202e", "\u200b", "\0"])
def test_no_text_controls_the_terminal(char: str, capsys: pytest.CaptureFixture[str]) -> None:
    _to_terminal(pa.table({"key": [f"a{char}[2Jb"]}))
    printed = capsys.readouterr().out
    assert char not in printed.replace("\n", "", 2).rstrip("\n") or char == "\n"
    assert f"a{ascii(char)[1:-1]}[2Jb" in printed


def test_brackets_are_no_markup_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    _to_terminal(pa.table({"[red]key": ["[bold]x[/bold] :smile:"]}))
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == ["[red]key", "[bold]x[/bold] :smile:"]


def test_long_texts_are_cut_on_the_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"key": ["x" * 80, "y" * 81]})
    _to_terminal(table)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == ["key", "x" * 80, "y" * 77 + "..."]
    assert written_csv(table)[2] == ["y" * 81]
