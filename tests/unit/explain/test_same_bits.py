"""Rows of every method are the same bit for bit, regardless of the other images in a pass."""

from collections.abc import Iterator

import pytest
import torch
from explaining import chunk, rows, spec
from nets import GapNet, StagedNet, TinyVit
from quick import OF_ATTENTION
from torch import nn

from pipeline.cams import METHODS, build_methods
from pipeline.explain.explainer import Explainer
from pipeline.metrics import build_metrics

FEW: dict[str, dict[str, object]] = {
    "smooth_gradcam_pp": {"samples": 2}, "integrated_gradcam": {"steps": 2}, "rsi_gradcam": {"steps": 2},
    "integrated_gradients": {"steps": 2}, "smoothgrad": {"samples": 2}, "iscam": {"num_steps": 2},
    "sscam": {"samples": 2}, "group_cam": {"groups": 2}, "rise": {"num_masks": 8}, "opti_cam": {"iterations": 2},
}  # fmt: skip
METRICS = ["average_drop", {"insertion": {"steps": 3}}, {"infidelity": {"samples": 2}}, "energy_in_box"]


def found(model: nn.Module, stages: tuple[str, ...], methods: list[object], batch: int) -> list[dict[str, object]]:
    """Return the rows of 19 images: with batch 16 a full and a padded pass, with batch 48 one padded pass."""
    settings = spec(
        layer=stages[-1], stages=stages, methods=build_methods(methods), metrics=build_metrics(METRICS), batch=batch
    )
    return rows(Explainer(model, settings), chunk(19))


def test_rows_of_every_method_are_the_same_for_every_batch_size() -> None:
    methods = [{name: FEW.get(name, {})} for name in METHODS if name not in ("cam", *OF_ATTENTION)]
    pieces = found(StagedNet(0, smooth=True), StagedNet.STAGES, methods, 16)
    assert pieces == found(StagedNet(0, smooth=True), StagedNet.STAGES, methods, 48)
    assert len(pieces) == 19 * len(methods)
    assert {row["error_code"] for row in pieces} == {None}
    assert torch.tensor([float(row["map_max"]) for row in pieces]).gt(0).float().mean() > 0.9  # type: ignore[arg-type]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: with two, its fused attention over 17 tokens rounds by the place in the pass."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_rows_of_methods_that_read_attention_are_the_same_for_every_batch_size() -> None:
    methods = [*sorted(OF_ATTENTION), "gradcam"]
    pieces = found(TinyVit(0), ("blocks.1",), methods, 16)
    assert pieces == found(TinyVit(0), ("blocks.1",), methods, 48)
    assert {row["error_code"] for row in pieces} == {None}


def test_rows_of_the_original_cam_are_the_same_for_every_batch_size() -> None:
    model, stages = GapNet(0, channels=8), ("features.1",)
    assert found(model, stages, ["cam"], 16) == found(model, stages, ["cam"], 48)
