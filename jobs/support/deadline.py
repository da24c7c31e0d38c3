"""The last resort against a driver that hangs in native code, where neither Python nor its signals get a turn."""

import faulthandler
import os
import time
from types import TracebackType

STARTING_SECONDS = 300
"""Within so long Ray is up, also on a machine with far too much to do."""
STOPPING_SECONDS = 120
MARGIN_SECONDS = 120
"""Ray's own watch over a run that stands still comes first, and ends it with a sentence."""
_SELDOM = 1.0
"""Putting off starts a thread; not more often than this, in seconds."""


class Deadline:
    """Ends the process unless it is put off in time: exit code 1, and on stderr where every thread stood.

    Ray waits without end for answers of its own processes, with Python's lock in hand, when those were stopped, or the
    machine slept, at the wrong moment. A thread outside of Python is all that still runs then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._armed_at = 0.0

    def __enter__(self) -> "Deadline":
        self._stderr = os.dup(2)
        self.put_off(self._seconds)
        return self

    def put_off(self, seconds: float) -> None:
        """Give it so many seconds from now."""
        if seconds != self._seconds or time.monotonic() - self._armed_at >= _SELDOM:
            self._seconds, self._armed_at = seconds, time.monotonic()
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._stderr)
