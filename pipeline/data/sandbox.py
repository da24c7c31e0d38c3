"""A process of its own for work on bytes that could harm the one that asks: it may be killed, and has a deadline.

It is started by its module's name and speaks JSON and raw bytes: it inherits nothing that Ray or torch may hold, and
nothing that it says can run code.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = tuple[dict[str, Any], bytes]

_HERE = Path(__file__).resolve().parents[2]
"""Where the child finds this package; nothing is imported from the folder that a command is called in."""
_PIECE = 1 << 16
_LENGTH = 8
"""Bytes that say how long an answer is."""


class Sandbox:
    """A process that answers one question at a time; begun when it is needed, and again after it ended.

    Args:
        deadline: seconds that one answer may take.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]  # both are pipes
            self._process.wait()
            self._process = None

    def _begin(self) -> "subprocess.Popen[bytes]":
        raise NotImplementedError

    def _exchange(self, question: dict[str, Any], data: bytes = b"") -> Answer:
        """Send a question and read the answer, both before the deadline.

        Raises:
            TimeoutError: it took too long.
            OSError, EOFError: the child is gone.
        """
        if self._process is None:
            self._process = self._begin()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        until = time.monotonic() + self._deadline
        text = json.dumps({**question, "bytes": len(data)}).encode()
        _send(self._process.stdin.fileno(), text + b"\n" + data, until)
        handle = self._process.stdout.fileno()
        answer = json.loads(_receive(handle, int.from_bytes(_receive(handle, _LENGTH, until)), until))
        return answer, _receive(handle, answer["bytes"], until)


def started(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start Python with these arguments: a module and its own."""
    return subprocess.Popen(  # noqa: S603 - modules of this package
        [sys.executable, "-P", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_HERE), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # a signal to the terminal is for the driver, which ends us
    )


def serve(answered: Callable[[dict[str, Any], bytes], Answer]) -> None:
    """Answer what comes in until nobody asks any more; the part of the child."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    for line in questions:
        asked = json.loads(line)
        answer, data = answered(asked, questions.read(asked["bytes"]))
        text = json.dumps({**answer, "bytes": len(data)}, default=str).encode()
        answers.write(len(text).to_bytes(_LENGTH) + text + data)
        answers.flush()


def _send(handle: int, data: bytes, until: float) -> None:
    """Write all of it; raises TimeoutError, or OSError when the other end is gone."""
    os.set_blocking(handle, False)
    sent = 0
    while sent < len(data):
        _wait(handle, select.POLLOUT, until)
        sent += os.write(handle, data[sent : sent + _PIECE])


def _receive(handle: int, count: int, until: float) -> bytes:
    """Read so many bytes.

    Raises:
        TimeoutError: they did not come in time.
        EOFError: the other end is gone.
    """
    received = bytearray()
    while len(received) < count:
        _wait(handle, select.POLLIN, until)
        piece = os.read(handle, count - len(received))
        if not piece:
            raise EOFError
        received += piece
    return bytes(received)


def _wait(handle: int, event: int, until: float) -> None:
    poll = select.poll()
    poll.register(handle, event)
    if not poll.poll(max(0.0, 1000 * (until - time.monotonic()))):
        raise TimeoutError
