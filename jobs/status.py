"""camatlas status: show the progress of a run, from any machine, during the run or afterwards."""

import datetime
import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.support.console import command, leave_after, out
from jobs.support.progress import duration

if TYPE_CHECKING:
    from pipeline.results.status import Count, Status
    from pipeline.results.throughput import Rate, Straggler

_SHOWN = 5
_LISTED = 20
_CLOCKS_AGREE = 60.0
_STATES = {
    "complete": "complete",
    "going": "running",
    "quiet": "no new parts for a long time, it may have stopped; run the same `camatlas explain` again to resume",
    "starting": "starting, no part yet",
}


@command
def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    every_part: Annotated[bool, typer.Option("--all", help="read every part, however many there are")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> int:
    """Show the progress of a run: chunks, images, images/s, time left, failures and stragglers; write nothing."""
    from pipeline.results.status import PATIENCE
    from pipeline.results.status import status as scan
    from pipeline.storage.store import open_store

    store = open_store(run)
    snapshot = scan(store, time.time(), None if every_part else PATIENCE)
    out.say(json.dumps(to_json(snapshot, store.url)) if as_json else "\n".join(lines(snapshot, store.url)))
    return 0


def to_json(snapshot: "Status", url: str) -> dict[str, object]:
    """Return the status for programs; times are in UTC, and unknown numbers are null."""
    overall, recent = snapshot.throughput.overall(), snapshot.throughput.recent(snapshot.now)
    left = snapshot.seconds_left
    return {
        "run_id": snapshot.manifest.run_id,
        "path": url,
        "state": snapshot.state,
        "asked_at": _utc(snapshot.now),
        "started_at": snapshot.manifest.started_at,
        "last_part_at": _utc(snapshot.throughput.parts[-1][0]) if snapshot.throughput.parts else None,
        "seconds_since_sign": round(max(0.0, snapshot.now - snapshot.last_sign), 1),
        "shards": {
            "total": len(snapshot.manifest.identity.shards),
            "finished": len(snapshot.finished),
            "begun": len(snapshot.chunks),
        },
        "chunks": _progress(snapshot.chunks_done, exact=True, total=snapshot.chunks_total),
        "images": _progress(snapshot.images_done.number, exact=snapshot.images_done.exact, total=snapshot.images_total),
        "images_per_second": {
            "recent": _rounded(recent) if snapshot.state == "going" else None,
            "recent_seconds": round(recent.seconds),
            "overall": _rounded(overall),
            "overall_seconds": round(overall.seconds),
        },
        "eta_seconds": None if left is None else round(left),
        "failures": dict(snapshot.failures.codes.most_common()),
        "failures_parts_left_out": snapshot.failures.skipped,
        "degenerate": {name: round(share, 6) for name, share in snapshot.degenerate.items()},
        "damaged": dict(sorted(snapshot.damaged.items())),
        "stragglers": [
            {
                "kind": late.kind,
                "shard": _name(snapshot, late.shard),
                "chunk": late.chunk,
                "seconds": round(late.seconds),
            }
            for late in snapshot.stragglers[:_LISTED]
        ],
    }


def lines(snapshot: "Status", url: str) -> list[str]:
    """Return the status as lines of text."""
    shown = [
        f"run {snapshot.manifest.run_id} in {url}: {_STATES[snapshot.state]}",
        f"  {_last_sign(snapshot)}",
        f"  chunks: {snapshot.chunks_done}{_of(snapshot.chunks_total)}; shards: {len(snapshot.finished)} finished, "
        f"{len(snapshot.chunks)} started, {len(snapshot.manifest.identity.shards)} in total",
        f"  images: {_number(snapshot.images_done)}{_of(snapshot.images_total)}",
        *_labels(snapshot),
        f"  {_rates(snapshot)}",
        f"  failures: {_failures(snapshot)}",
        *_constant_maps(snapshot),
    ]
    damaged = sorted(snapshot.damaged.items())
    shown += [f"  damaged: {name}: {why}; run `camatlas verify`" for name, why in damaged[:_SHOWN]]
    shown += [f"  {_straggler(snapshot, late)}" for late in snapshot.stragglers[:_SHOWN]]
    more = {"damaged parts": len(damaged), "stragglers": len(snapshot.stragglers)}
    shown += [f"  and {count - _SHOWN} more {what}" for what, count in more.items() if count > _SHOWN]
    if snapshot.unseen_ends:
        shown.append(f"  {snapshot.unseen_ends} shards count as unfinished, because their last part was not read; "
                     "--all reads every part")  # fmt: skip
    return shown


def _labels(snapshot: "Status") -> list[str]:
    """Return the summary of the label account; nothing for runs of versions that made none."""
    from pipeline.results.label_tally import account_of

    account = account_of(snapshot.manifest)
    return [] if account is None else [f"  labels: {account.summary()}"]


def _last_sign(snapshot: "Status") -> str:
    age = snapshot.now - snapshot.last_sign
    moment = f"({_utc(snapshot.last_sign)})"
    if age < -_CLOCKS_AGREE:
        return f"last activity {moment}; the clock of this machine is {duration(-age)} behind that of the run folder"
    return f"last activity {duration(max(0.0, age))} ago {moment}"


def _rates(snapshot: "Status") -> str:
    overall, recent = snapshot.throughput.overall(), snapshot.throughput.recent(snapshot.now)
    rates = [f"{overall.a_second:.4g} images/s since the first chunk"] if overall.a_second else ["no rate yet"]
    if snapshot.state == "going" and recent.a_second is not None:
        rates.insert(0, f"{recent.a_second:.4g} images/s over the last {duration(recent.seconds)}")
    if snapshot.seconds_left is not None:
        rates.append(f"about {duration(snapshot.seconds_left)} left")
    return ", ".join(rates)


def _failures(snapshot: "Status") -> str:
    codes = ", ".join(f"{count} {code}" for code, count in snapshot.failures.codes.most_common()) or "none"
    if not snapshot.failures.skipped:
        return codes
    done = snapshot.chunks_done
    return (
        f"{codes}; counted in {done - snapshot.failures.skipped} of {done} parts: the last one of each shard, then the "
        "newest; --all counts in every part, and is fast after `camatlas compact`"
    )


def _constant_maps(snapshot: "Status") -> list[str]:
    """Return the shares of constant maps, if there are any, and a warning if there are many."""
    from pipeline.results.constant_maps import constant_warning, percent

    found = [f"{name} {percent(share)}" for name, share in snapshot.degenerate.items() if share]
    if not found:
        return []
    seen = f" (in {len(snapshot.footers)} of {snapshot.chunks_done} parts)" if snapshot.failures.skipped else ""
    warning = constant_warning(snapshot.degenerate, snapshot.manifest)
    return [f"  constant maps{seen}: {', '.join(found)}", *([f"  warning: {warning}"] if warning else [])]


def _straggler(snapshot: "Status", straggler: "Straggler") -> str:
    chunk = f"chunk {straggler.chunk} of {_name(snapshot, straggler.shard)}"
    seconds = duration(straggler.seconds)
    if straggler.kind == "behind":
        return f"behind: {chunk} is still missing {seconds} after the one before it, while other shards go on"
    return f"slow: {chunk} took {seconds}"


def _progress(done: int | None, *, exact: bool, total: "Count") -> dict[str, object]:
    return {"done": done, "done_is_exact": exact, "total": total.number, "total_is_exact": total.exact}


def _of(total: "Count") -> str:
    return " so far; the total is not known yet" if total.number is None else f" of {_number(total)}"


def _number(count: "Count") -> str:
    return f"{count.number}" if count.exact else f"about {count.number}"


def _rounded(rate: "Rate") -> float | None:
    return None if rate.a_second is None else round(rate.a_second, 3)


def _name(snapshot: "Status", shard: int) -> str:
    return snapshot.manifest.identity.shards[shard].name


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    leave_after(lambda: typer.run(status))
