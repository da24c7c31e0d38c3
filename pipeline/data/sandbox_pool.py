"""A few subprocesses that decode images, for the threads of one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import LifoQueue

from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.limits import DecoderSource

SANDBOXES = 4
"""Most images that are decoded at once."""


class SandboxPool:
    """Subprocesses that decode images, each for one thread at a time; started on demand."""

    def __init__(self, decoder: DecoderSource | None) -> None:
        self._all = [DecodeSandbox(decoder=decoder) for _ in range(SANDBOXES)]
        self._free: LifoQueue[DecodeSandbox] = LifoQueue()
        for sandbox in self._all:
            self._free.put(sandbox)

    @contextmanager
    def taken(self) -> Iterator[DecodeSandbox]:
        """Lend one; waits until one is free."""
        sandbox = self._free.get()
        try:
            yield sandbox
        finally:
            self._free.put(sandbox)

    def close(self) -> None:
        """End the subprocesses."""
        for sandbox in self._all:
            sandbox.close()
