"""Decodes images in a subprocess with a deadline and a memory limit, so that hostile images cannot harm the reader.

Baseline JPEGs of usual size are decoded in the reading process itself: they are the vast majority, and the code of
libjpeg-turbo for them is small. All other images go through the subprocess. An image that kills it, or exceeds a limit,
becomes one failure row. The next image gets a new subprocess if needed.
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
from pipeline.data.sandbox import Response, Sandbox, serve, start_python
from pipeline.data.sources.shards import Boxes
from pipeline.settings.preprocess import Preprocess

DEADLINE_SECONDS = 20.0
MEMORY_BYTES = 3 << 29
"""Memory that one image may use, in addition to what the subprocess uses at its start."""
_PLAIN_PIXELS = 16_000_000


def is_plain(data: bytes) -> bool:
    """Return whether the bytes are a baseline JPEG of usual size; only the header is read."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            warnings.simplefilter("ignore")
            usual = image.width * image.height <= _PLAIN_PIXELS
            return usual and image.mode in ("L", "RGB") and not image.info.get("progressive")
    except Exception:  # Pillow's parsers raise almost any type of exception on hostile bytes
        return False


class DecodeSandbox(Sandbox):
    """A subprocess that decodes one image at a time; starts on demand and restarts after it ends.

    Args:
        deadline: maximum seconds for one image.
        memory: maximum bytes of memory for one image.
    """

    def __init__(self, deadline: float = DEADLINE_SECONDS, memory: int = MEMORY_BYTES) -> None:
        super().__init__(deadline)
        self._memory = memory

    def frame(self, data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits) -> Framed:
        """Decode and frame an image in this process if it is a plain JPEG, else in the subprocess.

        Raises:
            UnreadableImageError: as `decode_image`; also with code `deadline` or `crashed`.
        """
        if is_plain(data):
            return frame_image(data, boxes, preprocess, limits)
        return self.frame_in_subprocess(data, boxes, preprocess, limits)

    def frame_in_subprocess(
        self, data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits
    ) -> Framed:
        """Decode and frame an image in the subprocess, even if it is a plain JPEG."""
        request = {"boxes": boxes, "preprocess": asdict(preprocess), "limits": asdict(limits)}
        response, pixels = self._request(request, data)
        if "code" in response:
            raise UnreadableImageError(response["code"], response["detail"])
        array = np.frombuffer(pixels, np.uint8).reshape(preprocess.crop, preprocess.crop, 3)
        moved = None if response["boxes"] is None else tuple(tuple(box) for box in response["boxes"])
        return Framed(array, moved, tuple(response["size"]), tuple(response["box_indices"]))

    def _start(self) -> "subprocess.Popen[bytes]":
        return _start_subprocess(self._memory)

    def _request(self, request: dict[str, Any], data: bytes) -> Response:
        """Send a request; retry once if the subprocess dies, because something else may have killed it."""
        for _ in range(2):
            try:
                return self._exchange(request, data)
            except TimeoutError:
                self.close()
                raise UnreadableImageError("deadline", f"not decoded within {self._deadline:g} s") from None
            except (OSError, EOFError):
                self.close()
        raise UnreadableImageError("crashed", "the decoder crashed on it twice")


def _start_subprocess(memory: int) -> "subprocess.Popen[bytes]":
    return start_python("-m", "pipeline.data.decode_sandbox", str(memory))


def _handle(request: dict[str, Any], data: bytes) -> Response:
    limits = DecodeLimits(tuple(request["limits"]["formats"]), request["limits"]["max_pixels"])
    boxes = request["boxes"] and tuple(tuple(box) for box in request["boxes"])
    try:
        framed = frame_image(data, boxes, Preprocess(**request["preprocess"]), limits)
    except UnreadableImageError as error:
        return {"code": error.code, "detail": str(error)}, b""
    metadata: dict[str, object] = {"boxes": framed.boxes_xyxy, "size": framed.size, "box_indices": framed.box_indices}
    return metadata, framed.pixels_HWC.tobytes()


def _limit_memory(extra: int) -> None:
    """Limit the memory of this process to `extra` bytes more than it uses now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    if sys.platform.startswith("linux"):
        _limit_memory(int(sys.argv[1]))
    serve(_handle)
