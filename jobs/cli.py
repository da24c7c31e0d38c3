"""The command line `camatlas`; each verb has a file of its name in this package."""

from typing import NoReturn

import typer

from jobs import (
    agreement,
    audit,
    bench,
    compact,
    demo,
    doctor,
    explain,
    export,
    judge,
    methods,
    metrics,
    pack,
    plan,
    query,
    rank,
    sanity,
    show,
    status,
    truth,
    verify,
    view,
)
from jobs.support.console import leave_after

app = typer.Typer(
    name="camatlas",
    help="Explain a whole image dataset: every CAM method from one forward pass, each map stored once in Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    demo.demo,
    plan.plan,
    explain.explain,
    status.status,
    verify.verify,
    compact.compact,
    query.query,
    show.show,
    view.view,
    agreement.agreement,
    rank.rank,
    sanity.sanity,
    audit.audit,
    export.export,
    pack.pack,
    methods.methods,
    metrics.metrics,
    judge.judge,
    bench.bench,
    doctor.doctor,
):
    app.command()(verb)
app.add_typer(truth.app, name="truth")


def main() -> NoReturn:
    """Run the command line."""
    leave_after(app)


if __name__ == "__main__":
    main()
