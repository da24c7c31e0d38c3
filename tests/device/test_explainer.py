"""The Explainer, the notebook's functions and the dry run on the simulated device."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from device.simulated import is_here, simulated, to_host
from device.small_nets import CLASSES, SIDE, SmallCnn, SmallVit, made, pictures
from device.small_runs import left_behind
from explaining import SHARD, spec
from torch import Tensor, nn

import camatlas
from pipeline.cams import build_methods
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.data.sources import Chunk
from pipeline.explain.explainer import Explainer, ExplainerSpec
from pipeline.metrics import build_metrics
from pipeline.model.engine import Precision
from pipeline.planning.dry_run import DryRunner
from pipeline.settings.targets import TargetRules

METHODS = ["gradcam", {"scorecam": {"clusters": 4}}, "recipro_cam", {"smoothgrad": {"samples": 2, "grid": 8}}]
METRICS = ["average_drop", {"insertion": {"steps": 3}}, "energy_in_box", "pointing_game"]
BOXES = [[[2.0, 3.0, 20.0, 25.0]], None, [[0.0, 0.0, 9.0, 9.0]]]


def chunk(count: int = 5) -> DecodedChunk:
    pixels_NHWC = np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    samples = tuple(DecodedSample(f"k{i}", None, ((1.0, 1.0, 19.0, 19.0),), (SIDE, SIDE)) for i in range(count))
    return DecodedChunk(Chunk(SHARD, 0, last=True), samples, pixels_NHWC, ())


def settings(device: str, **changes: object) -> ExplainerSpec:
    fields: dict[str, object] = {
        "layer": SmallCnn.LAYER, "stages": SmallCnn.STAGES, "methods": build_methods(METHODS),
        "metrics": build_metrics(METRICS), "classes": CLASSES, "size": (SIDE, SIDE), "layouts": "auto",
    }  # fmt: skip
    return spec(**fields | changes, device=device)


def table(explainer: Explainer, count: int = 5) -> pa.Table:
    return pa.concat_tables(explainer.tables(chunk(count)))


@pytest.mark.parametrize(
    "changes",
    [
        {"targets": TargetRules(top=2)},
        {"targets": TargetRules(above=0.2), "batch": None},
        {"precision": "bf16", "layouts": "channels_first"},
    ],
)
def test_rows_are_those_of_the_cpu(changes: Mapping[str, Any]) -> None:
    expected = table(Explainer(made(SmallCnn), settings("cpu", **changes)))
    with simulated() as ledger:
        found = table(Explainer(made(SmallCnn), settings("cuda", **changes)))
    assert found.equals(expected)
    assert set(found["error_code"].to_pylist()) <= {None, "no_target"}
    pixels = [times for line, times in ledger.pinned.items() if line.startswith("pipeline/model/uploads.py")]
    assert pixels == [1]  # those of the chunk, in one copy that overlaps


def test_images_that_fail_are_told_apart_on_the_device() -> None:
    class Refusing(SmallCnn):
        def forward(self, pixels_BCHW: Tensor) -> Tensor:
            logits_BN = super().forward(pixels_BCHW)
            return torch.where(pixels_BCHW[:, :1, 0, 0] > 1, torch.nan, logits_BN)

    expected = table(Explainer(made(Refusing), settings("cpu")))
    with simulated():
        found = table(Explainer(made(Refusing), settings("cuda")))
    assert found.equals(expected)
    assert set(found["error_code"].to_pylist()) == {None, "nonfinite"}


@pytest.mark.parametrize(("kind", "precision"), [(SmallCnn, "fp32"), (SmallVit, "bf16")])
@pytest.mark.parametrize("pixels_of", ["cpu", "cuda"])
def test_notebooks_get_the_values_of_the_cpu(
    kind: type[SmallCnn | SmallVit], precision: Precision, pixels_of: str
) -> None:
    def run(device: str) -> tuple[Any, dict[str, dict[str, Tensor]]]:
        model, pixels_BCHW = made(kind).to(device), pictures().to(pixels_of if device == "cuda" else "cpu")
        explained = camatlas.explain(
            model, pixels_BCHW, methods=METHODS, targets=[[1, 2], [3, 0], [0, 4]], precision=precision, batch=8
        )
        return explained, camatlas.evaluate(model, pixels_BCHW, explained, metrics=METRICS, boxes=BOXES)

    (expected, numbers), found = run("cpu"), None
    with simulated():
        found, values = run("cuda")
        heatmap = found.heatmap("gradcam")
    assert not left_behind(found)
    assert is_here(heatmap)
    for name, map_Buv in expected.maps.items():
        assert torch.equal(to_host(found.maps[name].detach()), map_Buv), name
    for name, by_method in numbers.items():
        for method, expected_B in by_method.items():
            torch.testing.assert_close(to_host(values[name][method]), expected_B, rtol=0, atol=0, equal_nan=True)


def test_truth_may_be_on_the_device() -> None:
    metrics = ["energy_in_box", "box_iou", "box_removed_confidence", "mass", "rank"]

    def run(device: str, given: str) -> dict[str, dict[str, Tensor]]:
        model, pixels_BCHW = made(SmallCnn).to(device), pictures().to(device)
        explained = camatlas.explain(model, pixels_BCHW, layer=SmallCnn.LAYER, targets=[1, 1, 1])
        mask_HW = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        mask_HW[3:20, 5:30] = True
        index_HW = mask_HW.to(torch.uint8) + mask_HW.flip(0).to(torch.uint8)
        parts = camatlas.Parts(index_HW.to(given), torch.tensor([0.5, -0.25]).to(given), 1)
        boxes = [torch.tensor([[2.0, 3.0, 20.0, 25.0]]).to(given), None, None]
        return camatlas.evaluate(
            model, pixels_BCHW, explained, metrics=metrics, boxes=boxes, masks=[None, mask_HW.to(given), None],
            parts=[None, parts, parts],
        )  # fmt: skip

    expected = run("cpu", "cpu")
    with simulated():
        found = run("cuda", "cuda")
    for name, by_method in expected.items():
        values_B = to_host(found[name]["gradcam"])
        torch.testing.assert_close(values_B, by_method["gradcam"], rtol=0, atol=0, equal_nan=True, msg=name)
        assert values_B.isfinite().any(), name


def as_it_is(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """A layout: what the layer gives are maps."""
    return lambda output: output, lambda maps_PKuv, _like: maps_PKuv


def test_a_stated_layout_is_tried_on_the_device() -> None:
    def run(device: str) -> Tensor:
        model, pixels_BCHW = made(SmallCnn).to(device), pictures()
        explained = camatlas.explain(
            model, pixels_BCHW, methods=["recipro_cam"], layer=SmallCnn.LAYER, layout=as_it_is, targets=[1, 2, 3]
        )
        return to_host(explained.maps["recipro_cam"])

    with simulated():
        found = run("cuda")
    assert torch.equal(found, run("cpu"))


def test_images_that_are_not_finite_have_zero_maps_and_no_values() -> None:
    with simulated():
        model, pixels_BCHW = made(SmallCnn).to("cuda"), torch.full_like(pictures(), torch.nan)
        explained = camatlas.explain(model, pixels_BCHW, layer=SmallCnn.LAYER)
        values = camatlas.evaluate(model, pixels_BCHW, explained)
        assert is_here(values["average_drop"]["gradcam"])
        assert bool(values["average_drop"]["gradcam"].isnan().all())
        assert not bool(explained.maps["gradcam"].any())


def test_targets_may_be_on_either_device() -> None:
    with simulated():
        model, pixels_BCHW, targets_B = made(SmallCnn).to("cuda"), pictures(), torch.tensor([1, 2, 3])
        maps = [
            camatlas.explain(model, pixels_BCHW, targets=each).maps["gradcam"]
            for each in (targets_B, targets_B.to("cuda"))
        ]
    assert torch.equal(to_host(maps[0]), to_host(maps[1]))


def test_explaining_does_not_move_the_model_or_the_pixels() -> None:
    with simulated():
        model, pixels_BCHW = made(SmallCnn).to("cuda"), pictures()
        camatlas.explain(model, pixels_BCHW)
        assert all(map(is_here, model.parameters()))
        assert not is_here(pixels_BCHW)


def test_a_dry_run_counts_the_passes_of_the_cpu_and_times_the_device() -> None:
    expected = DryRunner(Explainer(made(SmallCnn), settings("cpu"))).explain(chunk(), 4)
    with simulated() as ledger:
        runner = DryRunner(Explainer(made(SmallCnn), settings("cuda")))
        found = runner.explain(chunk(), 4)
        seconds = runner.pass_seconds()
    assert found.requested == expected.requested
    for name, account in expected.accounts.items():
        there = found.accounts[name]
        assert (there.forwards, there.head_passes, there.backwards) == (
            account.forwards,
            account.head_passes,
            account.backwards,
        )
        assert there.passes == account.passes
    assert seconds.keys() == {shape for account in expected.accounts.values() for shape in account.passes}
    assert any(reason == "synchronize" for reason, _ in ledger.waits)
