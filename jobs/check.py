"""camatlas check: judge a run by thresholds, for continuous integration."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.methods import print_rows
from jobs.support.console import EXIT_CHECK_FAILED, command, err, leave_after, out, printable
from jobs.support.signals import interruptible
from pipeline.errors import ConfigError, Mistake

if TYPE_CHECKING:
    from pipeline.audit.checks.file import Check
    from pipeline.audit.checks.judging import Verdict
    from pipeline.audit.checks.measuring import Measured
    from pipeline.results.query import Run

_WITH_MODEL = "camatlas check RUN CHECKS --model"


@command
def check(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    checks: Annotated[Path, typer.Argument(metavar="CHECKS", help="a YAML file of checks")],
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="also write JUnit XML, for the list of tests")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="also write Markdown, for the summary of a job")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    model: Annotated[
        bool, typer.Option("--model", help="count findings with the model, which is run on changed images")
    ] = False,
) -> int:
    """Judge a run by thresholds (accuracy >= 0.7, insertion(gradcam) >= 0.3, SQL); exit with code 6 if one fails."""
    from pipeline.audit.checks.file import read_checks
    from pipeline.audit.checks.judging import failed, judge
    from pipeline.results.query import open_run

    _check_outputs({"--junit": junit, "--markdown": markdown}, checks)
    with open_run(run) as opened, interruptible(opened.interrupt):
        read = read_checks(checks, opened)
        _needs_all(read)
        notes = _notes(opened)
        verdicts = judge(opened, read, lambda: _findings(opened, ask_model=model))
    _write(verdicts, opened, notes, junit, markdown)
    _print(verdicts, opened, notes, as_json=as_json)
    return EXIT_CHECK_FAILED if failed(verdicts) else 0


def _check_outputs(files: dict[str, Path | None], checks: Path) -> None:
    """Refuse to write over the file of checks, or into a folder that is not there."""
    mistakes = []
    for option, path in files.items():
        if path is not None and path.exists() and path.samefile(checks):
            mistakes.append(Mistake(option, f"'{path}' is the file of checks"))
        elif path is not None and not path.parent.is_dir():
            mistakes.append(Mistake(option, f"'{path.parent}' is not a folder"))
    if mistakes:
        raise ConfigError(mistakes)


def _needs_all(checks: list["Check"]) -> None:
    """Import what counts findings before anything is measured; it is not there on machines for queries alone."""
    if not any(one.quantity is not None and one.quantity.name == "findings" for one in checks):
        return
    try:
        import pipeline.audit.facts  # noqa: F401 - it needs torch, scipy and scikit-learn
    except ModuleNotFoundError as error:
        hint = "pip install camatlas, or leave out this check"
        raise ConfigError.one("findings", f"counting them needs {error.name}, which is not installed", hint) from None


def _findings(run: "Run", *, ask_model: bool) -> "Measured":
    """Count the findings of the report, and name them and what was not checked; none without an explained image."""
    from pipeline.audit.checked import Unasked
    from pipeline.audit.checks.measuring import Measured
    from pipeline.audit.facts import audit

    if not run.arrow("SELECT 1 FROM explanations LIMIT 1").num_rows:
        return Measured(None, problem="no image was explained")
    audited = audit(run, ask_model=ask_model, unasked=Unasked("the model was not run on changed images", _WITH_MODEL))
    facts = audited.facts
    found = [str(finding["sentence"]) for finding in facts["findings"]] + list(facts["more_findings"])
    without = [] if ask_model else ["without --model, the model was not run on changed images"]
    unchecked = [f"not checked: {sentence}" for sentence in facts["unchecked"]]
    if audited.suspicions:
        known = f"{len(found)} found, and the others are not known without the model"
        return Measured(None, problem="; ".join([known, *audited.suspicions, *found]))
    undecided = [f"undecided: {line['name']}" for line in facts["checked"] if line["verdict"] == "undecided"]
    return Measured(float(len(found)), notes=(*found, *without, *undecided, *unchecked))


def _notes(run: "Run") -> list[str]:
    """Say that a run is not complete."""
    from pipeline.results.status import status

    state = status(run.store, time.time())
    if state.state == "complete" or state.unseen_ends:
        return []
    done = f"{len(state.finished)} of {len(run.manifest.identity.shards)} shards are finished"
    return [f"the run is not complete ({done}): the checks judge what is there"]


def _write(verdicts: list["Verdict"], run: "Run", notes: list[str], junit: Path | None, markdown: Path | None) -> None:
    from pipeline.audit.checks import written

    outputs: list[tuple[Path | None, bytes]] = [
        (junit, written.junit(verdicts, f"camatlas check {run.store.url}")),
        (markdown, written.markdown(verdicts, _head(run), notes).encode("utf-8", "backslashreplace")),
    ]
    for path, text in outputs:
        if path is not None:
            try:
                path.write_bytes(text)
            except OSError as error:
                raise ConfigError.one("--junit, --markdown", f"cannot write '{path}': {error.strerror}") from None


def _print(verdicts: list["Verdict"], run: "Run", notes: list[str], *, as_json: bool) -> None:
    from pipeline.audit.checks import written
    from pipeline.audit.checks.judging import summary

    if as_json:
        out.say(json.dumps(written.to_json(verdicts, run.manifest.run_id, notes), ensure_ascii=True, allow_nan=False))
        return
    for note in notes:
        err.say(f"note: {note}")
    print_rows([{name: printable(text) for name, text in row.items()} for row in written.table_rows(verdicts)])
    for line in written.explained(verdicts):
        out.say(line)
    out.say(summary(verdicts))


def _head(run: "Run") -> str:
    return f"Run {run.manifest.run_id} of {run.manifest.identity.model.get('name', '')}: {run.store.url}"


if __name__ == "__main__":
    leave_after(lambda: typer.run(check))
