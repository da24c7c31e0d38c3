"""A line on stderr while `explain` and `evaluate` take long: what is done, and how many passes it took so far."""

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pipeline.model.counts import Counts

DELAY_SECONDS = 2.0
_INTERVAL_SECONDS = 0.5


class Reporting:
    """Writes the line from a thread, from the third second on, where a person looks: a terminal or a notebook.

    Args:
        work: what is done, such as "explaining 8 images".
        counts: the passes, which the work counts up.
        delay: seconds before the first line.
    """

    def __init__(self, work: str, counts: "Counts", delay: float = DELAY_SECONDS) -> None:
        self._work, self._counts, self._delay = work, counts, delay
        self._before = _passes(counts)
        self._ended = threading.Event()
        self._width = 0
        self._thread = threading.Thread(target=self._report, name="camatlas-progress", daemon=True)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if sys.stderr is not None and (sys.stderr.isatty() or _is_of_a_notebook(sys.stderr)):
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _report(self) -> None:
        if self._ended.wait(self._delay):
            return
        while not self._ended.wait(_INTERVAL_SECONDS):
            self._write(self._line())
        self._write(self._line() + "\n")

    def _line(self) -> str:
        passes = _passes(self._counts) - self._before
        return f"{self._work}: {passes:,} passes, {time.monotonic() - self._started:.0f} s"

    def _write(self, text: str) -> None:
        """Write over the line; a shorter one covers the rest of the longer."""
        line = text.rstrip("\n")
        padding = " " * max(0, self._width - len(line))
        self._width = len(line)
        sys.stderr.write(f"\r{line}{padding}{text[len(line) :]}")
        sys.stderr.flush()


def _passes(counts: "Counts") -> int:
    return counts.forwards + counts.head_passes + counts.backwards


def _is_of_a_notebook(stream: object) -> bool:
    """Tell whether a stream is shown below the cell of a notebook."""
    return type(stream).__module__.partition(".")[0] == "ipykernel"
