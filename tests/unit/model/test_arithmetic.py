"""fp32 multiplies as IEEE 754 says and tf32 does not, in every thread, and PyTorch's switches are restored."""

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from explaining import chunk, spec
from nets import ToyNet, images
from torch import Tensor

import pipeline
from pipeline.data.decode import DecodedChunk
from pipeline.errors import ConfigError
from pipeline.explain.explainer import Explainer
from pipeline.model.arithmetic import Switches, check_precision, multiplying
from pipeline.model.probe import Probe
from pipeline.run.dataflow import explain_on
from pipeline.settings.precision import Precision

IEEE = Switches(("ieee",) * 6, "highest", False)
TF32 = Switches(("tf32",) * 3 + ("ieee",) * 3, "high", True)
MIXED = {
    "untouched": lambda: None,
    "the older functions": lambda: torch.set_float32_matmul_precision("medium"),
    "the newer functions": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "both, which contradict each other": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
}


@pytest.fixture(autouse=True)
def switches_of_others() -> Iterator[None]:
    before = Switches.now()
    yield
    before.use()


@pytest.mark.parametrize("used", MIXED)
@pytest.mark.parametrize(("precision", "expected"), [("fp32", IEEE), ("bf16", IEEE), ("tf32", TF32)])
def test_the_switches_say_the_same_and_are_restored(precision: Precision, expected: Switches, used: str) -> None:
    MIXED[used]()
    before = Switches.now()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with multiplying(precision):
            assert Switches.now() == expected
            with torch.backends.cudnn.flags(enabled=False):  # reads all of them, and raises where they contradict
                pass
    after = Switches.now()
    assert after.fp32_precision == before.fp32_precision
    assert after == before or before.matmul is None  # it says now what the others say


def assert_tf32() -> None:
    assert Switches.now() == TF32


def test_blocks_are_nested_and_an_error_ends_them() -> None:
    before = Switches.now()
    with multiplying("fp32"):
        with pytest.raises(KeyError), multiplying("tf32"):
            raise KeyError(assert_tf32())
        assert Switches.now() == IEEE
    assert Switches.now() == before


def test_threads_share_an_arithmetic_and_wait_for_the_end_of_another() -> None:
    entered, began = threading.Event(), threading.Event()

    def compute(precision: Precision) -> Switches:
        began.set()
        with multiplying(precision):
            entered.set()
            return Switches.now()

    with ThreadPoolExecutor(2) as pool:
        with multiplying("fp32"):
            assert pool.submit(compute, "bf16").result(10) == IEEE
            entered.clear()
            began.clear()
            waiting = pool.submit(compute, "tf32")
            assert began.wait(10)
            assert not entered.wait(0.05)
            assert Switches.now() == IEEE
        assert waiting.result(10) == TF32


class Seeing(ToyNet):
    """Notes the switches of each forward pass, outside of its state so that copies share it."""

    seen: list[Switches]

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if isinstance(pixels_BCHW, Tensor):  # not the proxy of a symbolic trace
            Seeing.seen.append(Switches.now())
        return super().forward(pixels_BCHW)


@pytest.fixture
def seen() -> list[Switches]:
    Seeing.seen = []
    return Seeing.seen


def run_in_an_actor(decoded: DecodedChunk, **changes: Any) -> None:
    """Make the explain function and call it in another thread, as in an actor of Ray."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            explain = explain_on(Seeing(0), spec(**changes))
            pool.submit(lambda: list(explain(decoded))).result(60)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("batch", [16, None])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_worker_multiplies_as_ieee_754_says(precision: str, batch: int | None, seen: list[Switches]) -> None:
    before = Switches.now()
    run_in_an_actor(chunk(2), precision=precision, batch=batch)
    assert set(seen) == {IEEE}
    assert Switches.now() == before


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU pass for a device that has TF32."""
    monkeypatch.setattr("pipeline.model.arithmetic._has_tf32", lambda _: True)


@pytest.mark.usefixtures("ampere")
def test_a_worker_multiplies_in_tf32_if_the_run_says_so(seen: list[Switches]) -> None:
    run_in_an_actor(chunk(2), precision="tf32")
    assert set(seen) == {TF32}


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize(("precision", "expected"), [("fp32", IEEE), ("tf32", TF32)])
def test_explain_and_evaluate_multiply_as_requested(
    precision: Precision, expected: Switches, seen: list[Switches]
) -> None:
    model, pixels_BCHW = Seeing(0), images(0)
    explanations = pipeline.explain(model, pixels_BCHW, precision=precision, layer="features.3", outputs="softmax")
    seen.clear()  # the trial before is another
    explanations = pipeline.explain(model, pixels_BCHW, precision=precision, layer="features.3", outputs="softmax")
    assert seen[-1] == expected
    seen.clear()
    pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop"])
    assert set(seen) == {expected}


def test_an_explainer_leaves_its_arithmetic_between_tables() -> None:
    before = Switches.now()
    explainer = Explainer(ToyNet(0), spec())
    for _ in explainer.tables(chunk(3)):
        assert Switches.now() == before


@pytest.mark.parametrize(
    ("capability", "hip", "refused"), [((8, 0), None, False), ((7, 5), None, True), ((9, 0), "7.0", True)]
)
def test_tf32_is_refused_where_it_would_be_fp32(
    capability: tuple[int, int], hip: str | None, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch, "version", SimpleNamespace(hip=hip))
    device = torch.device("cuda", 0)
    check_precision("fp32", device)
    if not refused:
        check_precision("tf32", device)
        return
    with pytest.raises(ConfigError, match="tf32 needs an NVIDIA GPU of the Ampere generation or later, not cuda:0"):
        check_precision("tf32", device)


def test_tf32_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="not cpu"):
        Probe(ToyNet(0), "features.3", precision="tf32")
