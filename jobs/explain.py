"""camatlas explain: explain the images of a run file; the same command resumes an interrupted run."""

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.support.account import emit_account, print_account
from jobs.support.console import (
    EXIT_TOO_MANY_FAILURES,
    capture_native_stderr,
    command,
    counted,
    err,
    leave_after,
    out,
)
from jobs.support.deadline import MARGIN_SECONDS, STARTING_SECONDS, STOPPING_SECONDS, Deadline
from jobs.support.ending import Ended, print_totals, warn_of_constant_maps
from jobs.support.mistakes import Telling
from jobs.support.progress import Reporter, Tally, emit
from jobs.support.signals import TerminatedError, terminated_by_signal
from jobs.support.starting import import_torch_early, ray_started_early, set_environment
from jobs.support.watch import Watch
from pipeline.errors import Mistakes
from pipeline.settings.names import unknown_names
from pipeline.settings.run_file import RunConfig, load_config

if TYPE_CHECKING:
    from pipeline.run.preflight import PreparedRun
    from pipeline.storage.base import Store
    from pipeline.storage.parts import Progress
    from pipeline.telemetry.bottleneck import StageTimes


@command
def explain(
    config: Annotated[str, typer.Argument(help="the run file (YAML)")],
    output: Annotated[str | None, typer.Option("--out", help="run folder (overrides output.path)")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="explain the first N images only")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="number of workers, each with its own model")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key of the run file")
    ] = None,
    max_failure_rate: Annotated[
        float, typer.Option(min=0, max=1, help="exit with code 3 if a larger share of the images fails")
    ] = 0.01,
    json_events: Annotated[bool, typer.Option("--json", help="print events and the result as JSON")] = False,
) -> int:
    """Explain the images of a run file; run the same command again to resume."""
    mistakes = Mistakes()
    telling = Telling(mistakes)
    loaded = load_config(config, with_options(settings, output=output, limit=limit, workers=workers), mistakes)
    with telling.the_rest():
        ended = run(loaded, mistakes, json_events=json_events, tell=telling.tell)
    too_many = ended.failure_rate > max_failure_rate
    if json_events:
        out.say(json.dumps(ended.to_json()))
    else:
        out.say(ended.path)
    if too_many:
        damages = counted(ended.damages, "damaged place")
        message = (
            f"too many failures: {100 * ended.failure_rate:.2f} % ({ended.with_failures - ended.damages} of "
            f"{counted(ended.images, 'image')}, and {damages} in shards); --max-failure-rate allows "
            f"{100 * max_failure_rate:g} %"
        )
        if json_events:
            emit("warning", kind="too_many_failures", message=message)
        else:
            err.say(message)
    return EXIT_TOO_MANY_FAILURES if too_many else 0


def with_options(
    settings: list[str] | None, *, output: str | None = None, limit: int | None = None, workers: int | None = None
) -> list[str]:
    """Add the options that set a key of the run file to the `KEY=VALUE` settings."""
    options = {"output.path": output, "data.limit": limit, "compute.workers": workers}
    return [*(settings or []), *(f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None)]


def run(
    config: RunConfig,
    mistakes: Mistakes | None = None,
    *,
    json_events: bool = False,
    tell: Callable[[], None] = lambda: None,
) -> Ended:
    """Prepare a run, explain the chunks that are missing, and report the outcome on stderr.

    Args:
        config: the run file.
        mistakes: the mistakes found earlier, to which those of the run are added.
        json_events: whether to report events, not text.
        tell: prints the mistakes found so far; called before torch is needed.

    Raises:
        ConfigError: every mistake in the run file and in what it names.
    """
    found = mistakes or Mistakes()
    found.found.extend(unknown_names(config.explain))
    tell()
    if not found.found:
        _say_starting(json_events=json_events)
    set_environment(config)
    import_torch_early(config)
    from pipeline.run.paths import absolute
    from pipeline.run.survey import survey  # importing pyarrow takes a moment, and --help should not

    config = absolute(config)
    surveyed = survey(config, found)
    tell()
    with ExitStack() as stack:
        if not found.found:
            stack.enter_context(ray_started_early(config))
        from pipeline.run.preflight import prepare  # importing torch takes seconds

        prepared = prepare(config, found, surveyed)
        tally, stage_times = _explain_pending(prepared, json_events=json_events)
    ended = replace(_ended(prepared.store), session=stage_times)
    if not json_events:
        print_totals(ended, tally)
    warn_of_constant_maps(ended, prepared.manifest, json_events=json_events)
    return ended


def _say_starting(*, json_events: bool) -> None:
    """Show within the first second that something happens."""
    if json_events:
        emit("starting")
    else:
        err.say("starting: the run file is checked, and torch and Ray are loaded")


def _explain_pending(prepared: "PreparedRun", *, json_events: bool) -> "tuple[Tally, StageTimes | None]":
    """Take ownership of the run folder and explain what is missing there; return the counts and the stage times."""
    from pipeline.storage import parts
    from pipeline.storage.ownership import take_ownership
    from pipeline.storage.run_folder import read_manifest

    new = take_ownership(prepared.store, prepared.manifest)
    _warn_of_about(prepared, new=new, json_events=json_events)
    has_grown = bool(read_manifest(prepared.store).grown_from)
    progress = parts.progress(prepared.store)
    tally = Tally(prepared.images_left(progress), prepared.bytes_left(progress))
    done = sum(map(len, progress.done.values()))
    start = SessionStart(prepared, new, done, tally.total_images, has_grown)
    start.report(json_events=json_events)
    if not prepared.pending(progress):
        return tally, None
    stage_times = _work(start, progress, tally, json_events=json_events)
    parts.sweep(prepared.store)
    return tally, stage_times


def _warn_of_about(prepared: "PreparedRun", *, new: bool, json_events: bool) -> None:
    """Say that a run keeps the section `about` that it was started with, if the run file has another one now."""
    from pipeline.storage.run_folder import find_manifest

    stored = None if new or json_events else find_manifest(prepared.store)
    if stored is not None and stored.config.get("about") != prepared.manifest.config.get("about"):
        err.say("note: about differs from run.json, which keeps the text that the run was started with")


@dataclass(frozen=True)
class SessionStart:
    """State of a run at the start of a session; `images_left` is None where the number is not known.

    It has grown if it began with a lower limit.
    """

    prepared: "PreparedRun"
    new: bool
    chunks_done: int
    images_left: int | None
    has_grown: bool

    def report(self, *, json_events: bool) -> None:
        """Print the run id, the path and the label account, or emit the events `start` and `labels`."""
        manifest, path = self.prepared.manifest, self.prepared.store.url
        if not json_events:
            state = "new run" if self.new else f"resuming after {counted(self.chunks_done, 'chunk')}"
            grown = "; it began with a lower limit, and has grown" if self.has_grown else ""
            err.say(f"run {manifest.run_id} in {path} ({state}{grown})")
            if draw := self.prepared.reading.draw:
                err.say(str(draw))
            for note in self.prepared.notes():
                err.say(f"note: {note}")
            print_account(self.prepared.account)
            return
        emit(
            "start",
            run_id=manifest.run_id,
            path=path,
            new=self.new,
            grown=self.has_grown,
            chunks_done=self.chunks_done,
            images_left=self.images_left,
            notes=self.prepared.notes(),
            versions={"camatlas": manifest.code["version"], **manifest.packages},
        )
        emit_account(self.prepared.account)


def _work(start: SessionStart, progress: "Progress", tally: Tally, *, json_events: bool) -> "StageTimes":
    """Run Ray until every chunk is committed; return the stage times of the session."""
    from pipeline.results.output_kind import label_naming
    from pipeline.run import dataflow
    from pipeline.run.cluster import connected, missing_gpus, worker_count, worker_device
    from pipeline.telemetry.bottleneck import Environment, Session

    prepared, session = start.prepared, Session(tally.clock)
    compute = prepared.config.compute
    try:
        with (
            Deadline(STARTING_SECONDS) as deadline,
            capture_native_stderr(),
            connected(compute.address),
            terminated_by_signal(),
            Reporter(tally, json_events=json_events) as reporter,
        ):
            workers, device = worker_count(compute), worker_device(compute.device)
            missing = missing_gpus(compute, workers)
            if json_events:
                emit("workers", workers=workers, device=device)
            shards = tuple(shard.name for shard in prepared.shards)
            name = label_naming(prepared.manifest)
            watch = Watch(tally, session, workers, shards, json_events=json_events, name=name)
            watch.wait_for_gpus(missing, prepared.stall_seconds())
            timeout = prepared.stall_seconds() + MARGIN_SECONDS
            deadline.put_off(timeout)
            try:
                # Closed at once on a signal: Ray Data must end before Ray does.
                with closing(dataflow.run_chunks(prepared, progress, workers)) as events:
                    for event in events:
                        deadline.put_off(timeout)
                        watch.note(event)
                        reporter.update()
                watch.end()
            finally:
                deadline.put_off(STOPPING_SECONDS)
            pending = len(prepared.pending(progress))
            return session.stage_times(Environment(workers, pending, device, compute.precision))
    except (KeyboardInterrupt, TerminatedError):
        if json_events:
            emit("stopped", **tally.event())
        else:
            err.say(f"stopped after {tally.line()}; finished chunks are kept. Run the same command again to resume.")
        raise


def _ended(store: "Store") -> Ended:
    from pipeline.results.summary import totals

    return Ended(path=store.url, **vars(totals(store)))


if __name__ == "__main__":
    leave_after(lambda: typer.run(explain))
