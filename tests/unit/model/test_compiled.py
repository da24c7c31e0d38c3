"""Compiled passes come in few sizes, also from other threads; what cannot be compiled runs uncompiled, said once."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from explaining import chunk, rows, spec
from nets import ToyNet
from torch import Tensor, nn

from pipeline.explain.explainer import Explainer
from pipeline.model import compiled
from pipeline.model.compiled import MOST_GRAPHS, Compiled
from pipeline.run.worker import total_usage
from pipeline.telemetry.events import Usage

Fails = Callable[[int], Exception | None]


class Compiler:
    """Stands for torch.compile: notes the sizes that are compiled, and fails on request."""

    def __init__(self) -> None:
        self.sizes, self.passes = list[int](), list[int]()
        self.fails: Fails = lambda size: None

    def __call__(self, model: nn.Module, **_: object) -> Callable[[Tensor], Tensor]:
        def network(pixels_PCHW: Tensor) -> Tensor:
            size = len(pixels_PCHW)
            if size not in self.sizes:
                self.sizes.append(size)
            if error := self.fails(size):
                raise error
            self.passes.append(size)
            return model(pixels_PCHW)

        return network


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    fake = Compiler()
    monkeypatch.setattr(torch, "compile", fake)
    return fake


def model_of() -> Compiled:
    return Compiled(ToyNet(0), lambda network, pixels_PCHW: network(pixels_PCHW))


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize(
    ("rows", "sizes", "passes"),
    [
        ([64, 64, 48, 64], [64], [64, 64, 64, 64]),  # a pass that is nearly full is filled up
        ([64, 16, 16, 32, 8], [64, 16], [64, 16, 16, 64, 16]),
        ([16, 64, 256, 128, 20], [16, 64, 256], [16, 64, 256, 256, 64]),  # no fourth size
        ([8, 16, 32, 100], [8, 16, 32], [8, 16, 32, 32, 32, 32, 8]),  # more than the largest: in pieces
        ([128, 8, 24, 32], [128, 8, 32], [128, 8, 32, 32]),  # a size that serves more than one
    ],
)
def test_at_most_three_sizes_are_compiled(
    rows: list[int], sizes: list[int], passes: list[int], compiler: Compiler
) -> None:
    model = model_of()
    for count in rows:
        torch.testing.assert_close(model.logits(images(count)), ToyNet(0)(images(count)))
    assert (compiler.sizes, compiler.passes) == (sizes, passes)
    assert model.trouble == ""


def test_a_size_that_does_not_fit_into_memory_is_not_tried_again(compiler: Compiler) -> None:
    compiler.fails = lambda size: torch.OutOfMemoryError("CUDA out of memory") if size > 32 else None
    model = model_of()
    for count in (128, 64):
        with pytest.raises(torch.OutOfMemoryError):
            model.logits(images(count))
    for count in (32, 64, 8):
        assert len(model.logits(images(count))) == count
    assert compiler.sizes == [128, 64, 32]
    assert compiler.passes == [32, 32, 32, 32]
    compiler.fails = lambda size: torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        model.logits(images(8))
    assert len(model.logits(images(8))) == 8, "uncompiled, because all graphs were too large"
    assert len(compiler.sizes) == MOST_GRAPHS


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to find C compiler"), AssertionError(), OSError("no gcc"), KeyError("x")]
)
def test_a_model_that_cannot_be_compiled_runs_uncompiled_with_one_warning(error: Exception, compiler: Compiler) -> None:
    compiler.fails = lambda _: error
    model = model_of()
    with pytest.warns(UserWarning, match="cannot be compiled and runs uncompiled"):
        first_PN = model.logits(images(16))
    torch.testing.assert_close(first_PN, ToyNet(0)(images(16)))
    for count in (16, 32):  # a second warning would be an error
        torch.testing.assert_close(model.logits(images(count)), ToyNet(0)(images(count)))
    assert compiler.sizes == [16]


def test_an_error_of_the_model_or_of_the_device_is_none_of_the_compiler(compiler: Compiler) -> None:
    model = model_of()
    with pytest.raises(RuntimeError, match="channels"):
        model.logits(torch.zeros(4, 5, 16, 16))
    compiler.fails = lambda _: torch.AcceleratorError("CUDA error: device-side assert triggered")
    with pytest.raises(torch.AcceleratorError):
        model.logits(torch.zeros(4, 5, 16, 16))
    assert model.trouble == ""


def test_no_cuda_graphs_are_recorded() -> None:
    assert compiled._OPTIONS["triton.cudagraphs"] is False


def test_the_warning_reaches_the_driver_once(compiler: Compiler) -> None:
    compiler.fails = lambda _: RuntimeError("Failed to find C compiler")
    explainer = Explainer(ToyNet(0), spec(compiled=True))

    def explain() -> Usage:
        assert {row["error_code"] for row in rows(explainer, chunk(2))} == {None}
        return explainer.usage()

    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (pool.submit(explain).result(60) for _ in range(2))
    assert ["cannot be compiled" in note for note in first.notes] == [True]
    assert second.notes == ()
    assert total_usage([first, second, first]).notes == first.notes
