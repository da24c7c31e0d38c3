"""camatlas demo: run the whole pipeline on bundled data, offline: shards, explain, verify, sanity, audit."""

import time
from pathlib import Path
from typing import Annotated

import typer

from jobs.support.console import EXIT_NOT_VERIFIED, command, err, leave_after, out
from jobs.support.progress import duration
from pipeline.errors import ConfigError


@command
def demo(
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="folder for the data and the run")] = "demo",
) -> int:
    """Explain, verify and audit bundled data, offline; print the path of the report."""
    from jobs.audit import write_report
    from jobs.explain import run
    from jobs.verify import report_findings
    from pipeline.audit.sanity import check_sanity
    from pipeline.demo.data import write_demo
    from pipeline.results.query import open_run
    from pipeline.results.verify import verify
    from pipeline.settings.run_file import load_config
    from pipeline.storage.store import open_store

    began = time.monotonic()
    base = Path(folder)
    if base.exists() and not base.is_dir():
        raise ConfigError.one("DIR", f"'{folder}' is not a folder", "choose another")
    err.say(f"1/5 drawing images into {folder}/shards")
    config = load_config(str(write_demo(base)))
    err.say("2/5 explaining them with five methods (camatlas explain)")
    run(config)
    err.say("3/5 checking every row (camatlas verify)")
    findings = verify(open_store(config.output.path))
    err.say(report_findings(findings))
    err.say("4/5 testing whether the maps depend on the model (camatlas sanity)")
    with open_run(config.output.path) as opened:
        check_sanity(opened, images=16, steps=2)
    err.say("5/5 writing the report (camatlas audit)")
    report = write_report(config.output.path, base)
    err.say(
        f"done in {duration(time.monotonic() - began)}. Open the report: among its findings is the watermark planted"
    )
    err.say("in the lower left corner of images of the class 'star'. To explore the run:")
    err.say(f"  camatlas query {config.output.path}")
    err.say(f"  camatlas show {config.output.path} scene_00003")
    out.say(str(Path(report).resolve()))
    return EXIT_NOT_VERIFIED if findings.problems else 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(demo))
