"""camatlas audit: one HTML report on a run, and its numbers as JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import command, err, out
from pipeline.errors import ConfigError


@command
def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    output: Annotated[str | None, typer.Option("--out", help="folder for report.html; by default RUN/_audit")] = None,
) -> int:
    """Write report.html and audit.json; prints the path of the report."""
    if output is None and "://" in run:
        raise ConfigError.one("--out", f"the report on '{run}' is written to a local folder", "name one")
    out.say(write_report(run, Path(output or f"{run}/_audit")))
    return 0


def write_report(run: str, folder: Path) -> str:
    """Collect the facts of a run, render the page, write both; gives the path of the page."""
    from pipeline.audit.facts import collect
    from pipeline.audit.page import render
    from pipeline.originals import originals
    from pipeline.query import open_run

    with open_run(run) as opened:
        facts = collect(opened)
        wanted = [(image["shard"], image["image_key"]) for group in facts["gallery"] for image in group["images"]]
        pictures = dict(originals(opened.manifest, wanted))
    if len(pictures) < len(set(wanted)):
        err.say("some originals are not where the run found them; the gallery shows their maps alone")
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page.write_text(render(facts, pictures), encoding="utf-8")
        (folder / "audit.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise ConfigError.one("--out", f"cannot write to '{folder}': {error.strerror or error}") from None
    return str(page)


if __name__ == "__main__":
    typer.run(audit)
