"""Decoding in a process of its own, for images that could harm the one that reads: it may be killed, and is bounded.

Baseline JPEGs of usual size are decoded where they are read; they are most of all images, and libjpeg-turbo's way with
them is short. Everything else goes through a child process that has a deadline and a bound on memory. What ends the
child is one failure row; the next image gets a new child.
"""

import io
import resource
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.decode import DecodeLimits, Framed, UnreadableImageError, frame_image
from pipeline.data.sandbox import Answer, Sandbox, serve, started
from pipeline.data.sources.shards import Boxes
from pipeline.settings.preprocess import Preprocess

DEADLINE_SECONDS = 20.0
MEMORY_BYTES = 3 << 29
"""What one image may take beyond what the child holds anyway."""
_PLAIN_PIXELS = 16_000_000


def is_plain(data: bytes) -> bool:
    """Tell whether the bytes are a baseline JPEG of usual size; only the header is looked at."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            warnings.simplefilter("ignore")
            usual = image.width * image.height <= _PLAIN_PIXELS
            return usual and image.mode in ("L", "RGB") and not image.info.get("progressive")
    except Exception:  # hostile bytes: Pillow's parsers raise nearly every type there is
        return False


class DecodeSandbox(Sandbox):
    """A child process that frames one image at a time; begun when it is needed, and again after it ended.

    Args:
        deadline: seconds that one image may take.
        memory: bytes that one image may take.
    """

    def __init__(self, deadline: float = DEADLINE_SECONDS, memory: int = MEMORY_BYTES) -> None:
        super().__init__(deadline)
        self._memory = memory

    def frame(self, data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits) -> Framed:
        """Frame an image here if it is plain, else in the child.

        Raises:
            UnreadableImageError: as `decode_image`; also `deadline`, `memory` or `crashed`.
        """
        if is_plain(data):
            return frame_image(data, boxes, preprocess, limits)
        return self.frame_in_subprocess(data, boxes, preprocess, limits)

    def frame_in_subprocess(
        self, data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits
    ) -> Framed:
        """Frame an image in the child, whatever it is."""
        asked = {"boxes": boxes, "preprocess": asdict(preprocess), "limits": asdict(limits)}
        answer, pixels = self._answer(asked, data)
        if "code" in answer:
            raise UnreadableImageError(answer["code"], answer["detail"])
        array = np.frombuffer(pixels, np.uint8).reshape(preprocess.crop, preprocess.crop, 3)
        moved = None if answer["boxes"] is None else tuple(tuple(box) for box in answer["boxes"])
        return Framed(array, moved, tuple(answer["size"]), tuple(answer["places"]))

    def _begin(self) -> "subprocess.Popen[bytes]":
        return _started(self._memory)

    def _answer(self, question: dict[str, Any], data: bytes) -> Answer:
        """Ask, and ask a new child once more when the first one died: somebody else may have killed it."""
        for _ in range(2):
            try:
                return self._exchange(question, data)
            except TimeoutError:
                self.close()
                raise UnreadableImageError("deadline", f"not decoded within {self._deadline:g} s") from None
            except (OSError, EOFError):
                self.close()
        raise UnreadableImageError("crashed", "the decoder died of it twice")


def _started(memory: int) -> "subprocess.Popen[bytes]":
    return started("-m", "pipeline.data.decode_sandbox", str(memory))


def _framed(asked: dict[str, Any], data: bytes) -> Answer:
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
    serve(_framed)
