"""camatlas verify: check that a run is complete, consistent and undamaged."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.support.console import EXIT_NOT_VERIFIED, command, counted, err, leave_after, out
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.results.verify import Findings
    from pipeline.settings.run_file import RunConfig
    from pipeline.storage.base import Store


@command
def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    repair: Annotated[
        bool, typer.Option("--repair", help="delete damaged parts and explain their images again")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> int:
    """Check that each row is there exactly once and undamaged; exit with code 4 if there is a problem."""
    from pipeline.results.verify import verify as check
    from pipeline.storage.store import open_store

    store = open_store(run)
    findings = check(store)
    if repair and findings.problems:
        _repair(store, findings)
        findings = check(store)
    out.say(json.dumps(vars(findings)) if as_json else report_findings(findings))
    return EXIT_NOT_VERIFIED if findings.problems else 0


def _repair(store: "Store", findings: "Findings") -> None:
    """Delete damaged parts and explain their chunks again; drop a merged copy that is or becomes invalid.

    Nothing is deleted unless the run described by the manifest can still be executed.
    """
    from jobs.explain import run
    from pipeline.storage.compaction import drop
    from pipeline.storage.parts import forget_strays
    from pipeline.storage.run_folder import PartName

    for problem in findings.problems:
        err.say(f"problem: {problem}")
    config = _runnable(store) if len(findings.problems) > len(findings.merged) else None
    if findings.merged or any(map(PartName.parse, findings.damaged)):
        drop(store)
    for name in findings.damaged:
        store.delete(name)
    if config:
        run(config)
        forget_strays(store)


def _runnable(store: "Store") -> "RunConfig":
    """Return the run file stored in the manifest; raises ConfigError when its data, model or output is missing."""
    from pipeline.run.paths import absolute
    from pipeline.run.preflight import prepare
    from pipeline.settings.run_file import parse_config
    from pipeline.storage.run_folder import read_manifest

    fields = read_manifest(store).config
    config, mistakes = parse_config({**fields, "output": {**fields["output"], "path": store.url}})
    if mistakes:
        raise ConfigError(mistakes)
    prepare(absolute(config))
    return config


def report_findings(findings: "Findings") -> str:
    """Print the label account, notes and problems on stderr; return a one-line summary."""
    for line in findings.account:
        err.say(line)
    for note in findings.notes:
        err.say(f"note: {note}")
    for problem in findings.problems:
        err.say(f"problem: {problem}")
    if findings.damaged:
        err.say("to repair: `camatlas verify RUN --repair` deletes damaged parts and explains their images again")
    counts = f"{counted(findings.images, 'image')} = {findings.explained} explained + {findings.failed} failed"
    size = f"{counted(findings.rows, 'row')} in {counted(findings.parts, 'part')}, {findings.bytes:,} bytes"
    return f"{'NOT VERIFIED' if findings.problems else 'verified'}: {counts}; {size}"


if __name__ == "__main__":
    leave_after(lambda: typer.run(verify))
