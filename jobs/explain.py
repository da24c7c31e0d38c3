"""camatlas explain: explain a whole dataset; run the same command again to resume."""

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.support.console import EXIT_TOO_MANY_FAILURES, command, err, leave_after, native_stderr_aside, out
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


@command
def explain(
    config: Annotated[str, typer.Argument(help="the run file (YAML)")],
    output: Annotated[str | None, typer.Option("--out", help="run folder; instead of output.path")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first N images")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="actors that hold the model")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key")] = None,
    max_failure_rate: Annotated[float, typer.Option(min=0, max=1, help="above it the exit code is 3")] = 0.01,
    json_events: Annotated[bool, typer.Option("--json", help="events and result as JSON")] = False,
) -> int:
    """Explain a whole dataset; run the same command again to resume."""
    mistakes = Mistakes()
    loaded = load_config(config, with_options(settings, output=output, limit=limit, workers=workers), mistakes)
    ended = run(loaded, mistakes, json_events=json_events)
    too_many = ended.failure_rate > max_failure_rate
    if json_events:
        out.say(json.dumps(ended.to_json()))
    else:
        out.say(ended.path)
    if too_many:
        message = (
            f"{100 * ended.failure_rate:.2f} % failed: {ended.with_failures - ended.damages} of {ended.images} images, "
            f"and damage to shards in {ended.damages} places; --max-failure-rate allows {100 * max_failure_rate:g} %"
        )
        if json_events:
            emit("warning", kind="too_many_failures", message=message)
        else:
            err.say(message)
    return EXIT_TOO_MANY_FAILURES if too_many else 0


def with_options(
    settings: list[str] | None, *, output: str | None = None, limit: int | None = None, workers: int | None = None
) -> list[str]:
    """Add the options that stand for a key of the run file to the `KEY=VALUE` settings."""
    given = {"output.path": output, "data.limit": limit, "compute.workers": workers}
    return [*(settings or []), *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None)]


@dataclass(frozen=True)
class Ended:
    """How a run stands at the end of a session, earlier sessions included.

    Attributes:
        path: the run folder.
        images, explained, rows: images in total, those with a map, and maps.
        with_failures: images and shards with at least one failure row.
        damages: those of them that are no images: damage to shards.
        failures: number of failure rows by stage and code.
        session: where the time of this session went; None when there was nothing to do.
    """

    path: str
    images: int
    explained: int
    rows: int
    with_failures: int
    damages: int
    failures: dict[str, int]
    session: "StageTimes | None" = None

    @property
    def failure_rate(self) -> float:
        """Images and damage with a failure row, as a share of all images and damage: at most 1."""
        return self.with_failures / max(1, self.images + self.damages)

    def to_json(self) -> dict[str, object]:
        """The result for programs."""
        totals = {**vars(self), "failure_rate": round(self.failure_rate, 6)}
        return {"event": "end", "time": utc_now(), **totals, "session": session_fields(self.session)}


def run(config: RunConfig, mistakes: Mistakes | None = None, *, json_events: bool = False) -> Ended:
    """Prepare a run, explain what is not done yet, and tell on stderr how it went."""
    from pipeline.run.preflight import absolute, prepare
    from pipeline.storage import parts  # engine and torch cost seconds; asking for help should not
    from pipeline.storage.ownership import take_ownership

    prepared = prepare(absolute(config), mistakes)
    new = take_ownership(prepared.store, prepared.manifest)
    progress = parts.progress(prepared.store)
    tally = Tally(prepared.images_left(progress), prepared.bytes_left(progress))
    begun = Begun(prepared, new, sum(map(len, progress.done.values())), tally.total_images)
    begun.tell(json_events=json_events)
    stage_times = None
    if prepared.pending(progress):
        stage_times = _work(begun, progress, tally, json_events=json_events)
        parts.sweep(prepared.store)
    ended = replace(_ended(prepared.store), session=stage_times)
    if not json_events:
        _tell(ended, tally)
    return ended


@dataclass(frozen=True)
class Begun:
    """A session at its begin: the run, whether it is new, how many chunks are done, how many images are left."""

    prepared: "PreparedRun"
    new: bool
    chunks_done: int
    images_left: int | None

    def tell(self, *, json_events: bool) -> None:
        """Say which run it is."""
        manifest, path = self.prepared.manifest, self.prepared.store.url
        if not json_events:
            begun = "new run" if self.new else f"resuming, {self.chunks_done} chunks are done"
            err.say(f"run {manifest.run_id} in {path} ({begun})")
            if draw := self.prepared.reading.draw:
                err.say(str(draw))
            return
        emit(
            "start",
            run_id=manifest.run_id,
            path=path,
            new=self.new,
            chunks_done=self.chunks_done,
            images_left=self.images_left,
            versions={"camatlas": manifest.code["version"], **manifest.packages},
        )


def _work(begun: Begun, progress: "Progress", tally: Tally, *, json_events: bool) -> "StageTimes":
    """Run the engine until every chunk is committed; tells where the time went."""
    if not (begun.prepared.config.compute.address or os.environ.get("RAY_ADDRESS")):
        # Ray reads it when it is imported: a head of our own that dies, even while it starts, does not come back
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    from pipeline.run import dataflow
    from pipeline.run.cluster import connected, worker_count, worker_device
    from pipeline.telemetry.bottleneck import Environment, Session

    prepared, session = begun.prepared, Session(tally.clock)
    compute = prepared.config.compute
    try:
        with (
            Deadline(STARTING_SECONDS) as deadline,
            native_stderr_aside(),
            connected(compute.address),
            terminated_by_signal(),
            Reporter(tally, json_events=json_events) as reporter,
        ):
            workers, device = worker_count(compute.workers, compute.device), worker_device(compute.device)
            if json_events:
                emit("workers", workers=workers, device=device)
            shards = tuple(shard.name for shard in prepared.shards)
            watch = Watch(tally, session, workers, shards, json_events=json_events)
            patience = prepared.stall_seconds() + MARGIN_SECONDS
            deadline.put_off(patience)
            try:
                for event in dataflow.run_chunks(prepared, progress, workers):
                    deadline.put_off(patience)
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


def _tell(ended: Ended, tally: Tally) -> None:
    if tally.chunks:
        rate = f", {tally.images_per_second:.1f} images/s" if tally.images_per_second else ""
        err.say(f"this session: {tally.images} images{rate}, {tally.chunks} chunks")
    if ended.session:
        err.say(f"its time: {ended.session.line()}")
        err.say(f"  {ended.session.bottleneck()}")
    err.say(f"the run: {ended.images} images, {ended.explained} explained, {ended.rows} explanations")
    for code, count in ended.failures.items():
        err.say(f"  {count:6d} failed: {code}")


if __name__ == "__main__":
    leave_after(lambda: typer.run(explain))
