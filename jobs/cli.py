"""The command line `camatlas`; each verb has a file of its name in this package."""

import shlex
from typing import Annotated, NoReturn

import typer

from jobs import (
    agreement,
    audit,
    bench,
    check,
    compact,
    demo,
    doctor,
    explain,
    export,
    init,
    judge,
    methods,
    metrics,
    pack,
    plan,
    query,
    rank,
    sanity,
    schema,
    show,
    status,
    truth,
    verify,
    view,
)
from jobs.support.console import leave_after
from jobs.support.verbs import DATA, JUDGE, LOOK, REFERENCE, RUN, START, Options, Verb, print_version
from pipeline.settings.run_file import load_config

app = typer.Typer(
    name="camatlas",
    help="Explain a whole image dataset: every CAM method from one forward pass, each map stored once in Parquet.",
    epilog="A first run: camatlas init FOLDER, camatlas plan run.yaml, camatlas explain run.yaml. Each verb has "
    "its own --help with an example.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _run_of(options: Options) -> str:
    """Return the quoted run folder of a run file."""
    config = load_config(options["config"], explain.with_options(options["settings"], output=options["output"]))
    return shlex.quote(config.output.path)


def _after_init(options: Options) -> str:
    return f"camatlas plan {shlex.quote(options['output'])}"


def _after_explain(options: Options) -> str:
    return f"camatlas verify {_run_of(options)}"


VERBS = (
    Verb(demo.demo, START, "camatlas demo", "camatlas init FOLDER, for a folder of your own images"),
    Verb(init.init, START, "camatlas init my_images --model torchvision/resnet50", _after_init),
    Verb(plan.plan, START, "camatlas plan run.yaml --price 2", "camatlas explain {config}"),
    Verb(doctor.doctor, START, "camatlas doctor my_run"),
    Verb(explain.explain, RUN, "camatlas explain run.yaml --limit 100", _after_explain),
    Verb(status.status, RUN, "camatlas status my_run"),
    Verb(verify.verify, RUN, "camatlas verify my_run", "camatlas query {run}"),
    Verb(compact.compact, RUN, "camatlas compact my_run", "camatlas query {run}"),
    Verb(query.query, LOOK, "camatlas query my_run 'SELECT method, count(*) FROM explanations GROUP BY 1'",
         "camatlas audit {run}"),
    Verb(show.show, LOOK, "camatlas show my_run cat.jpg", "camatlas audit {run}"),
    Verb(view.view, LOOK, "camatlas view my_run my_other_run"),
    Verb(audit.audit, LOOK, "camatlas audit my_run --compare my_other_run"),
    Verb(export.export, LOOK, "camatlas export my_run my_export --to hf"),
    Verb(sanity.sanity, JUDGE, "camatlas sanity my_run", "camatlas audit {run}"),
    Verb(agreement.agreement, JUDGE, "camatlas agreement my_run", "camatlas audit {run}"),
    Verb(rank.rank, JUDGE, "camatlas rank my_run my_other_run"),
    Verb(judge.judge, JUDGE, "camatlas judge judge", "camatlas audit RUN --judged judge/judge.json"),
    Verb(check.check, JUDGE, "camatlas check my_run checks.yaml --junit checks.xml"),
    Verb(bench.bench, JUDGE, "camatlas bench --against captum"),
    Verb(pack.pack, DATA, "camatlas pack my_images shards", "camatlas init {dest}"),
    Verb(methods.methods, REFERENCE, "camatlas methods gradcam"),
    Verb(metrics.metrics, REFERENCE, "camatlas metrics insertion"),
    Verb(schema.schema, REFERENCE, "camatlas schema --out run.schema.json"),
)  # fmt: skip
"""Every verb, in the order of the help; a new one is one line."""

for verb in VERBS:
    verb.add_to(app)
app.add_typer(truth.app, name="truth", rich_help_panel=DATA)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="print versions, and exit")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


def main() -> NoReturn:
    """Run the command line."""
    leave_after(app)


if __name__ == "__main__":
    main()
