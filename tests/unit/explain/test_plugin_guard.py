"""What methods and metrics of the user's do wrong while a run goes on fails only their own rows."""

import dataclasses
from typing import Any

import pytest
import torch
from explaining import chunk, rows, spec
from misbehaving import (
    FAULTS,
    Do,
    differentiated,
    doubled_unseen,
    faded,
    in_place,
    method_of,
    metric_of,
    on_rows,
    plain,
    raising,
    state,
)
from nets import StagedNet, TinyVit, ToyNet, images
from torch import Tensor

import camatlas
from pipeline.cams import LayerShape, NetShape, build_methods
from pipeline.cams.plugged import PluggedMethod
from pipeline.errors import PluginError
from pipeline.explain.explainer import Explainer
from pipeline.metrics import build_metrics
from pipeline.metrics.plugged import PluggedMetric
from pipeline.model.guard import Guard, guard_of
from pipeline.model.probe import Probe

NET = NetShape((LayerShape(6, 8, 8),), False)


@pytest.mark.parametrize("only", ["", "k2"])
@pytest.mark.parametrize("do", FAULTS)
def test_a_method_that_misbehaves_fails_its_rows_and_no_others(do: Do, only: str) -> None:
    model = ToyNet(0)
    before = state(model)
    clean = rows(Explainer(ToyNet(0), spec()), chunk(5))
    methods = build_methods(["gradcam", method_of(do, only), "scorecam"])
    found = rows(Explainer(model, spec(methods=methods)), chunk(5))
    assert [row for row in found if row["method"] != "mine"] == clean
    mine = {row["image_key"]: row for row in found if row["method"] == "mine"}
    assert {key for key, row in mine.items() if row["error_code"]} == ({only} if only else set(mine))
    failed = mine["k2"]
    assert (failed["error_stage"], failed["error_code"], failed["map"]) == ("explain", "method_error", None)
    assert str(failed["error_detail"]).startswith(f"plug-in misbehaving:Mine {FAULTS[do]}")
    assert repr(state(model)) == repr(before)


def test_a_map_with_nan_fails_by_the_name_of_the_plugin() -> None:
    methods = build_methods(["gradcam", method_of(lambda evidence, probe: on_rows("k1", evidence, plain, torch.nan))])
    found = rows(Explainer(ToyNet(0), spec(methods=methods)), chunk(3))
    (failed,) = [row for row in found if row["error_code"]]
    assert (failed["image_key"], failed["method"], failed["error_code"]) in [("k1", "mine", "nonfinite")]
    assert failed["error_detail"] == "plug-in misbehaving:Mine returned a map that contains NaN or infinity"


def test_what_a_method_does_to_its_evidence_reaches_no_other() -> None:
    clean = rows(Explainer(ToyNet(0), spec()), chunk(4))
    found = rows(
        Explainer(ToyNet(0), spec(methods=build_methods([method_of(in_place), "gradcam", "scorecam"]))), chunk(4)
    )
    assert [row for row in found if row["method"] != "mine"] == clean


def test_a_method_gets_what_it_declares_and_no_more() -> None:
    seen = []

    def look(evidence: Any, probe: Any) -> Tensor:
        seen.append((evidence.layers, sorted(evidence.acts), sorted(evidence.grads), evidence.head))
        return plain(evidence, probe)

    stages = ("stage1", "stage2")
    camatlas.explain(
        StagedNet(0), images(0, 2), methods=["layercam_fusion", method_of(look)], stages=stages, layer="stage2"
    )
    assert seen == [(("stage2",), ["stage2"], [], None)]


def test_a_failing_method_is_called_on_halves_not_on_the_whole_run() -> None:
    calls = []

    def counted(evidence: Any, probe: Any) -> Tensor:
        calls.append(len(evidence.keys))
        return raising(evidence, probe) if "k3" in evidence.keys else plain(evidence, probe)

    explainer = Explainer(ToyNet(0), spec(methods=build_methods(["gradcam", method_of(counted)]), metrics={}))
    rows(explainer, chunk(8))
    assert calls == [8, 4, 2, 2, 1, 1, 4]
    assert explainer.probe.counts.forwards == 8  # ours ran once


def test_memory_that_runs_out_is_no_fault_of_the_method() -> None:
    def hungry(evidence: Any, probe: Any) -> Tensor:
        if len(evidence.keys) > 1 or "k1" in evidence.keys:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(evidence, probe)

    found = rows(
        Explainer(ToyNet(0), spec(methods=build_methods([method_of(hungry), "gradcam"]), metrics={})), chunk(3)
    )
    assert {(row["image_key"], row["error_code"]) for row in found if row["error_code"]} == {("k1", "out_of_memory")}


def test_a_method_that_changes_the_model_and_raises_is_told_for_both() -> None:
    def both(evidence: Any, probe: Any) -> Tensor:
        doubled_unseen(evidence, probe)
        return raising(evidence, probe)

    found = rows(Explainer(ToyNet(0), spec(methods=build_methods([method_of(both)]), metrics={})), chunk(1))
    assert "raised KeyError: 'oops'" in str(found[0]["error_detail"])
    assert "changed the values of linear.weight" in str(found[0]["error_detail"])


@pytest.mark.parametrize(
    ("do", "words"),
    [
        (lambda batch: {}["x"], "raised KeyError: 'x'"),
        (lambda batch: batch.heatmaps_BMHW.sum(), "returned a tensor of the shape ()"),
        (lambda batch: infinite(batch), "returned an infinite value"),
        (lambda batch: doubled_unseen(batch.evidence, batch.probe), "changed the values of linear.weight"),
    ],
)
def test_a_metric_that_misbehaves_fails_the_rows_concerned_by_name(do: Any, words: str) -> None:
    def on_one(batch: Any) -> Tensor:
        values_BM = batch.heatmaps_BMHW.mean((2, 3))
        return do(batch) if "k1" in batch.evidence.keys else values_BM

    model = ToyNet(0)
    before = state(model)
    clean = rows(Explainer(ToyNet(0), spec()), chunk(4))
    metrics = build_metrics(["average_drop", "energy_in_box", metric_of(on_one)])
    found = rows(Explainer(model, spec(metrics=metrics)), chunk(4))
    assert {(row["image_key"], row["method"]) for row in found if row["error_code"]} == {
        ("k1", "gradcam"), ("k1", "scorecam")
    }  # fmt: skip
    failed = next(row for row in found if row["error_code"])
    assert (failed["error_stage"], failed["error_code"], failed["map"]) == ("explain", "metric_error", None)
    assert str(failed["error_detail"]).startswith(f"metric 'valued': plug-in misbehaving:Valued {words}")
    for row, other in zip(found, clean, strict=True):
        if not row["error_code"]:
            assert row.pop("valued") is not None
            assert row == other
    assert repr(state(model)) == repr(before)


def test_a_metric_that_raises_for_the_map_of_one_method_fails_that_row_alone() -> None:
    def picky(batch: Any) -> Tensor:
        if not batch.heatmaps_BMHW.flatten(2).any(2).all():
            raise ValueError("a map is empty")
        return batch.heatmaps_BMHW.mean((2, 3))

    methods = build_methods(["gradcam", method_of(lambda evidence, probe: on_rows("k1", evidence, plain, 0.0))])
    found = rows(Explainer(ToyNet(0), spec(methods=methods, metrics=build_metrics([metric_of(picky)]))), chunk(3))
    (failed,) = [row for row in found if row["error_code"]]
    assert (failed["image_key"], failed["method"], failed["error_code"]) == ("k1", "mine", "metric_error")


def infinite(batch: Any) -> Tensor:
    values_BM = batch.heatmaps_BMHW.mean((2, 3))
    values_BM[[key == "k1" for key in batch.evidence.keys]] = torch.inf
    return values_BM


def test_nan_of_a_metric_means_that_it_does_not_apply() -> None:
    metrics = build_metrics([metric_of(lambda batch: batch.heatmaps_BMHW.mean((2, 3)) * torch.nan)])
    found = rows(Explainer(ToyNet(0), spec(metrics=metrics)), chunk(2))
    assert {(row["error_code"], row["valued"]) for row in found} == {(None, None)}


def test_what_a_metric_does_to_its_batch_reaches_no_other() -> None:
    def wrecking(batch: Any) -> Tensor:
        batch.heatmaps_BMHW.zero_()
        batch.evidence.pixels_BCHW.zero_()
        batch.scores(camatlas.Soft("mean")).confidences_BMS.zero_()
        batch.truth.boxes_xyxy.clear()
        return batch.heatmaps_BMHW.mean((2, 3))

    clean = rows(Explainer(ToyNet(0), spec()), chunk(3))
    metrics = build_metrics([metric_of(wrecking), "average_drop", "energy_in_box"])
    for row, other in zip(rows(Explainer(ToyNet(0), spec(metrics=metrics)), chunk(3)), clean, strict=True):
        assert row.pop("valued") == 0
        assert row == other


def test_a_method_that_fails_on_the_image_of_a_metric_fails_that_row() -> None:
    def on_clean_images(evidence: Any, probe: Any) -> Tensor:
        if bool((evidence.pixels_BCHW.abs().amin((1, 2, 3)) == 0).any()):  # masked
            raise ValueError("masked")
        return plain(evidence, probe)

    methods = build_methods(["gradcam", method_of(on_clean_images)])
    found = rows(Explainer(ToyNet(0), spec(methods=methods, metrics=build_metrics(["coherency"]))), chunk(2))
    codes = {(row["method"], row["error_code"]) for row in found}
    assert codes == {("gradcam", None), ("mine", "metric_error")}
    assert "on an image that a metric changed" in str(found[-1]["error_detail"])


def test_what_a_method_does_to_the_attention_reaches_no_other() -> None:
    pixels_BCHW, methods = images(0, 2)[:, :, :16, :16], ["attention_rollout", "attention_gradient", "legrad"]
    clean = camatlas.explain(TinyVit(), pixels_BCHW, methods=methods)
    mine = method_of(faded, needs=camatlas.Needs(attention=True))
    found = camatlas.explain(TinyVit(), pixels_BCHW, methods=[mine, *methods])
    assert all(torch.equal(found.maps[name], clean.maps[name]) for name in methods)


def test_a_method_gets_the_attention_only_if_it_declares_it() -> None:
    seen = []

    def look(evidence: Any, probe: Any) -> Tensor:
        seen.append(evidence.attention and (len(evidence.attention.products), evidence.attention.by_layer))
        return plain(evidence, probe)

    pixels_BCHW = images(0, 1)[:, :, :16, :16]
    for needs in (camatlas.Needs(), camatlas.Needs(attention=True), camatlas.Needs(attention_gradients=True)):
        methods = ["attention_gradient", "legrad", method_of(look, needs=needs)]
        camatlas.explain(TinyVit(), pixels_BCHW, methods=methods)
    assert seen == [None, (0, None), (3, None)]


def test_a_metric_works_beside_methods_that_differentiate_attention() -> None:
    model, pixels_BCHW = TinyVit(), images(0, 2)[:, :, :16, :16]
    found = camatlas.explain(model, pixels_BCHW, methods=["legrad", "attention_gradient"])
    metric = metric_of(lambda batch: batch.heatmaps_BMHW.amax((2, 3)))
    assert camatlas.evaluate(model, pixels_BCHW, found, metrics=[metric])["valued"]["legrad"].tolist() == [1.0, 1.0]


def test_in_python_a_fault_is_an_error_of_one_sentence() -> None:
    model = ToyNet(0)
    with pytest.raises(PluginError, match=r"explain.methods.mine: plug-in .*:Mine raised KeyError: 'oops'"):
        camatlas.explain(model, images(0, 2), methods=[method_of(raising)], layer="features.3")
    found = camatlas.explain(model, images(0, 2), methods=[method_of(plain), "gradcam"], layer="features.3")
    with pytest.raises(ValueError, match=r"explain.metrics.valued: plug-in .*:Valued returned"):
        camatlas.evaluate(model, images(0, 2), found, metrics=[metric_of(lambda batch: batch.heatmaps_BMHW)])
    values = camatlas.evaluate(model, images(0, 2), found, metrics=[metric_of(lambda b: b.heatmaps_BMHW.mean((2, 3)))])
    assert values["valued"]["mine"].shape == (2,)


def test_gradients_of_the_user_s_own_survive_a_call() -> None:
    model = ToyNet(0)
    model(images(0, 1)).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    with pytest.raises(PluginError, match="changed the gradient"):
        camatlas.explain(model, images(0, 2), methods=[method_of(differentiated)], layer="features.3")
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(before) == len(after)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_buffers_that_passes_write_to_are_not_the_plugin_s_fault() -> None:
    class Counting(ToyNet):
        def __init__(self) -> None:
            super().__init__(0)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, pixels_BCHW: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(pixels_BCHW)

    probe = Probe(Counting(), "features.3")
    guard = guard_of(probe)
    evidence = probe.capture(images(0, 1), gradients=False)
    assert guard.call(lambda: probe.capture(evidence.pixels_BCHW, gradients=False))[1] == []
    assert guard_of(probe) is guard


def test_parameters_that_the_user_changes_between_calls_are_kept() -> None:
    model = ToyNet(0)
    guard = Guard(Probe(model, "features.3"))
    with torch.no_grad():
        model.linear.weight.mul_(3)
    kept = model.linear.weight.clone()
    assert guard.call(lambda: 1) == (1, [])
    assert guard.call(lambda: model.linear.weight.data.zero_())[1] == ["changed the values of linear.weight"]
    assert torch.equal(model.linear.weight, kept)


def test_switches_of_autograd_are_set_back() -> None:
    guard = Guard(Probe(ToyNet(0), "features.3"))
    guard.call(lambda: torch.set_grad_enabled(False))
    assert torch.is_grad_enabled()


def test_the_facts_of_plugins_are_those_of_their_objects() -> None:
    (method,) = build_methods([method_of(plain)]).values()
    (metric,) = build_metrics([metric_of(lambda batch: batch)]).values()
    assert isinstance(method, PluggedMethod)
    assert isinstance(metric, PluggedMetric)
    assert (method.name, method.interpretation, method.presets) == ("misbehaving:Mine", False, {})
    assert (metric.unit, metric.better, metric.curve, metric.length()) == ("", "neither", False, 1)
    assert dataclasses.replace(method, measured=camatlas.Cost(2)).cost(NET) == camatlas.Cost(2)
