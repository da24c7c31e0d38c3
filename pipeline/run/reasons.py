"""Finds our own error, or Ray's reason, inside the errors that Ray wraps around them; imports no Ray."""

import re
from collections.abc import Iterator

from pipeline.errors import CamatlasError, StalledError, masked

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure): .+")
"""The line of a traceback that names the exception."""
_LONGEST = 400


def unwrapped(error: BaseException) -> CamatlasError:
    """Return the CamatlasError inside an error of Ray, or a StalledError with Ray's reason.

    Takes the innermost one: Ray also derives errors from our classes, with a whole traceback as their message.
    """
    ours = [each for each in _inside(error) if isinstance(each, CamatlasError)]
    if ours:
        return ours[-1]
    return StalledError(
        f"the run stopped: {reason_of(error)}. Finished chunks are kept; run the same command again to resume."
    )


def reason_of(error: BaseException) -> str:
    """Return the reason inside an error of Ray, in one line: the innermost exception, without tracebacks."""
    *_, innermost = _inside(error)
    lines = [line.strip() for line in _COLOUR.sub("", str(innermost)).splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    if raised:  # the message is, or holds, a traceback, which ends with the exception
        return _short(raised[-1])
    return _short(f"{type(innermost).__name__}: {' '.join(lines)}")


def _inside(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the one that it wraps, the one that this wraps, and so on."""
    each: BaseException | None = error
    seen = set[int]()
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        cause = getattr(each, "cause", None)  # of Ray's errors
        each = cause if isinstance(cause, BaseException) else each.__cause__


def _short(text: str) -> str:
    text = masked(" ".join(text.split())).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
