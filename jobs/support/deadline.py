"""End a driver that hangs in native code, where neither Python code nor signal handlers can run."""

import faulthandler
import os
import time
from types import TracebackType

STARTING_SECONDS = 300
"""Time limit for starting Ray, which is enough even on an overloaded machine."""
STOPPING_SECONDS = 120
MARGIN_SECONDS = 120
"""Added to `compute.stall_seconds`, so that Ray's own stall check can end the run first, with an error message."""
_SECONDS_BETWEEN_RESETS = 1.0
"""Each `put_off` starts a thread, so that resets within this interval are skipped."""


class Deadline:
    """A timer that ends the process unless it is put off: exit code 1, with the stack of each thread on stderr.

    Ray waits forever for replies of its own processes, holding the GIL, when those were stopped or the machine slept
    at the wrong moment. Only a thread outside of Python can still run then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._armed_at = 0.0

    def __enter__(self) -> "Deadline":
        self._stderr = os.dup(2)
        self.put_off(self._seconds)
        return self

    def put_off(self, seconds: float) -> None:
        """Move the deadline to `seconds` from now."""
        if seconds != self._seconds or time.monotonic() - self._armed_at >= _SECONDS_BETWEEN_RESETS:
            self._seconds, self._armed_at = seconds, time.monotonic()
            faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._stderr)
