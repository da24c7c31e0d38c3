"""A subprocess with a deadline, for work on bytes that could crash or block the process that needs the result.

It is started by module name and exchanges JSON and raw bytes. So it inherits no state of Ray or torch, and its
responses cannot run code.
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
from typing import Any, BinaryIO

Response = tuple[dict[str, Any], bytes]
Streams = tuple[BinaryIO, BinaryIO]
"""Where a subprocess reads requests and writes responses."""

_ROOT = Path(__file__).resolve().parents[2]
"""Folder from which the subprocess imports this package, instead of from the current directory."""
_WRITE_BYTES = 1 << 16
_LENGTH_BYTES = 8
"""Size of the prefix that gives the length of a response."""


class Sandbox:
    """A subprocess that handles one request at a time; starts on demand and restarts after it ends.

    Args:
        deadline: maximum seconds for one request.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """Kill the subprocess."""
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]  # both are pipes
            self._process.wait()
            self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        raise NotImplementedError

    def _exchange(self, request: dict[str, Any], data: bytes = b"", seconds: float | None = None) -> Response:
        """Send a request and read the response, both within `seconds`, by default those of every request.

        Raises:
            TimeoutError: the deadline passed.
            OSError, EOFError: the subprocess is gone.
        """
        if self._process is None:
            self._process = self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + (self._deadline if seconds is None else seconds)
        text = json.dumps({**request, "bytes": len(data)}).encode()
        _send(self._process.stdin.fileno(), text + b"\n" + data, deadline)
        fd = self._process.stdout.fileno()
        response = json.loads(_receive(fd, int.from_bytes(_receive(fd, _LENGTH_BYTES, deadline)), deadline))
        return response, _receive(fd, response["bytes"], deadline)


def start_python(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start a Python subprocess with these command line arguments."""
    return subprocess.Popen(  # noqa: S603 - modules of this package
        [sys.executable, "-P", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C goes to the driver only, which then ends this subprocess
    )


def private_streams() -> Streams:
    """Return the streams of requests and responses, after taking them from code that reads or prints."""
    requests, responses = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b", buffering=0) as nothing:  # noqa: PTH123 - not a path of the user's
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    return requests, responses


def serve(handle: Callable[[dict[str, Any], bytes], Response], streams: Streams | None = None) -> None:
    """Handle requests in the subprocess until the input ends."""
    requests, responses = streams or private_streams()
    for line in requests:
        request = json.loads(line)
        response, data = handle(request, requests.read(request["bytes"]))
        text = json.dumps({**response, "bytes": len(data)}, default=str).encode()
        responses.write(len(text).to_bytes(_LENGTH_BYTES) + text + data)
        responses.flush()


def _send(fd: int, data: bytes, deadline: float) -> None:
    """Write all of the data; raises TimeoutError, or OSError if the other end is gone."""
    os.set_blocking(fd, False)
    sent = 0
    while sent < len(data):
        _wait(fd, select.POLLOUT, deadline)
        sent += os.write(fd, data[sent : sent + _WRITE_BYTES])


def _receive(fd: int, count: int, deadline: float) -> bytes:
    """Read `count` bytes.

    Raises:
        TimeoutError: they did not arrive before the deadline.
        EOFError: the other end is gone.
    """
    received = bytearray()
    while len(received) < count:
        _wait(fd, select.POLLIN, deadline)
        piece = os.read(fd, count - len(received))
        if not piece:
            raise EOFError
        received += piece
    return bytes(received)


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError
