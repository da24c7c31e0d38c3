"""The report says which metrics can carry a conclusion, and follows the record that it is given."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from handmade import RunMaker
from records import judged, record, record_fields, written
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.judge.table import metrics_page
from pipeline.metrics import METRICS
from pipeline.results.catalogue import metric_page
from pipeline.results.query import open_run
from schemas.judged import JudgedRecord
from schemas.manifest import RunIdentity

BOXES = {"params": {"tolerance": 15}, "needs": "boxes", "better": "higher"}


@dataclass(frozen=True)
class Renamed(RunMaker):
    """A run with `average_drop` under another name and with another mask."""

    metrics: Any = ("drop_of_top",)

    @property
    def identity(self) -> RunIdentity:
        own = super().identity
        changed = own.metrics["drop_of_top"] | {"mask": "top"}
        return own.model_copy(update={"metrics": {"drop_of_top": changed}})


def report(maker: RunMaker, known: JudgedRecord) -> tuple[dict[str, Any], str]:
    folder = maker.folder if maker.folder.exists() else maker.complete().folder
    with open_run(folder) as run:
        found = audit(run, ask_model=False, judged=known)
    return found.facts, render(found.facts, found.pictures)


def test_the_head_names_the_metrics_that_carry_and_those_that_do_not(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "run", metrics=("average_drop", "pointing_game", "deletion", "road", "sparsity"))
    blur = {"blur": {"rewarded": 0.9, "gain": 1.0}, "dilation": {"rewarded": 0.7, "gain": 1.0}}
    known = record(
        average_drop=judged(),
        pointing_game=judged(free_gains=blur, **BOXES),
        deletion=judged(mass=0.0, params={"steps": 20, "fill": "mean", "score": "probability"}),
        sparsity=judged(better="neither"),
    )
    facts, page = report(maker, known)
    sentence = (
        "Judged on 400 drawn scenes with exact truth, average_drop and pointing_game (though it prefers blurred and "
        "dilated maps) can carry a conclusion about methods; deletion (at chance level) cannot; nothing is known of "
        "road (not judged)."
    )
    assert facts["reliability"]["sentence"] == sentence
    assert sentence in page
    assert page.index(sentence) < page.index('id="unchecked"')
    described = facts["reliability"]["metrics"]
    assert [label for label, one in described.items() if one["carries"]] == ["average_drop", "pointing_game"]
    assert described["pointing_game"]["marks"] == ["prefers blurred and dilated maps (90 %, 70 % of scenes)"]
    assert not described["sparsity"]["ranks"]


def test_the_leaderboard_marks_each_metric_and_doubts_a_best_without_ground(tmp_path: Path) -> None:
    known = record(average_drop=judged(), pointing_game=judged(rank=0.0, **BOXES))
    facts, page = report(RunMaker(tmp_path / "run"), known)
    assert facts["reliability"]["doubtful_bests"] == [
        {"target_rule": "predicted", "metric": "pointing_game", "method": "scorecam",
         "why": "orders methods at chance level (by rank)"}
    ]  # fmt: skip
    board = page[page.index("<tbody>", page.index('id="leaderboard"')) :]
    assert board.index("★") < board.index("☆") < board.index("</tbody>")
    marks = page[page.index('<tr class="marks">') :]
    marks = marks[: marks.index("</tr>")]
    assert 'title="orders 75 % (mass) and 70 % (rank) of the pairs of methods as the truth does; can carry' in marks
    assert '<span class="good">yes</span></a>' in marks
    assert ">no: at chance level</a>" in marks
    for place in (1, 2):
        assert f'href="#metric-{place}"' in marks
        assert f'<p id="metric-{place}">' in page


def test_a_board_of_good_metrics_has_no_hollow_star(tmp_path: Path) -> None:
    facts, page = report(RunMaker(tmp_path / "run", metrics=("average_drop",)), record(average_drop=judged()))
    assert facts["reliability"]["doubtful_bests"] == []
    assert "☆" not in page


def test_another_name_is_followed_and_other_parameters_are_named(tmp_path: Path) -> None:
    facts, page = report(RunMaker(tmp_path / "same", metrics=("drop",)), record(average_drop=judged()))
    assert facts["reliability"]["metrics"]["drop"]["carries"]
    facts, page = report(Renamed(tmp_path / "other"), record(average_drop=judged()))
    known = facts["reliability"]["metrics"]["drop_of_top"]
    assert known["line"] == "judged with other parameters: mask soft, here top"
    assert not known["carries"]
    assert "no metric of this run is known to carry a conclusion about methods: drop_of_top (judged with" in page


@pytest.mark.parametrize("metrics", [(), ("sparsity",)])
def test_a_run_that_ranks_nothing_has_no_sentence(tmp_path: Path, metrics: tuple[str, ...]) -> None:
    facts, page = report(RunMaker(tmp_path / "run", metrics=metrics), record())
    assert facts["reliability"]["sentence"] == ""
    assert 'id="believed"' not in page


def test_report_page_and_document_follow_the_record(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "run", metrics=("average_drop",))
    for mass, verdict in ((0.5, "; can carry a conclusion"), (0.0, "; cannot carry a conclusion")):
        known = record(average_drop=judged(mass=mass))
        assert verdict in report(maker, known)[1]
        assert verdict in metric_page(METRICS["average_drop"], known)
        assert verdict in metrics_page(known)


def test_the_command_takes_a_record_and_refuses_a_damaged_one(tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run", metrics=("average_drop",)).complete().folder
    file = tmp_path / "judged.json"
    words = ["audit", str(run), "--no-model", "--judged", str(file)]
    written(file, record_fields(average_drop=judged(mass=0.0)) | {"seed": 7})
    assert CliRunner().invoke(app, words).exit_code == 0
    reliability = json.loads((run / "_audit" / "audit.json").read_text())["reliability"]
    assert reliability["record"] == {"seed": 7, "scenes": 400, "versions": {"camatlas": "0.1.0"}}
    assert not reliability["metrics"]["average_drop"]["carries"]
    assert "☆" in (run / "_audit" / "report.html").read_text()
    file.write_text("{}")
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "is not a record of `camatlas judge`" in refused.output


def test_two_runs_can_still_be_compared(tmp_path: Path) -> None:
    one, other = RunMaker(tmp_path / "one").complete(), replace(RunMaker(tmp_path / "other"), seed=1).complete()
    words = ["audit", str(one.folder), "--no-model", "--compare", str(other.folder)]
    assert CliRunner().invoke(app, words).exit_code == 0
    facts = json.loads((one.folder / "_audit" / "audit.json").read_text())
    assert facts["compare"]["run"]["id"] == other.manifest.run_id
