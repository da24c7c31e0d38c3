"""Progress of a run on stderr: a live bar on a terminal, one line every ten seconds otherwise, JSON on request."""

import datetime
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.support.console import err

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_EVENTS = 1.0
_LEAST_SECONDS = 1.0


@dataclass
class Tally:
    """What a session of a run has done so far.

    The rate counts from the first news on: the start of the workers, and the images of that news, are left out. Where
    hardly a second passed since, it counts from the beginning.

    Attributes:
        total_images: images to explain in this session, where known.
        total_bytes: bytes of the shards to read; tells the rest where the number of images is not known.
    """

    total_images: int | None
    total_bytes: int
    images: int = 0
    chunks: int = 0
    committed_images: int = 0
    committed_bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], float] = time.monotonic

    _began: float = field(init=False)
    _first: tuple[float, int] | None = field(default=None, init=False)
    _latest: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def mark(self) -> None:
        """Say that news has arrived and is counted."""
        self._latest = self.clock()
        if self._first is None:
            self._first = self._latest, self.images

    @property
    def images_per_second(self) -> float:
        """Mean rate up to the latest news, 0 before there are two."""
        if self._first is None or self.images == self._first[1]:
            return 0.0
        began, images = self._first
        if self._latest - began < _LEAST_SECONDS:
            began, images = self._began, 0
        seconds = self._latest - began
        return (self.images - images) / seconds if seconds > 0 else 0.0

    @property
    def share(self) -> float | None:
        """Estimate of the share that is done, in [0, 1]; None as long as nothing can be said."""
        if self.total_images:
            return min(1.0, self.images / self.total_images)
        if not self.committed_images:
            return None
        bytes_an_image = self.committed_bytes / self.committed_images
        return min(1.0, self.images * bytes_an_image / max(1, self.total_bytes))

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the time that is left, in seconds."""
        share, rate = self.share, self.images_per_second
        return self.images * (1 - share) / share / rate if share and rate else None

    def line(self) -> str:
        """One line for people."""
        left = self.seconds_left
        parts = [f"{self.images} images"]
        if self.images_per_second:
            parts.append(f"{self.images_per_second:.1f} images/s")
        parts += [f"{self.chunks} chunks committed", f"{sum(self.failures.values())} failures"]
        return ", ".join([*parts, f"about {duration(left)} left"] if left is not None else parts)

    def event(self) -> dict[str, object]:
        """The same for programs: the fields of a `progress` event."""
        left = self.seconds_left
        return {
            "images": self.images,
            "images_per_second": round(self.images_per_second, 2) or None,
            "chunks": self.chunks,
            "failures": dict(self.failures),
            "eta_seconds": None if left is None else round(left),
        }


class Reporter:
    """Shows a tally while it grows; a context manager."""

    def __init__(self, tally: Tally, *, json_events: bool) -> None:
        self._tally = tally
        self._json = json_events
        self._last_line = tally.clock()
        self._last_event: float | None = None
        self._is_told = True
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
        if self._json and not self._is_told:
            self._tell_event()

    def update(self) -> None:
        """Show the tally as it is now, with the news that has just arrived."""
        self._tally.mark()
        if self._json:
            self._is_told = False
            if self._last_event is None or self._tally.clock() - self._last_event >= _SECONDS_BETWEEN_EVENTS:
                self._tell_event()
        elif self._bar is not None:
            share = self._tally.share
            total = None if share is None else 1.0
            self._bar.update(self._task, description=self._tally.line(), completed=share or 0.0, total=total)
        elif self._tally.clock() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = self._tally.clock()
            err.print(self._tally.line())

    def _tell_event(self) -> None:
        """Tell programs, at most once a second, and of the last news in any case."""
        self._last_event, self._is_told = self._tally.clock(), True
        emit("progress", **self._tally.event())


def emit(event: str, **fields: object) -> None:
    """Print an event for programs: one JSON object a line, with its kind and the time (UTC)."""
    err.say(json.dumps({"event": event, "time": utc_now(), **fields}))


def utc_now() -> str:
    """Write the time as events do."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole / 60:.0f} min"
    return f"{whole / 3600:.1f} h"
