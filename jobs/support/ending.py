"""Report how a run has ended: its totals, as text or as an event, and methods with many constant maps."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.support.console import counted, err
from jobs.support.progress import Tally, emit, utc_now
from jobs.support.watch import session_fields
from pipeline.results.run_totals import Totals

if TYPE_CHECKING:
    from pipeline.telemetry.bottleneck import StageTimes
    from schemas.manifest import RunManifest


@dataclass(frozen=True, kw_only=True)
class Ended(Totals):
    """Totals of a run at the end of a session, including earlier sessions.

    Attributes:
        path: the run folder.
        session: stage times of this session; None when there was nothing to do.
    """

    path: str
    session: "StageTimes | None" = None

    def to_json(self) -> dict[str, object]:
        """Return the `end` event of --json."""
        shares = {name: round(share, 6) for name, share in self.degenerate.items()}
        totals = {**vars(self), "degenerate": shares, "failure_rate": round(self.failure_rate, 6)}
        return {"event": "end", "time": utc_now(), **totals, "session": session_fields(self.session)}


def print_totals(ended: Ended, tally: Tally) -> None:
    """Print what this session did, where its workers spent their time, and the totals of the run."""
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


def warn_of_constant_maps(ended: Ended, manifest: "RunManifest", *, json_events: bool) -> None:
    """Warn of methods with many constant maps, and say what to look at."""
    from pipeline.results.constant_maps import constant_warning

    message = constant_warning(ended.degenerate, manifest)
    if message and json_events:
        emit("warning", kind="constant_maps", message=message)
    elif message:
        err.say(f"warning: {message}")
