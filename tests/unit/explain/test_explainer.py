"""The Explainer turns chunks into rows, and a failure affects only the rows of its own image or method."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from explaining import METHODS, METRICS, chunk, rows, spec
from nets import ToyNet
from quick import OF_ATTENTION
from torch import Tensor, nn

import pipeline
from pipeline.cams import METHODS as ALL_METHODS
from pipeline.cams import build_methods
from pipeline.data.sources import Failure
from pipeline.errors import ConfigError, LayerError
from pipeline.explain.explainer import Explainer
from pipeline.maps.codec import EncodedMap, FloatArray, decode
from pipeline.model.baselines import Normalisation
from pipeline.model.evidence import Evidence
from pipeline.model.outputs import Outputs
from pipeline.settings.targets import TargetRules


def map_of(row: dict[str, Any]) -> FloatArray:
    encoded = EncodedMap(*(row[f"map{name}"] for name in ("", "_height", "_width", "_dtype", "_min", "_max")))
    return decode(encoded)


def test_every_image_has_one_row_per_method_with_all_columns() -> None:
    decoded = chunk()
    found = rows(Explainer(ToyNet(0), spec()), decoded)
    assert [(row["image_key"], row["method"]) for row in found] == [(f"k{i}", m) for i in range(5) for m in METHODS]
    pixels_BCHW = Normalisation().apply(torch.tensor(decoded.pixels_NHWC).permute(0, 3, 1, 2) / 255)
    expected = pipeline.explain(ToyNet(0), pixels_BCHW, methods=METHODS, layer="features.3")
    boxes = [[[1.0, 1.0, 9.0, 9.0]]] * 5
    values = pipeline.evaluate(expected.probe.model, pixels_BCHW, expected, metrics=METRICS, boxes=boxes)
    for row in found:
        i, method = int(str(row["image_key"])[1:]), str(row["method"])
        assert (row["shard"], row["chunk"], row["image_height"], row["image_width"]) == ("s.tar", 3, 30, 40)
        assert row["predicted"] == row["target"] == int(expected.targets[i])
        assert row["target_logit"] == pytest.approx(float(expected.evidence.target_logits_B[i]), abs=1e-5)
        assert row["confidence"] == row["target_confidence"]
        np.testing.assert_allclose(map_of(row), expected.maps[method][i].numpy(), atol=1e-5)
        for name in METRICS:
            assert row[name] == pytest.approx(float(values[name][method][i]), abs=1e-5)
        assert row["error_code"] is None
        assert row["layer"] == "features.3"


@pytest.mark.parametrize("batch", [1, 3, 16, 32])
def test_rows_are_the_same_bit_for_bit_for_every_batch_size(batch: int) -> None:
    decoded = chunk(37)
    whole = pa.concat_tables(Explainer(ToyNet(0), spec(batch=48)).tables(decoded))
    pieces = pa.concat_tables(Explainer(ToyNet(0), spec(batch=batch)).tables(decoded))
    assert pieces.equals(whole)


def test_failures_of_earlier_stages_become_rows() -> None:
    failure = Failure("bad", "s.tar", "decode", "corrupt", "broken")
    found = rows(Explainer(ToyNet(0), spec()), chunk(1, failures=(failure,)))
    assert found[-1]["error_code"] == "corrupt"
    assert found[-1]["method"] is None
    assert len(found) == 3


def test_a_chunk_with_only_failures_gives_only_failure_rows() -> None:
    failure = Failure("bad", "s.tar", "decode", "corrupt", "broken")
    assert [row["image_key"] for row in rows(Explainer(ToyNet(0), spec()), chunk(0, failures=(failure,)))] == ["bad"]


def test_labels_that_do_not_fit_are_failures() -> None:
    found = rows(Explainer(ToyNet(0), spec(targets=TargetRules(("label",)))), chunk(4, labels=[0, None, 4, 3]))
    codes = {row["image_key"]: row["error_code"] for row in found}
    assert codes == {"k0": None, "k1": "label", "k2": "label", "k3": None}
    assert {row["target"] for row in found if row["image_key"] == "k3"} == {3}


def test_boxes_of_another_class_are_ignored() -> None:
    model = ToyNet(0)
    predicted = [row["predicted"] for row in rows(Explainer(model, spec()), chunk(3))][::2]
    labels = [predicted[0], (predicted[1] + 1) % 4, None]
    found = rows(Explainer(model, spec()), chunk(3, labels=labels))
    known = {row["image_key"]: row["energy_in_box"] is not None for row in found}
    assert known == {"k0": True, "k1": False, "k2": True}


class Picky(ToyNet):
    """Fails in a given way on images with a certain first pixel."""

    def __init__(self, fail: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(0)
        self.fail = fail

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.fail(pixels_BCHW[:, 0, 0, 0] > 2.2, super().forward(pixels_BCHW))


def raising(marked_B: Tensor, logits_BN: Tensor) -> Tensor:
    if bool(marked_B.any()):
        raise ValueError("unsuitable image")
    return logits_BN


def exhausted(marked_B: Tensor, logits_BN: Tensor) -> Tensor:
    if bool(marked_B.any()):
        raise torch.OutOfMemoryError("CUDA out of memory")
    return logits_BN


def not_a_number(marked_B: Tensor, logits_BN: Tensor) -> Tensor:
    return torch.where(marked_B[:, None], torch.nan, logits_BN)


def infinite(marked_B: Tensor, logits_BN: Tensor) -> Tensor:
    return torch.where(marked_B[:, None], torch.inf, logits_BN)


def infinite_for_one_class(marked_B: Tensor, logits_BN: Tensor) -> Tensor:
    offset_N = torch.tensor([0.0, 0.0, 0.0, -torch.inf])
    return torch.where(marked_B[:, None], logits_BN + offset_N, logits_BN)


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (raising, "model_error"),
        (exhausted, "out_of_memory"),
        (not_a_number, "nonfinite"),
        (infinite, "nonfinite"),
        (infinite_for_one_class, "nonfinite"),
    ],
)
def test_an_image_that_fails_does_not_affect_the_others(fail: Callable[[Tensor, Tensor], Tensor], code: str) -> None:
    decoded = chunk(7)
    decoded.pixels_NHWC[:, 0, 0, 0] = 0
    clean = rows(Explainer(ToyNet(0), spec()), decoded)
    decoded.pixels_NHWC[4, 0, 0, 0] = 255
    found = rows(Explainer(Picky(fail), spec(methods=build_methods(["gradcam"]), metrics={})), decoded)
    assert {row["image_key"]: row["error_code"] for row in found} == {
        f"k{i}": code if i == 4 else None for i in range(7)
    }
    expected = {row["image_key"]: row["map"] for row in clean if row["method"] == "gradcam"}
    assert all(row["map"] == expected[row["image_key"]] for row in found if row["image_key"] != "k4")


HUGE = 2.0**100
"""About 1e30; a power of two, so that values proportional to the logits keep their mantissa."""


class HugeLogits(ToyNet):
    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return super().forward(pixels_BCHW) * HUGE


def test_huge_logits_scale_the_maps() -> None:
    methods = build_methods(["gradcam", "hirescam", "layercam", "ablation_cam", "shapley_cam"])
    plain = rows(Explainer(ToyNet(0), spec(methods=methods)), chunk())
    found = rows(Explainer(HugeLogits(0), spec(methods=methods)), chunk())
    for row, other in zip(found, plain, strict=True):
        assert row["error_code"] is None
        assert row["target_logit"] == float(other["target_logit"]) * HUGE  # type: ignore[arg-type]
        assert (row["predicted"], row["confidence"]) == (other["predicted"], 1.0)
        assert row["average_drop"] is not None
        if row["method"] in ("gradcam", "hirescam", "layercam"):
            assert row["map_max"] == float(other["map_max"]) * HUGE  # type: ignore[arg-type]
            np.testing.assert_array_equal(map_of(row), map_of(other) * np.float32(HUGE))


@pytest.mark.parametrize("maps", ["u8", "f16", "f32"])
def test_every_method_gives_finite_maps_for_huge_logits(maps: str) -> None:
    left_out = {"cam", "iscam", "sscam", "rise", "opti_cam", *OF_ATTENTION}
    methods = build_methods([name for name in ALL_METHODS if name not in left_out])
    found = rows(Explainer(HugeLogits(0), spec(methods=methods, metrics={}, maps=maps)), chunk(2))
    assert len(found) == 2 * len(methods)
    for row in found:
        assert row["error_code"] is None
        assert bool(np.isfinite(map_of(row)).all())


def test_a_regression_is_explained_without_a_confidence() -> None:
    chosen = spec(
        classes=1, outputs=Outputs("raw"), methods=build_methods(["gradcam", {"scorecam": {"score": "logit"}}])
    )
    found = rows(Explainer(ToyNet(0, classes=1), replace(chosen, metrics={})), chunk(3, labels=[0, 70, None]))
    assert [row["error_code"] for row in found] == [None] * 6
    assert {row["label"] for row in found} == {0, 70, None}
    for row in found:
        assert (row["target"], row["predicted"], row["confidence"], row["target_confidence"]) == (0, None, None, None)
        assert isinstance(row["target_logit"], float)
        assert float(row["map_max"]) > float(row["map_min"])  # type: ignore[arg-type]


def test_an_unsuitable_layer_stops_the_run_instead_of_failing_every_image() -> None:
    with pytest.raises(LayerError):
        rows(Explainer(ToyNet(0), spec(layer="linear", stages=("linear",))), chunk())


def test_a_method_that_gives_nan_has_a_failure_row_without_a_map() -> None:
    class Broken(type(build_methods(["gradcam"])["gradcam"])):  # type: ignore[misc]
        def __call__(self, evidence: object, probe: object) -> Tensor:
            maps_Buv = super().__call__(evidence, probe)
            maps_Buv[1] = torch.nan
            return maps_Buv

    methods = {"broken": Broken(), **build_methods(["gradcam"])}
    found = rows(Explainer(ToyNet(0), spec(methods=methods)), chunk(3))
    broken = {row["image_key"]: row for row in found if row["method"] == "broken"}
    assert broken["k1"]["error_code"] == "nonfinite"
    assert broken["k1"]["map"] is None
    assert broken["k1"]["average_drop"] is None
    assert broken["k0"]["error_code"] is None
    assert all(row["error_code"] is None for row in found if row["method"] == "gradcam")


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("CUDA error: CUBLAS"), "method_error"), (torch.OutOfMemoryError("CUDA"), "out_of_memory")],
)
def test_a_method_that_raises_on_an_image_has_a_failure_row_and_does_not_affect_others(
    error: Exception, code: str
) -> None:
    class Raising(type(build_methods(["gradcam"])["gradcam"])):  # type: ignore[misc]
        def __call__(self, evidence: Evidence, probe: object) -> Tensor:
            if "k1" in evidence.keys:
                raise error
            return super().__call__(evidence, probe)

    clean = rows(Explainer(ToyNet(0), spec()), chunk(5))
    methods = {**spec().methods, "raising": Raising()}
    found = rows(Explainer(ToyNet(0), spec(methods=methods)), chunk(5))
    assert {(row["image_key"], row["error_code"]) for row in found if row["method"] == "raising"} == {
        ("k0", None), ("k1", code), ("k2", None), ("k3", None), ("k4", None)
    }  # fmt: skip
    failed = next(row for row in found if row["error_code"])
    assert failed["map"] is None
    assert failed["target"] == next(row["target"] for row in clean if row["image_key"] == "k1")
    assert sorted(map(str, (row for row in found if row["method"] != "raising"))) == sorted(map(str, clean))


def test_explain_refuses_wrong_pixels_targets_and_methods() -> None:
    pixels_BCHW = torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match="float tensor"):
        pipeline.explain(ToyNet(0), (pixels_BCHW * 255).to(torch.uint8), layer="features.3")
    with pytest.raises(ValueError, match="2 images need targets"):
        pipeline.explain(ToyNet(0), pixels_BCHW, targets=[1], layer="features.3")
    with pytest.raises(ConfigError, match=r"did you mean 'gradcam'"):
        pipeline.explain(ToyNet(0), pixels_BCHW, methods=["gradcamm"], layer="features.3")


def test_targets_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="target"):
        pipeline.explain(ToyNet(0), torch.rand(2, 3, 16, 16), targets=[0, 9], layer="features.3")


@pytest.mark.parametrize("costly", ["ray", "torchvision"])
def test_the_lazy_exports_import_neither_ray_nor_torchvision(costly: str) -> None:
    import subprocess
    import sys

    exports = "import pipeline, sys; pipeline.explain, pipeline.evaluate, pipeline.open_run"
    code = f"{exports}; sys.exit('{costly}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_export_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="expound"):
        _ = pipeline.expound


def test_the_layer_may_be_a_module() -> None:
    model = ToyNet(0)
    layer: nn.Module = model.features[3]
    explanations = pipeline.explain(model, torch.rand(1, 3, 16, 16), layer=layer)
    assert explanations.maps["gradcam"].shape == (1, 8, 8)
