"""Every method, bit for bit the same whatever stands beside an image in its pass."""

import torch
from explaining import chunk, rows, spec
from nets import GapNet, StagedNet
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
    """Rows of 19 images: a full pass of 16 and one that is filled up, or all in one that is filled up."""
    settings = spec(
        layer=stages[-1], stages=stages, methods=build_methods(methods), metrics=build_metrics(METRICS), batch=batch
    )
    return rows(Explainer(model, settings), chunk(19))


def test_rows_of_every_method_are_the_same_bit_for_bit_whatever_the_batch() -> None:
    methods = [{name: FEW.get(name, {})} for name in METHODS if name != "cam"]
    pieces = found(StagedNet(0, smooth=True), StagedNet.STAGES, methods, 16)
    assert pieces == found(StagedNet(0, smooth=True), StagedNet.STAGES, methods, 48)
    assert len(pieces) == 19 * len(methods)
    assert {row["error_code"] for row in pieces} == {None}
    assert torch.tensor([float(row["map_max"]) for row in pieces]).gt(0).float().mean() > 0.9  # type: ignore[arg-type]


def test_so_are_rows_of_the_first_cam() -> None:
    model, stages = GapNet(0, channels=8), ("features.1",)
    assert found(model, stages, ["cam"], 16) == found(model, stages, ["cam"], 48)
