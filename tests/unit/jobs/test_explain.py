"""The result of camatlas explain: failure rate and exit code."""

from pathlib import Path

import pytest
import typer
from handmade import RunMaker
from typer.testing import CliRunner

from jobs import explain
from jobs.explain import Ended
from pipeline.results.run_totals import Totals
from pipeline.results.summary import totals

app = typer.Typer()
app.command()(explain.explain)


@pytest.mark.parametrize(
    ("images", "with_failures", "damages", "rate"),
    [(0, 0, 0, 0), (100, 1, 0, 0.01), (0, 2, 2, 1), (2, 4, 2, 1), (98, 2, 2, 0.02)],
)
def test_the_failure_rate_is_at_most_1(images: int, with_failures: int, damages: int, rate: float) -> None:
    ended = Totals(images, images, images, with_failures, damages, {})
    assert ended.failure_rate == rate


def test_too_many_failures_are_counted_in_the_message(
    small_run: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text("data: {}\n")
    monkeypatch.setattr(explain, "load_config", lambda *args: None)
    monkeypatch.setattr(explain, "run", lambda *args, **kinds: Ended(path="run", **vars(totals(small_run.store))))
    ended = CliRunner().invoke(app, [str(run_file)])
    assert ended.exit_code == 3
    message = "too many failures: 50.00 % (2 of 5 images, and 1 damaged place in shards); --max-failure-rate allows 1 %"
    assert message in ended.stderr
    assert CliRunner().invoke(app, [str(run_file), "--max-failure-rate", "0.5"]).exit_code == 0
