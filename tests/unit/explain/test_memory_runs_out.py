"""When a full pass does not fit into memory, passes become smaller and the rows stay the same."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from explaining import chunk, rows, spec
from nets import ToyNet
from torch import Tensor, nn

from pipeline.cams import build_methods
from pipeline.explain.explainer import BATCH_MULTIPLE, Explainer
from pipeline.maps.codec import decode_stack

METHODS = ["gradcam", "scorecam", "recipro_cam", {"smoothgrad": {"samples": 2}}]
"""Methods that need every kind of pass: clean and backward, masked, through the head, and backward to the pixels."""
Rows = list[dict[str, object]]


class BackwardRunsOut(torch.autograd.Function):
    """The identity, whose backward pass runs out of memory."""

    @staticmethod
    def forward(ctx: object, values: Tensor, limit: int) -> Tensor:
        ctx.limit = limit  # type: ignore[attr-defined]
        return values.clone()

    @staticmethod
    def backward(ctx: object, grads: Tensor) -> tuple[Tensor, None]:
        if len(grads) > ctx.limit:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return grads, None


@dataclass
class Limits:
    """Most rows that fit into memory: in the trunk, in the head, and in the backward pass."""

    trunk: int = 10_000
    head: int = 10_000
    back: int = 10_000


class LimitedNet(ToyNet):
    """Runs out of memory with more rows than its limits."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(0)
        self.limits = limits

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        _run_out_of_memory_if(len(pixels_BCHW) > self.limits.trunk)
        acts_BKuv = self.features(pixels_BCHW)
        _run_out_of_memory_if(len(acts_BKuv) > self.limits.head)
        acts_BKuv = BackwardRunsOut.apply(acts_BKuv, self.limits.back)
        return self.linear(self.head(acts_BKuv).mean((2, 3)))


def _run_out_of_memory_if(too_many: bool) -> None:
    if too_many:
        raise torch.OutOfMemoryError("CUDA out of memory")


def explainer(model: nn.Module, batch: int | None = 48) -> Explainer:
    return Explainer(model, spec(methods=build_methods(METHODS), batch=batch))


@pytest.fixture(scope="module")
def expected() -> Rows:
    return rows(explainer(ToyNet(0)), chunk(20))


def assert_close(found: Rows, expected: Rows) -> None:
    """Compare maps within 1e-5 of their range (extended to zero), and all other numbers within 1e-5."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        low, high = (float(other[name]) for name in ("map_min", "map_max"))  # type: ignore[arg-type]
        span = max(high, 0.0) - min(low, 0.0)
        np.testing.assert_allclose(_map(row), _map(other), rtol=0, atol=1e-5 * span)
        for name in other.keys() - {"map", "map_min", "map_max"}:
            same = pytest.approx(other[name], abs=1e-5) if isinstance(other[name], float) else other[name]
            assert row[name] == same, name


def _map(row: dict[str, object]) -> np.ndarray:
    ranges = np.array([[row["map_min"], row["map_max"]]], dtype=np.float32)
    return decode_stack([row["map"]], row["map_height"], row["map_width"], row["map_dtype"], ranges)[0]  # type: ignore[list-item, arg-type]


LIMITS: dict[str, Callable[[int], Limits]] = {
    "trunk": lambda limit: Limits(trunk=limit),
    "head": lambda limit: Limits(head=limit),
    "back": lambda limit: Limits(back=limit),
}


@pytest.mark.parametrize("where", LIMITS)
@pytest.mark.parametrize("limit", [24, 8, 1])
def test_passes_become_smaller_and_rows_stay_the_same(where: str, limit: int, expected: Rows) -> None:
    limited = explainer(LimitedNet(LIMITS[where](limit)))
    found = rows(limited, chunk(20))
    assert_close(found, expected)
    if limit == 24:  # passes of 16 are full, and full passes give the same bits
        assert found == expected
    else:
        assert limited.probe.batcher.size == limited.usage().batch == limit
        assert limited.usage().batch is None  # reported once
        rows(limited, chunk(20))
        assert limited.probe.batcher.size == limit  # kept for the next chunk


def test_the_pass_size_can_be_chosen_when_a_full_pass_does_not_fit_into_memory(expected: Rows) -> None:
    assert_close(rows(explainer(LimitedNet(Limits(trunk=8)), batch=None), chunk(20)), expected)


@pytest.mark.parametrize("where", LIMITS)
def test_an_image_that_does_not_fit_into_memory_alone_is_a_failure(where: str) -> None:
    limited = explainer(LimitedNet(LIMITS[where](0)))
    found = rows(limited, chunk(3))
    assert [(row["image_key"], row["error_code"]) for row in found] == [(f"k{i}", "out_of_memory") for i in range(3)]
    assert limited.probe.batcher.size >= BATCH_MULTIPLE


class Greedy(ToyNet):
    """Runs out of memory on images with a certain first pixel, in passes of any size."""

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        _run_out_of_memory_if(bool((pixels_BCHW[:, 0, 0, 0] > 2.2).any()))
        return super().forward(pixels_BCHW)


def test_one_image_that_needs_too_much_memory_does_not_make_passes_smaller() -> None:
    decoded = chunk(7)
    decoded.pixels_NHWC[:, 0, 0, 0] = 0
    clean = [row for row in rows(explainer(ToyNet(0), 16), decoded) if row["image_key"] != "k4"]
    decoded.pixels_NHWC[4, 0, 0, 0] = 255
    greedy = explainer(Greedy(0), 16)
    found = rows(greedy, decoded)
    assert [row["error_code"] for row in found if row["image_key"] == "k4"] == ["out_of_memory"]
    assert [row for row in found if row["image_key"] != "k4"] == clean
    assert greedy.probe.batcher.size == greedy.probe.scorer.batcher.size == 16
    assert greedy.usage().batch is None
