"""camatlas: one command, one verb per file of this package."""

import typer

from jobs import audit, bench, demo, doctor, explain, methods, metrics, pack, query, show, verify

app = typer.Typer(
    name="camatlas",
    help="Explain a whole image dataset: every CAM method, one forward pass, exactly-once Parquet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    demo.demo,
    explain.explain,
    verify.verify,
    query.query,
    show.show,
    audit.audit,
    pack.pack,
    methods.methods,
    metrics.metrics,
    bench.bench,
    doctor.doctor,
):
    app.command()(verb)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
