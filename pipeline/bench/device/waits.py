"""Counts how often the host waits for a GPU, by the line that asks: PyTorch warns of every wait if it is told to."""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch

import pipeline
from pipeline.bench.device.clock import Device

_OURS = str(Path(pipeline.__file__).parent)
_ELSEWHERE = (f"{_OURS}/model/transfers.py", f"{_OURS}/bench/")
"""Code that others call to transfer tensors, or that measures them: the line that asks lies further out."""
_WORD = "synchroniz"


@contextmanager
def counted_waits(device: Device) -> Iterator[Counter[str]]:
    """Count the waits of a block, by line; on a CPU, whose work is done when it returns, there are none."""
    found = Counter[str]()
    if not device.is_gpu:
        yield found
        return

    def note(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        del category, filename, lineno, file, line  # of the innermost line, which may be PyTorch's
        if _WORD in str(message):
            found[_asking_line()] += 1

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # the end of the block restores it
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)


def _asking_line() -> str:
    """Return the innermost line of the pipeline that is running, apart from transfers."""
    frame = sys._getframe(1)
    while (following := frame.f_back) is not None:
        frame = following
        file = frame.f_code.co_filename
        if file.startswith(_OURS) and not file.startswith(_ELSEWHERE):
            return f"pipeline{file[len(_OURS) :]}:{frame.f_lineno}"
    return "outside of the pipeline"
