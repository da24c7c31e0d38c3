"""camatlas explain: explain the images of a run file; the same command resumes an interrupted run."""

import json
import os
from dataclasses import dataclass, field, replace
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
from jobs.support.progress import Reporter, Tally, emit, utc_now
from jobs.support.signals import TerminatedError, terminated_by_signal
from jobs.support.watch import Watch, session_fields
from pipeline.errors import Mistakes
from pipeline.settings.run_file import RunConfig, load_config

if TYPE_CHECKING:
    from pipeline.run.preflight import PreparedRun
    from pipeline.storage.base import Store
    from pipeline.storage.parts import Progress
    from pipeline.telemetry.bottleneck import StageTimes
    from schemas.manifest import RunManifest


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
    loaded = load_config(config, with_options(settings, output=output, limit=limit, workers=workers), mistakes)
    ended = run(loaded, mistakes, json_events=json_events)
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


@dataclass(frozen=True)
class Ended:
    """Totals of a run at the end of a session, including earlier sessions.

    Attributes:
        path: the run folder.
        images, explained, rows: number of images, of images with a map, and of maps.
        with_failures: number of images and of damaged places in shards that have at least one failure row.
        damages: the damaged places in shards among them.
        failures: number of failure rows by stage and code.
        session: stage times of this session; None when there was nothing to do.
        degenerate: share of constant maps of each method.
    """

    path: str
    images: int
    explained: int
    rows: int
    with_failures: int
    damages: int
    failures: dict[str, int]
    session: "StageTimes | None" = None
    degenerate: dict[str, float] = field(default_factory=dict)

    @property
    def failure_rate(self) -> float:
        """Share of images and damaged places with a failure row, in [0, 1]."""
        return self.with_failures / max(1, self.images + self.damages)

    def to_json(self) -> dict[str, object]:
        """Return the `end` event of --json."""
        shares = {name: round(share, 6) for name, share in self.degenerate.items()}
        totals = {**vars(self), "degenerate": shares, "failure_rate": round(self.failure_rate, 6)}
        return {"event": "end", "time": utc_now(), **totals, "session": session_fields(self.session)}


def run(config: RunConfig, mistakes: Mistakes | None = None, *, json_events: bool = False) -> Ended:
    """Prepare a run, explain the chunks that are missing, and report the outcome on stderr."""
    from pipeline.run.preflight import absolute, prepare
    from pipeline.storage import parts  # importing Ray and torch takes seconds, and --help should not
    from pipeline.storage.ownership import take_ownership

    prepared = prepare(absolute(config), mistakes)
    new = take_ownership(prepared.store, prepared.manifest)
    progress = parts.progress(prepared.store)
    tally = Tally(prepared.images_left(progress), prepared.bytes_left(progress))
    start = SessionStart(prepared, new, sum(map(len, progress.done.values())), tally.total_images)
    start.report(json_events=json_events)
    stage_times = None
    if prepared.pending(progress):
        stage_times = _work(start, progress, tally, json_events=json_events)
        parts.sweep(prepared.store)
    ended = replace(_ended(prepared.store), session=stage_times)
    if not json_events:
        _print_totals(ended, tally)
    _warn_of_constant_maps(ended, prepared.manifest, json_events=json_events)
    return ended


@dataclass(frozen=True)
class SessionStart:
    """State of a run at the start of a session; `images_left` is None where the number is not known."""

    prepared: "PreparedRun"
    new: bool
    chunks_done: int
    images_left: int | None

    def report(self, *, json_events: bool) -> None:
        """Print the run id, the path and the label account, or emit the events `start` and `labels`."""
        manifest, path = self.prepared.manifest, self.prepared.store.url
        if not json_events:
            state = "new run" if self.new else f"resuming after {counted(self.chunks_done, 'chunk')}"
            err.say(f"run {manifest.run_id} in {path} ({state})")
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
            chunks_done=self.chunks_done,
            images_left=self.images_left,
            notes=self.prepared.notes(),
            versions={"camatlas": manifest.code["version"], **manifest.packages},
        )
        emit_account(self.prepared.account)


def _work(start: SessionStart, progress: "Progress", tally: Tally, *, json_events: bool) -> "StageTimes":
    """Run Ray until every chunk is committed; return the stage times of the session."""
    if not (start.prepared.config.compute.address or os.environ.get("RAY_ADDRESS")):
        # A local head that dies never comes back, so the driver need not wait long for it. Ray reads this on import.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    from pipeline.run import dataflow
    from pipeline.run.cluster import connected, worker_count, worker_device
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
            workers, device = worker_count(compute.workers, compute.device), worker_device(compute.device)
            if json_events:
                emit("workers", workers=workers, device=device)
            shards = tuple(shard.name for shard in prepared.shards)
            watch = Watch(tally, session, workers, shards, json_events=json_events)
            timeout = prepared.stall_seconds() + MARGIN_SECONDS
            deadline.put_off(timeout)
            try:
                for event in dataflow.run_chunks(prepared, progress, workers):
                    deadline.put_off(timeout)
                    watch.note(event)
                    reporter.update()
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

    return Ended(store.url, **vars(totals(store)))


def _print_totals(ended: Ended, tally: Tally) -> None:
    if tally.chunks:
        rate = f", {tally.images_per_second:.1f} images/s" if tally.images_per_second else ""
        err.say(f"this session: {counted(tally.images, 'image')}{rate}, {counted(tally.chunks, 'chunk')}")
    if ended.session:
        err.say(f"time of its workers: {ended.session.line()}")
        err.say(f"  {ended.session.bottleneck()}")
    rows = counted(ended.rows, "explanation")
    err.say(f"whole run: {counted(ended.images, 'image')}, {ended.explained:,} explained, {rows}")
    for code, count in ended.failures.items():
        err.say(f"  {count:6d} failed: {code}")
    if ended.degenerate:
        from pipeline.results.constant_maps import percent

        found = [f"{name} {percent(share)}" for name, share in ended.degenerate.items() if share]
        err.say(f"constant maps: {', '.join(found) or 'none'}")


def _warn_of_constant_maps(ended: Ended, manifest: "RunManifest", *, json_events: bool) -> None:
    """Warn of methods with many constant maps, with the likely cause."""
    from pipeline.results.constant_maps import constant_warning

    message = constant_warning(ended.degenerate, manifest)
    if message and json_events:
        emit("warning", kind="constant_maps", message=message)
    elif message:
        err.say(f"warning: {message}")


if __name__ == "__main__":
    leave_after(lambda: typer.run(explain))
