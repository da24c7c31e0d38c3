"""Finds our own error, or Ray's reason, inside the errors that Ray wraps around them; imports no Ray."""

import re
from collections.abc import Iterator

from pipeline.errors import CamatlasError, StalledError, masked

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"(?:\w+\.)*([A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure): .+)")
"""The line of a traceback that names the exception; the name of its module is left out."""
_CONSIDERED, _LONGEST = 2_000, 400
"""Characters of a reason that are looked at, so that masking takes no time, and that are shown."""


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
    *_, told = [error, *(each for each in _inside(error) if str(each).strip())]  # Ray's innermost may say nothing
    lines = [line.strip() for line in _COLOUR.sub("", str(told)).splitlines() if line.strip()]
    if raised := [found for line in lines if (found := _RAISED.match(line))]:  # a traceback ends with the exception
        return _short(raised[-1].group(1))
    return _short(f"{type(told).__name__}: {' '.join(lines)}")


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
    """Mask secrets, and keep the first sentences of a long text."""
    text = masked(" ".join(text[:_CONSIDERED].split())).rstrip(".")
    if len(text) <= _LONGEST:
        return text
    sentences, stop, _ = text[:_LONGEST].rpartition(". ")
    return sentences if stop else f"{text[:_LONGEST]}..."
