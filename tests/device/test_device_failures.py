"""A failure of the device ends the worker, which says which images were on it; no other error does."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from explaining import chunk, rows, spec
from nets import ToyNet
from torch import Tensor

from pipeline.data.decode import DecodedChunk
from pipeline.errors import DeviceFailedError
from pipeline.explain.explainer import Explainer
from pipeline.model.device_failure import is_device_failure
from pipeline.model.probe import Probe
from pipeline.run.attempts import pieces, work_of
from pipeline.run.dataflow import explain_on
from pipeline.run.ledger import ENDS, Ledger
from pipeline.run.worker import Worker
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import read_part
from pipeline.telemetry.events import Committed

WORDS: dict[str, Exception] = {
    "PyTorch": torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ..."),
    "the runtime": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "the driver": RuntimeError("CUDA driver error: unspecified launch failure"),
    "Triton": RuntimeError("Triton Error [CUDA]: device-side assert triggered"),
    "memory": RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    "HIP": RuntimeError("HIP error: the operation cannot be performed: HSA_STATUS_ERROR_EXCEPTION"),
}
POISON = 77
"""The value of all pixels of the image at which the device fails."""


class Asserting(ToyNet):
    """Raises an error in passes that contain the poisonous image."""

    error: Exception = WORDS["PyTorch"]

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if isinstance(pixels_BCHW, Tensor) and bool((pixels_BCHW[:, 0].std((1, 2)) == 0).any()):
            raise self.error.with_traceback(None)
        return super().forward(pixels_BCHW)


class Left(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(code: int) -> None:
        assert code == 1
        raise Left

    monkeypatch.setattr(os, "_exit", leave)


def poisoned(count: int, place: int) -> DecodedChunk:
    decoded = chunk(count)
    decoded.pixels_NHWC[place] = POISON
    return decoded


@pytest.mark.parametrize("library", WORDS)
def test_a_failure_is_raised_with_the_images_that_were_on_the_device(library: str) -> None:
    model = Asserting(0)
    model.error = WORDS[library]
    with pytest.raises(DeviceFailedError, match=r"the device failed: .*; on it were the images k0, k1, .* and 4 more$"):
        rows(Explainer(model, spec()), poisoned(12, 3))


@pytest.mark.parametrize(
    "error", [ValueError("CUDA error: an x"), RuntimeError("CUDA error: CUBLAS_STATUS_X"), KeyError("x")]
)
def test_other_errors_are_none_of_the_device(error: Exception) -> None:
    assert not is_device_failure(error)


def test_a_failure_of_work_that_was_only_launched_is_found_after_another_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, waited = Asserting(0), list[torch.device]()
    model.error = ValueError("NaN in the boxes")

    def synchronize(device: torch.device) -> None:
        waited.append(device)
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    explainer = Explainer(model, spec())
    monkeypatch.setattr(Probe, "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(Explainer, "_pixels", lambda self, batch: torch.zeros(len(batch.samples), 3, 16, 16))
    with pytest.raises(DeviceFailedError, match="device-side assert"):
        rows(explainer, chunk(2))
    assert waited == [torch.device("cuda", 0)]


def attempts_at(decoded: DecodedChunk, folder: Path, ledger: Ledger) -> Iterator[list[Committed]]:
    """Start workers until one finishes the chunk, and yield what each committed; each explains in a thread."""
    threads = torch.get_num_threads()
    try:
        while True:
            worker = Worker(explain_on(Asserting(0), spec()), "run", str(folder), ledger)
            with ThreadPoolExecutor(1) as pool:
                done = pool.submit(lambda worker=worker: list(worker.process([decoded])))
                if isinstance(done.exception(60), Left):
                    yield []
                    continue
            yield [event for events in done.result() for event in events if isinstance(event, Committed)]
            return
    finally:
        torch.set_num_threads(threads)


def test_the_worker_is_replaced_and_only_the_image_that_fails_is_missing(tmp_path: Path) -> None:
    ledger = Ledger()
    *ended, (committed,) = attempts_at(poisoned(4, 2), tmp_path, ledger)
    assert len(ended) == 1 + ENDS
    assert committed.isolated
    whole, alone = committed.reasons
    assert whole == "the device failed: " + whole.split(": ", 1)[1]
    assert "device-side assert triggered" in whole
    assert whole.endswith("on it were the images k0, k1, k2, k3")
    assert alone.endswith("on it were the images k2")
    table, _ = read_part(LocalStore(tmp_path).read("part-00000-003.parquet"))
    failed = [row for row in table.to_pylist() if row["error_code"]]
    assert [(row["image_key"], row["error_code"]) for row in failed] == [("k2", "worker_died")]
    assert "device-side assert triggered" in failed[0]["error_detail"]
    assert ledger == Ledger(), "a finished chunk leaves nothing in the ledger"


def test_a_device_that_always_fails_ends_the_run_with_its_reason() -> None:
    ledger, decoded = Ledger(), chunk(12)
    work = work_of(decoded)
    ledger.begin(work)
    for image in range(9):
        for _ in range(ENDS):
            ledger.reach(work, image)
            ledger.fail(work, "the device failed: no kernel image is available")
            attempt = ledger.begin(work)
    with pytest.raises(Exception, match=r"workers died at 9 images .*no kernel image is available\. Check memory"):
        list(pieces(decoded, attempt, ledger))
