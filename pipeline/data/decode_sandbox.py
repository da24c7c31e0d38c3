"""Decodes images in a subprocess with a deadline and a memory limit, so that hostile images cannot harm the reader.

Baseline JPEGs of usual size are decoded in the reading process itself: they are the vast majority, and the code of
libjpeg-turbo for them is small. All other images go through the subprocess. An image that kills it, or exceeds a limit,
becomes one failure row. The next image gets a new subprocess if needed.

A decoder of the user's is imported and called in the subprocess only, for every image.
"""

import json
import math
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.arrays import frame_decoded
from pipeline.data.decode import frame_image
from pipeline.data.decoder import WHERE, LoadedDecoder, load_decoder
from pipeline.data.framing import Framed
from pipeline.data.limits import DecodeLimits, DecoderSource, UnreadableImageError
from pipeline.data.part_masks import PartMask
from pipeline.data.plain import frame_plain, plain_header
from pipeline.data.sandbox import Response, Sandbox, private_streams, serve, start_python
from pipeline.data.sources.shards import Boxes
from pipeline.errors import ConfigError, Mistake
from pipeline.settings.preprocess import Preprocess

DEADLINE_SECONDS = 20.0
MEMORY_BYTES = 3 << 29
"""Memory that one image may use, in addition to what the subprocess uses at its start."""
_IMPORT_SECONDS = 120.0
"""Longest import of a user's decoder, which may import large libraries."""
_TRIES = 2
"""Something else may have killed the subprocess once, or the machine may have stood still."""


class DecodeSandbox(Sandbox):
    """A subprocess that decodes one image at a time; starts on demand and restarts after it ends.

    Args:
        deadline: maximum seconds for one image.
        memory: maximum bytes of memory for one image.
        decoder: the user's decoder; None decodes image files.
    """

    def __init__(
        self,
        deadline: float = DEADLINE_SECONDS,
        memory: int = MEMORY_BYTES,
        decoder: DecoderSource | None = None,
    ) -> None:
        super().__init__(deadline)
        self._memory, self._decoder = memory, decoder

    def frame(
        self,
        data: bytes,
        boxes: Boxes | None,
        preprocess: Preprocess,
        limits: DecodeLimits,
        mask: PartMask | None = None,
    ) -> Framed:
        """Decode and frame an image in this process if it is a plain JPEG without parts, else in the subprocess.

        Raises:
            UnreadableImageError: as `decode_image` or `frame_decoded`; also with code `deadline` or `crashed`.
            ConfigError: the decoder cannot be imported here, or has another source.
        """
        header = plain_header(data) if self._decoder is None and mask is None else None
        if header is not None:
            framed = frame_plain(data, header, boxes, preprocess, limits)
            return frame_image(data, boxes, preprocess, limits) if framed is None else framed
        return self.frame_in_subprocess(data, boxes, preprocess, limits, mask)

    def frame_in_subprocess(
        self,
        data: bytes,
        boxes: Boxes | None,
        preprocess: Preprocess,
        limits: DecodeLimits,
        mask: PartMask | None = None,
    ) -> Framed:
        """Decode and frame an image in the subprocess, even if it is a plain JPEG."""
        rules = asdict(replace(limits, decoder=None))
        request: dict[str, Any] = {"boxes": boxes, "preprocess": asdict(preprocess), "limits": rules}
        if mask is not None:
            request |= {"parts": mask.parts, "image_bytes": len(data)}
            data += mask.png
        response, content = self._request(request, data)
        if "code" in response:
            raise UnreadableImageError(response["code"], response["detail"])
        count = math.prod(preprocess.size)
        array = np.frombuffer(content, response["dtype"], count * preprocess.channels)
        index_HW = None
        if mask is not None:
            index_HW = np.frombuffer(content, np.uint8, offset=array.nbytes).reshape(preprocess.size)
        moved = None if response["boxes"] is None else tuple(tuple(box) for box in response["boxes"])
        return Framed(
            array.reshape(*preprocess.size, preprocess.channels), moved, tuple(response["size"]),
            tuple(response["box_indices"]), response["peak"], index_HW,
        )  # fmt: skip

    def digest(self) -> str:
        """Import the decoder in the subprocess and return the digest of its source.

        Raises:
            ConfigError: it cannot be imported, or has another source than stated.
        """
        assert self._decoder is not None
        response = self._load(self._decoder.name)
        mistakes = [Mistake(*fields) for fields in response["mistakes"]]
        if not mistakes and self._decoder.digest not in ("", response["digest"]):
            mistakes = [
                Mistake(
                    WHERE, f"the source of '{self._decoder.name}' is not that of the run",
                    "it was changed since, or this machine has another one; restore it",
                )
            ]  # fmt: skip
        if mistakes:
            self.close()
            raise ConfigError(mistakes)
        return str(response["digest"])

    def _load(self, name: str) -> dict[str, Any]:
        """Let the subprocess import the decoder; return the digest of its source, and mistakes."""
        for _ in range(_TRIES):
            try:
                return self._exchange({"load": True}, seconds=_IMPORT_SECONDS)[0]
            except TimeoutError:
                return {"mistakes": [(WHERE, f"importing '{name}' took more than {_IMPORT_SECONDS:g} s")]}
            except (OSError, EOFError):
                self.close()
        return {"mistakes": [(WHERE, f"importing '{name}' ended the process")]}

    def _start(self) -> "subprocess.Popen[bytes]":
        return _start_subprocess(self._memory, self._decoder)

    def _request(self, request: dict[str, Any], data: bytes) -> Response:
        """Send a request; retry if the subprocess dies or hangs, because the image may not be the reason."""
        code, detail = "", ""
        for _ in range(_TRIES):
            if self._process is None and self._decoder is not None:
                self.digest()
            try:
                return self._exchange(request, data)
            except TimeoutError:
                code, detail = "deadline", f"not decoded within {self._deadline:g} s"
            except (OSError, EOFError):
                code, detail = "crashed", "the decoder crashed on it"
            self.close()
        raise UnreadableImageError(code, f"{detail}, tried twice")


def _start_subprocess(memory: int, decoder: DecoderSource | None) -> "subprocess.Popen[bytes]":
    of_user = () if decoder is None else (json.dumps(asdict(decoder)),)
    return start_python("-m", "pipeline.data.decode_sandbox", str(memory), *of_user)


def _handle(loaded: LoadedDecoder | ConfigError | None, request: dict[str, Any], data: bytes) -> Response:
    if "load" in request:
        return _described(loaded), b""
    limits, boxes = _limits(request["limits"]), request["boxes"] and tuple(tuple(box) for box in request["boxes"])
    frame: Callable[..., Framed] = frame_image
    if isinstance(loaded, LoadedDecoder):
        frame = partial(frame_decoded, loaded.decoder)
    mask: PartMask | None = None
    if "parts" in request:
        data, mask = data[: request["image_bytes"]], PartMask(data[request["image_bytes"] :], request["parts"])
    try:
        framed = frame(data, boxes, Preprocess.of(request["preprocess"]), limits, mask)
    except UnreadableImageError as error:
        return {"code": error.code, "detail": str(error)}, b""
    metadata: dict[str, object] = {
        "boxes": framed.boxes_xyxy, "size": framed.size, "box_indices": framed.box_indices, "peak": framed.peak,
        "dtype": framed.pixels_HWC.dtype.str,
    }  # fmt: skip
    return metadata, framed.pixels_HWC.tobytes() + (b"" if framed.index_HW is None else framed.index_HW.tobytes())


def _described(loaded: LoadedDecoder | ConfigError | None) -> dict[str, Any]:
    if isinstance(loaded, ConfigError):
        return {"mistakes": [astuple(mistake) for mistake in loaded.mistakes]}
    return {"mistakes": [], "digest": loaded.digest if loaded else ""}


def _limits(rules: dict[str, Any]) -> DecodeLimits:
    window = rules["window"]
    lists = {"formats": tuple(rules["formats"]), "window": tuple(window) if isinstance(window, list) else window}
    return DecodeLimits(**{**rules, **lists})


def _limit_memory(extra: int) -> None:
    """Limit the memory of this process to `extra` bytes more than it uses now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _main(memory: str, decoder: str = "") -> None:
    """Import the decoder, if there is one, before memory is limited; then handle requests."""
    streams = private_streams()
    loaded: LoadedDecoder | ConfigError | None = None
    if decoder:
        fields = json.loads(decoder)
        try:
            loaded = load_decoder(DecoderSource(**{**fields, "folders": tuple(fields["folders"])}))
        except ConfigError as error:
            loaded = error
    if sys.platform.startswith("linux"):
        _limit_memory(int(memory))
    serve(partial(_handle, loaded), streams)


if __name__ == "__main__":
    _main(*sys.argv[1:])
