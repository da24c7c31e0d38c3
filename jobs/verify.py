"""camatlas verify: does a run hold exactly what it promises?"""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import EXIT_NOT_VERIFIED, command, err, out

if TYPE_CHECKING:
    from pipeline.verify import Findings


@command
def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> int:
    """Check hashes, schema, keys, counts and coverage; exit code 4 when anything is off."""
    from pipeline.store import open_store
    from pipeline.verify import verify as check

    findings = check(open_store(run))
    out.say(json.dumps(vars(findings)) if as_json else told(findings))
    return EXIT_NOT_VERIFIED if findings.problems else 0


def told(findings: "Findings") -> str:
    """Print notes and problems on stderr; gives the sentence that sums them up."""
    for note in findings.notes:
        err.say(f"note: {note}")
    for problem in findings.problems:
        err.say(f"problem: {problem}")
    counted = f"{findings.images} images = {findings.explained} explained + {findings.failed} failed"
    size = f"{findings.rows} rows in {findings.parts} parts, {findings.bytes} bytes"
    return f"{'NOT VERIFIED' if findings.problems else 'verified'}: {counted}; {size}"


if __name__ == "__main__":
    typer.run(verify)
