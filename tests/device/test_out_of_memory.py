"""Every wording of want of memory makes passes smaller, and no other error does."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from explaining import chunk, rows, spec
from nets import ToyNet
from torch import Tensor

from pipeline.data.decode import DecodedChunk
from pipeline.errors import DeviceFailedError
from pipeline.explain.explainer import BATCH_MULTIPLE, Explainer
from pipeline.model.batching import is_out_of_memory

WORDS: dict[str, Exception] = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."),
    "CUDA runtime": torch.AcceleratorError("CUDA error: out of memory"),
    "CUDA driver": RuntimeError("CUDA driver error: out of memory"),
    "cuDNN 8": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuDNN 9": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "cuDNN engines": RuntimeError("GET was unable to find an engine to execute this computation"),
    "cuDNN trials": RuntimeError("FIND was unable to find an engine to execute this computation after trying 9 plans."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuSOLVER": RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    "cuSPARSE": RuntimeError("CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`"),
    "cuFFT": RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    "NVRTC": RuntimeError("CUDA NVRTC error: NVRTC_ERROR_OUT_OF_MEMORY"),
    "Triton": RuntimeError("Triton Error [CUDA]: out of memory"),
    "NVRTC, of the driver": RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
    "CUDA by its name": RuntimeError("cudaErrorMemoryAllocation: out of memory"),
    "cuBLAS Lt": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtMatmulAlgoGetHeuristic`"),
    "MAGMA": RuntimeError("MAGMA gesdd : the call could not allocate device memory"),
    "HIP by its name": RuntimeError("hipErrorOutOfMemory"),
    "HIP": torch.OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB"),
    "HIP runtime": RuntimeError("HIP error: out of memory"),
    "hipBLAS": RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    "MIOpen": RuntimeError("miopenStatusAllocFailed"),
    "rocBLAS": RuntimeError("rocblas_status_memory_error"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 8.8 GB, other allocations: 26 MB)"),
    "a buffer of MPS": RuntimeError("Invalid buffer size: 20.00 GiB"),
    "XPU": RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "oneDNN": RuntimeError("could not create a primitive"),
    "C++": RuntimeError("std::bad_alloc"),
    "Python": MemoryError("Unable to allocate 3.00 GiB for an array"),
}
OTHERS: dict[str, Exception] = {
    "shapes": RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    "an unsupported algorithm": RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    "an unsupported primitive": RuntimeError("could not create a primitive descriptor for a convolution"),
    "a handle": RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    "a lost device": torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    "a model's own": ValueError("the queue is out of memory slots"),
    "a port": RuntimeError("could not allocate a port"),
}
Fails = Callable[[int], bool]


def rows_of_an_actor(explainer: Explainer, decoded: DecodedChunk) -> list[dict[str, object]]:
    """Explain in another thread than that which made the explainer, as an actor of Ray does."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(rows, explainer, decoded).result(60)


class Failing(ToyNet):
    """Raises an error in passes whose number of rows it does not like."""

    def __init__(self, error: Exception, fails: Fails) -> None:
        super().__init__(0)
        self.error, self.fails = error, fails

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if isinstance(pixels_BCHW, Tensor) and self.fails(len(pixels_BCHW)):
            raise self.error.with_traceback(None)
        return super().forward(pixels_BCHW)


@pytest.fixture(scope="module")
def expected() -> list[dict[str, object]]:
    return rows(Explainer(ToyNet(0), spec(batch=BATCH_MULTIPLE)), chunk(20))


@pytest.mark.parametrize("library", WORDS)
def test_passes_become_smaller_and_the_rows_stay(library: str, expected: list[dict[str, object]]) -> None:
    explainer = Explainer(Failing(WORDS[library], lambda count: count > BATCH_MULTIPLE), spec(batch=3 * BATCH_MULTIPLE))
    assert rows_of_an_actor(explainer, chunk(20)) == expected
    assert explainer.usage().batch == BATCH_MULTIPLE


@pytest.mark.parametrize("library", ["CUDA", "CUDA runtime", "cuDNN 9", "MPS", "Python"])
def test_passes_become_smaller_than_their_padding(library: str) -> None:
    explainer = Explainer(Failing(WORDS[library], lambda count: count > 5), spec(batch=BATCH_MULTIPLE))
    assert {row["error_code"] for row in rows_of_an_actor(explainer, chunk(3))} == {None}
    assert explainer.usage().batch == 4


@pytest.mark.parametrize("library", ["CUDA", "CUDA runtime", "cuDNN 9", "MPS", "Python"])
def test_an_image_for_which_one_row_is_too_much_is_a_failure_of_memory(library: str) -> None:
    found = rows_of_an_actor(Explainer(Failing(WORDS[library], lambda _: True), spec()), chunk(2))
    assert [row["error_code"] for row in found] == ["out_of_memory"] * 2


@pytest.mark.parametrize("what", OTHERS)
def test_other_errors_are_none_of_memory(what: str) -> None:
    assert not is_out_of_memory(OTHERS[what])
    explainer = Explainer(Failing(OTHERS[what], lambda _: True), spec())
    if isinstance(OTHERS[what], torch.AcceleratorError):
        with pytest.raises(DeviceFailedError, match=r"on it were the images k0, k1$"):
            rows_of_an_actor(explainer, chunk(2))
        return
    assert [row["error_code"] for row in rows_of_an_actor(explainer, chunk(2))] == ["model_error"] * 2
    assert explainer.usage().batch is None


def test_an_error_that_was_raised_from_want_of_memory_is_one() -> None:
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("a layer failed") from torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(raised.value)
    raised.value.__cause__ = raised.value  # a cycle
    assert not is_out_of_memory(raised.value)
