"""camatlas: one command, one verb per file of this package."""

import contextlib
import os
import sys
from typing import NoReturn

import typer

from jobs import (
    agreement,
    audit,
    bench,
    demo,
    doctor,
    explain,
    export,
    methods,
    metrics,
    pack,
    plan,
    query,
    sanity,
    show,
    verify,
)

app = typer.Typer(
    name="camatlas",
    help="Explain a whole image dataset: every CAM method, one forward pass, exactly-once Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    demo.demo,
    plan.plan,
    explain.explain,
    verify.verify,
    query.query,
    show.show,
    agreement.agreement,
    sanity.sanity,
    audit.audit,
    export.export,
    pack.pack,
    methods.methods,
    metrics.metrics,
    bench.bench,
    doctor.doctor,
):
    app.command()(verb)


def main() -> NoReturn:
    """Run the command line, and leave at once when it is done.

    The verbs close what they open. Python's own way out would also take down the thread pools of native libraries,
    which now and then abort a command that has done its work ("terminate called without an active exception").
    """
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
