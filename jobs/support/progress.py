"""Report the progress of a run on stderr: a live bar on a terminal, else a line every ten seconds, or JSON events."""

import datetime
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.support.console import counted, err

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_EVENTS = 1.0
_LEAST_SECONDS = 1.0


@dataclass
class Tally:
    """Counts of a session so far, with its rate and an estimate of the time left.

    The rate leaves out the start of the session: it is measured from when the first worker began its first chunk, as
    the first chunk that is finished tells. Before, it is measured from the first event on, without the images of that
    event, once a second has passed.

    Attributes:
        total_images: number of images to explain in this session, or None if unknown.
        total_bytes: bytes of the shards to read, from which the rest is estimated if the number of images is unknown.
        working_since: when the first worker began its first chunk, by `clock`; None before a chunk is finished.
    """

    total_images: int | None
    total_bytes: int
    images: int = 0
    chunks: int = 0
    committed_images: int = 0
    committed_bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], float] = time.monotonic
    working_since: float | None = None

    _first: tuple[float, int] | None = field(default=None, init=False)
    _latest: float = field(default=0.0, init=False)

    def mark(self) -> None:
        """Note the time of an event that has been counted."""
        self._latest = self.clock()
        if self._first is None:
            self._first = self._latest, self.images

    @property
    def images_per_second(self) -> float:
        """Mean rate up to the latest event; 0 as long as it is unknown."""
        if self._first is None:
            return 0.0
        if self.working_since is not None:
            seconds = self._latest - self.working_since
            return self.images / seconds if seconds > 0 else 0.0
        seconds = self._latest - self._first[0]
        return (self.images - self._first[1]) / seconds if seconds >= _LEAST_SECONDS else 0.0

    @property
    def share(self) -> float | None:
        """Estimated share of the images that is done, in [0, 1]; None as long as it is unknown."""
        if self.total_images:
            return min(1.0, self.images / self.total_images)
        if not self.committed_images:
            return None
        bytes_an_image = self.committed_bytes / self.committed_images
        return min(1.0, self.images * bytes_an_image / max(1, self.total_bytes))

    @property
    def seconds_left(self) -> float | None:
        """Estimated time left, in seconds; None as long as it is unknown."""
        share, rate = self.share, self.images_per_second
        return self.images * (1 - share) / share / rate if share and rate else None

    def line(self) -> str:
        """Return the progress as one line of text."""
        left = self.seconds_left
        parts = [counted(self.images, "image")]
        if self.images_per_second:
            parts.append(f"{self.images_per_second:.1f} images/s")
        parts += [f"{counted(self.chunks, 'chunk')} committed", counted(sum(self.failures.values()), "failure")]
        return ", ".join([*parts, f"about {duration(left)} left"] if left is not None else parts)

    def event(self) -> dict[str, object]:
        """Return the fields of a `progress` event."""
        left = self.seconds_left
        return {
            "images": self.images,
            "images_per_second": round(self.images_per_second, 2) or None,
            "chunks": self.chunks,
            "failures": dict(self.failures),
            "eta_seconds": None if left is None else round(left),
        }


class Reporter:
    """Prints a tally as it grows; a context manager."""

    def __init__(self, tally: Tally, *, json_events: bool) -> None:
        self._tally = tally
        self._json = json_events
        self._last_line = tally.clock()
        self._last_event: float | None = None
        self._is_reported = True
        self._bar: Progress | None = None

    def __enter__(self) -> "Reporter":
        if not self._json and err.is_terminal:
            columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=err, transient=True)
            self._task = self._bar.add_task("starting workers", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._json and not self._is_reported:
            self._emit_progress()

    def update(self) -> None:
        """Note the event that has just been counted, and print the tally if it is time."""
        self._tally.mark()
        if self._json:
            self._is_reported = False
            if self._last_event is None or self._tally.clock() - self._last_event >= _SECONDS_BETWEEN_EVENTS:
                self._emit_progress()
        elif self._bar is not None:
            share = self._tally.share
            total = None if share is None else 1.0
            self._bar.update(self._task, description=self._tally.line(), completed=share or 0.0, total=total)
        elif self._tally.clock() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = self._tally.clock()
            err.print(self._tally.line())

    def _emit_progress(self) -> None:
        """Emit a `progress` event."""
        self._last_event, self._is_reported = self._tally.clock(), True
        emit("progress", **self._tally.event())


def emit(event: str, **fields: object) -> None:
    """Print an event for programs: one JSON object on a line, with its kind and the time (UTC)."""
    err.say(json.dumps({"event": event, "time": utc_now(), **fields}))


def utc_now() -> str:
    """Format the current time for an event: ISO 8601 with milliseconds, in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def duration(seconds: float) -> str:
    """Format a duration for people, in seconds, minutes or hours."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole / 60:.0f} min"
    return f"{whole / 3600:.1f} h"
