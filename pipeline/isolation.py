"""Decoding in a process of its own, for images that could harm the one that reads: it may be killed, and is bounded.

Baseline JPEGs of usual size are decoded where they are read; they are most of all images, and libjpeg-turbo's way with
them is short. Everything else goes through a child process that has a deadline and a bound on memory. What ends the
child is one failure row; the next image gets a new child. The child is started by its module's name and speaks JSON
and raw bytes: it inherits nothing that Ray or torch may hold, and nothing that it says can run code.
"""

import contextlib
import io
import json
import os
import resource
import select
import subprocess
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from pipeline.decode import DecodeLimits, Framed, UnreadableImageError, frame_image
from pipeline.framing import Preprocess
from pipeline.sources.shards import Boxes

DEADLINE_SECONDS = 20.0
MEMORY_BYTES = 3 << 29
"""What one image may take beyond what the child holds anyway."""
_PLAIN_PIXELS = 16_000_000
_HERE = Path(__file__).resolve().parents[1]
"""Where the child finds this package; nothing is imported from the folder that a command is called in."""
_PIECE = 1 << 16
_LENGTH = 8
"""Bytes that say how long an answer is."""


def is_plain(data: bytes) -> bool:
    """Tell whether the bytes are a baseline JPEG of usual size; only the header is looked at."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            warnings.simplefilter("ignore")
            usual = image.width * image.height <= _PLAIN_PIXELS
            return usual and image.mode in ("L", "RGB") and not image.info.get("progressive")
    except Exception:  # hostile bytes: Pillow's parsers raise nearly every type there is
        return False


class Apart:
    """A child process that frames one image at a time; begun when it is needed, and again after it ended.

    Args:
        deadline: seconds that one image may take.
        memory: bytes that one image may take.
    """

    def __init__(self, deadline: float = DEADLINE_SECONDS, memory: int = MEMORY_BYTES) -> None:
        self._deadline, self._memory = deadline, memory
        self._child: subprocess.Popen[bytes] | None = None

    def frame(self, data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits) -> Framed:
        """Frame an image here if it is plain, else in the child.

        Raises:
            UnreadableImageError: as `decode_image`; also `deadline`, `memory` or `crashed`.
        """
        if is_plain(data):
            return frame_image(data, boxes, preprocess, limits)
        return self.frame_apart(data, boxes, preprocess, limits)

    def frame_apart(self, data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits) -> Framed:
        """Frame an image in the child, whatever it is."""
        asked = {"bytes": len(data), "boxes": boxes, "preprocess": asdict(preprocess), "limits": asdict(limits)}
        answer, pixels = self._answer(json.dumps(asked).encode() + b"\n" + data)
        if "code" in answer:
            raise UnreadableImageError(answer["code"], answer["detail"])
        array = np.frombuffer(pixels, np.uint8).reshape(preprocess.crop, preprocess.crop, 3)
        moved = None if answer["boxes"] is None else tuple(tuple(box) for box in answer["boxes"])
        return Framed(array, moved, tuple(answer["size"]), tuple(answer["places"]))

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            for stream in (self._child.stdin, self._child.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]  # both are pipes
            self._child.wait()
            self._child = None

    def _answer(self, question: bytes) -> tuple[dict[str, Any], bytes]:
        """Ask, and ask a new child once more when the first one died: somebody else may have killed it."""
        for _ in range(2):
            try:
                return self._exchange(question)
            except TimeoutError:
                self.close()
                raise UnreadableImageError("deadline", f"not decoded within {self._deadline:g} s") from None
            except (OSError, EOFError):
                self.close()
        raise UnreadableImageError("crashed", "the decoder died of it twice")

    def _exchange(self, question: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a question and read the answer, both before the deadline."""
        if self._child is None:
            self._child = _started(self._memory)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        until = time.monotonic() + self._deadline
        _send(self._child.stdin.fileno(), question, until)
        handle = self._child.stdout.fileno()
        answer = json.loads(_receive(handle, int.from_bytes(_receive(handle, _LENGTH, until)), until))
        return answer, _receive(handle, answer["bytes"], until)


def _started(memory: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - this file
        [sys.executable, "-P", "-m", "pipeline.isolation", str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_HERE), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # a signal to the terminal is for the driver, which ends us
    )


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


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until nobody asks any more."""
    for line in questions:
        asked = json.loads(line)
        answer, pixels = _framed(asked, questions.read(asked["bytes"]))
        text = json.dumps({**answer, "bytes": len(pixels)}).encode()
        answers.write(len(text).to_bytes(_LENGTH) + text + pixels)
        answers.flush()


def _framed(asked: dict[str, Any], data: bytes) -> tuple[dict[str, object], bytes]:
    limits = DecodeLimits(tuple(asked["limits"]["formats"]), asked["limits"]["max_pixels"])
    boxes = asked["boxes"] and tuple(tuple(box) for box in asked["boxes"])
    try:
        framed = frame_image(data, boxes, Preprocess(**asked["preprocess"]), limits)
    except UnreadableImageError as error:
        return {"code": error.code, "detail": str(error)}, b""
    known: dict[str, object] = {"boxes": framed.boxes_xyxy, "size": framed.size, "places": framed.places}
    return known, framed.pixels_HWC.tobytes()


def _bound_memory(extra: int) -> None:
    """Let this process take so much beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    if sys.platform.startswith("linux"):
        _bound_memory(int(sys.argv[1]))
    _serve(sys.stdin.buffer, sys.stdout.buffer)
