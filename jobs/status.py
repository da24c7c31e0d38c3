"""camatlas status: how far is a run? From any machine, while it goes on or afterwards."""

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
    "going": "going on",
    "quiet": "nothing new for long: it may have ended; the same `camatlas explain` resumes it",
    "starting": "starting, no part yet",
}


@command
def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    every_part: Annotated[bool, typer.Option("--all", help="look at every part, however many there are")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> int:
    """Tell how far a run is: chunks, images, rates, time left, failures, stragglers; nothing is written."""
    from pipeline.results.status import PATIENCE
    from pipeline.results.status import status as scan
    from pipeline.storage.store import open_store

    store = open_store(run)
    found = scan(store, time.time(), None if every_part else PATIENCE)
    out.say(json.dumps(to_json(found, store.url)) if as_json else "\n".join(lines(found, store.url)))
    return 0


def to_json(found: "Status", url: str) -> dict[str, object]:
    """The answer for programs; times are UTC, numbers that nobody knows are null."""
    overall, recent = found.throughput.overall(), found.throughput.recent(found.now)
    left = found.seconds_left
    return {
        "run_id": found.manifest.run_id,
        "path": url,
        "state": found.state,
        "asked_at": _utc(found.now),
        "started_at": found.manifest.started_at,
        "last_part_at": _utc(found.throughput.parts[-1][0]) if found.throughput.parts else None,
        "seconds_since_sign": round(max(0.0, found.now - found.last_sign), 1),
        "shards": {
            "total": len(found.manifest.identity.shards),
            "finished": len(found.finished),
            "begun": len(found.chunks),
        },
        "chunks": _progress(found.chunks_done, exact=True, total=found.chunks_total),
        "images": _progress(found.images_done.number, exact=found.images_done.exact, total=found.images_total),
        "images_per_second": {
            "recent": _rounded(recent) if found.state == "going" else None,
            "recent_seconds": round(recent.seconds),
            "overall": _rounded(overall),
            "overall_seconds": round(overall.seconds),
        },
        "eta_seconds": None if left is None else round(left),
        "failures": dict(found.failures.codes.most_common()),
        "failures_parts_left_out": found.failures.skipped,
        "damaged": dict(sorted(found.damaged.items())),
        "stragglers": [
            {"kind": one.kind, "shard": _name(found, one.shard), "chunk": one.chunk, "seconds": round(one.seconds)}
            for one in found.stragglers[:_LISTED]
        ],
    }  # fmt: skip


def lines(found: "Status", url: str) -> list[str]:
    """The answer for people."""
    told = [
        f"run {found.manifest.run_id} in {url}: {_STATES[found.state]}",
        f"  {_last_sign(found)}",
        f"  chunks: {found.chunks_done}{_of(found.chunks_total)}; shards: {len(found.finished)} finished, "
        f"{len(found.chunks)} begun, {len(found.manifest.identity.shards)} in all",
        f"  images: {_number(found.images_done)}{_of(found.images_total)}",
        f"  {_rates(found)}",
        f"  failures: {_failures(found)}",
    ]
    told += [f"  damaged: {name}: {why}; run `camatlas verify`" for name, why in sorted(found.damaged.items())[:_SHOWN]]
    told += [f"  {_straggler(found, one)}" for one in found.stragglers[:_SHOWN]]
    more = {"damaged parts": len(found.damaged), "stragglers": len(found.stragglers)}
    told += [f"  and {count - _SHOWN} more {what}" for what, count in more.items() if count > _SHOWN]
    if found.unseen_ends:
        told.append(f"  the last parts of {found.unseen_ends} shards were not looked at: they count as unfinished; "
                    "--all looks at every part")  # fmt: skip
    return told


def _last_sign(found: "Status") -> str:
    age = found.now - found.last_sign
    moment = f"({_utc(found.last_sign)})"
    if age < -_CLOCKS_AGREE:
        return (
            f"last sign of life {moment}; the clock of this machine is {duration(-age)} behind that of the run folder"
        )
    return f"last sign of life {duration(max(0.0, age))} ago {moment}"


def _rates(found: "Status") -> str:
    overall, recent = found.throughput.overall(), found.throughput.recent(found.now)
    told = [f"{overall.a_second:.4g} images/s since the first chunk"] if overall.a_second else ["rate not known"]
    if found.state == "going" and recent.a_second is not None:
        told.insert(0, f"{recent.a_second:.4g} images/s over the last {duration(recent.seconds)}")
    if found.seconds_left is not None:
        told.append(f"about {duration(found.seconds_left)} left")
    return ", ".join(told)


def _failures(found: "Status") -> str:
    codes = ", ".join(f"{count} {code}" for code, count in found.failures.codes.most_common()) or "none"
    if not found.failures.skipped:
        return codes
    looked = found.chunks_done - found.failures.skipped
    return (
        f"{codes}; counted in {looked} of {found.chunks_done} parts, the newest and the last of each shard; --all "
        "counts in every part, and `camatlas compact` makes that fast"
    )


def _straggler(found: "Status", one: "Straggler") -> str:
    if one.kind == "behind":
        waiting = f"{_name(found, one.shard)} waits for chunk {one.chunk}"
        return f"behind: {waiting}, {duration(one.seconds)} after the one before, while others went on"
    return f"slow: chunk {one.chunk} of {_name(found, one.shard)} took {duration(one.seconds)}"


def _progress(done: int | None, *, exact: bool, total: "Count") -> dict[str, object]:
    return {"done": done, "done_is_exact": exact, "total": total.number, "total_is_exact": total.exact}


def _of(total: "Count") -> str:
    return " so far; how many there will be is not known yet" if total.number is None else f" of {_number(total)}"


def _number(count: "Count") -> str:
    return f"{count.number}" if count.exact else f"about {count.number}"


def _rounded(rate: "Rate") -> float | None:
    return None if rate.a_second is None else round(rate.a_second, 3)


def _name(found: "Status", shard: int) -> str:
    return found.manifest.identity.shards[shard].name


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    leave_after(lambda: typer.run(status))
