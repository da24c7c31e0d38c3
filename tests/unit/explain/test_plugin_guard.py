"""What methods and metrics of the user's do wrong is refused before a run, and fails only their own rows in one."""

# ruff: noqa: E501 - plug-ins of users are seldom annotated; cases stand on one line

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from explaining import chunk, rows, spec
from nets import StagedNet, ToyNet, images
from torch import Tensor, nn

import camatlas
from pipeline.cams import LayerShape, NetShape, build_methods
from pipeline.cams.plugged import PluggedMethod
from pipeline.errors import ConfigError, PluginError
from pipeline.explain.explainer import Explainer
from pipeline.explain.plugin_trial import try_plugins
from pipeline.metrics import build_metrics
from pipeline.metrics.plugged import PluggedMetric
from pipeline.model.guard import Guard, guard_of
from pipeline.model.probe import Probe
from pipeline.model.trial import LoadedModel, tried
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess

Do = Callable[[Any, Any], Tensor]
NET = NetShape((LayerShape(6, 8, 8),), False)


def method_of(
    do: Do, only: str = "", *, needs: camatlas.Needs | None = None, declared: Any = None, params: Any = None
) -> Any:
    """Make a method that does what a test wants; a plain one where the image that it fails on is not in the batch."""

    @dataclass(frozen=True)
    class Mine(camatlas.BaseMethod):
        params: Any = None
        name: ClassVar[str] = "mine"

        def __call__(self, evidence: Any, probe: Any) -> Tensor:
            return do(evidence, probe) if not only or only in evidence.keys else plain(evidence, probe)

    Mine.__qualname__ = "Mine"
    if needs is not None:
        Mine.needs = needs
    if declared is not None:
        Mine.cost = lambda self, net: declared  # type: ignore[attr-defined]
    return Mine(params)


def metric_of(do: Callable[[Any], Tensor], *seen: Any, reads: str = "probability") -> Any:
    """Make a metric that does what a test wants."""

    @dataclass(frozen=True)
    class Valued(camatlas.BaseMetric):
        name: ClassVar[str] = "valued"

        def views(self) -> tuple[Any, ...]:
            return seen

        def __call__(self, batch: Any) -> Tensor:
            return do(batch)

    Valued.__qualname__ = "Valued"
    Valued.reads = reads  # type: ignore[assignment]
    return Valued()


def plain(evidence: Any, probe: Any) -> Tensor:
    return evidence.acts_BKuv.relu().mean(1)


def on_rows(key: str, evidence: Any, do: Do, factor: float) -> Tensor:
    """Multiply the maps of one image by a number."""
    factors = torch.tensor([factor if each == key else 1.0 for each in evidence.keys])
    return do(evidence, None) * factors[:, None, None]


def raising(evidence: Any, probe: Any) -> Tensor:
    raise KeyError("oops")


def exiting(evidence: Any, probe: Any) -> Tensor:
    raise SystemExit(3)


def flat(evidence: Any, probe: Any) -> Tensor:
    return evidence.acts_BKuv.mean((1, 2, 3))


def nan(evidence: Any, probe: Any) -> Tensor:
    return plain(evidence, probe) * torch.nan


def training(evidence: Any, probe: Any) -> Tensor:
    probe.model.train()
    return plain(evidence, probe)


def frozen(evidence: Any, probe: Any) -> Tensor:
    probe.model.requires_grad_(False)
    return plain(evidence, probe)


def hooked(evidence: Any, probe: Any) -> Tensor:
    probe.model.features[0].register_forward_hook(lambda *_: None)
    return plain(evidence, probe)


def doubled(evidence: Any, probe: Any) -> Tensor:
    with torch.no_grad():
        probe.model.linear.weight.mul_(2)
    return plain(evidence, probe)


def doubled_unseen(evidence: Any, probe: Any) -> Tensor:
    probe.model.linear.weight.data.mul_(2)  # which no version counter shows
    return plain(evidence, probe)


def replaced(evidence: Any, probe: Any) -> Tensor:
    probe.model.linear.weight.data = torch.zeros_like(probe.model.linear.weight)
    return plain(evidence, probe)


def swapped(evidence: Any, probe: Any) -> Tensor:
    probe.model.linear = nn.Identity()
    return plain(evidence, probe)


def patched(evidence: Any, probe: Any) -> Tensor:
    probe.model.forward = lambda pixels: pixels
    return plain(evidence, probe)


def differentiated(evidence: Any, probe: Any) -> Tensor:
    with torch.enable_grad():
        probe.model(evidence.pixels_BCHW).sum().backward()
    return plain(evidence, probe)


def reseeded(evidence: Any, probe: Any) -> Tensor:
    probe.seed = 7
    return plain(evidence, probe)


CHANGES: dict[Do, str] = {
    training: "changed the training mode of the model",
    frozen: "changed requires_grad of features.0.weight",
    hooked: "changed the hooks of features.0",
    doubled: "changed the values of linear.weight",
    doubled_unseen: "changed the values of linear.weight",
    replaced: "changed the values of linear.weight",
    swapped: "changed the modules of the model",
    patched: "changed the forward function of the model",
    differentiated: "changed the gradient of features.0.weight (torch.autograd.grad leaves none)",
    reseeded: "changed the probe's seed",
}
FAULTS: dict[Do, str] = {
    raising: "raised KeyError: 'oops'",
    exiting: "raised SystemExit: 3",
    flat: "returned a tensor of the shape (1,); a method returns a float tensor (1, u, v)",
    lambda evidence, probe: None: "returned a NoneType; a method returns",  # type: ignore[dict-item, return-value]
    lambda evidence, probe: plain(evidence, probe) > 0: "returned a tensor of torch.bool",
    **CHANGES,
}


def random_each_call(evidence: Any, probe: Any) -> Tensor:
    return plain(evidence, probe) + torch.rand(1)


def scaled_by_batch(evidence: Any, probe: Any) -> Tensor:
    return plain(evidence, probe) / plain(evidence, probe).amax()


def of_first_target(evidence: Any, probe: Any) -> Tensor:
    return evidence.gradients(lambda logits_RN, targets_R: logits_RN[:, targets_R[0]])[evidence.layer].mean(1)


def in_place(evidence: Any, probe: Any) -> Tensor:
    evidence.acts_BKuv.relu_()
    evidence.acts_BKuv.sub_(1)
    evidence.pixels_BCHW.zero_()
    return evidence.acts_BKuv.mean(1)


def gradient_without_need(evidence: Any, probe: Any) -> Tensor:
    return (evidence.grads_BKuv * evidence.acts_BKuv).sum(1)


def forward_twice(evidence: Any, probe: Any) -> Tensor:
    for scale in (0.5, 0.9):
        probe.capture(evidence.pixels_BCHW * scale, evidence.targets_B, gradients=True)
    return plain(evidence, probe)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tried(ToyNet(0), ModelConfig(name="x", layer="features.3"), Preprocess.of({"resize": 16, "crop": 16}), "")


def refused(loaded: LoadedModel, methods: Sequence[Any] = (), metrics: Sequence[Any] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        try_plugins(loaded, NET, build_methods(methods), build_metrics(metrics))
    return [str(mistake) for mistake in caught.value.mistakes]


def state(model: nn.Module) -> list[Any]:
    return [
        *((name, tensor.clone(), tensor.requires_grad) for name, tensor in model.state_dict(keep_vars=True).items()),
        *((name, module.training, dict(module._forward_hooks)) for name, module in model.named_modules()),
        *(parameter.grad is None for parameter in model.parameters()),
    ]


# ---- while a run goes on


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
    assert str(failed["error_detail"]).startswith(f"plug-in {__name__}:Mine {FAULTS[do]}")
    assert repr(state(model)) == repr(before)


def test_a_map_with_nan_fails_by_the_name_of_the_plugin() -> None:
    methods = build_methods(["gradcam", method_of(lambda evidence, probe: on_rows("k1", evidence, plain, torch.nan))])
    found = rows(Explainer(ToyNet(0), spec(methods=methods)), chunk(3))
    (failed,) = [row for row in found if row["error_code"]]
    assert (failed["image_key"], failed["method"], failed["error_code"]) in [("k1", "mine", "nonfinite")]
    assert failed["error_detail"] == f"plug-in {__name__}:Mine returned a map that contains NaN or infinity"


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
    assert str(failed["error_detail"]).startswith(f"metric 'valued': plug-in {__name__}:Valued {words}")
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


# ---- before a run


@pytest.mark.parametrize("do", FAULTS)
def test_a_faulty_method_is_refused_before_a_run(loaded: LoadedModel, do: Do) -> None:
    before = state(loaded.model)
    (mistake,) = refused(loaded, [method_of(do)])
    assert mistake.startswith(f"explain.methods.mine: plug-in {__name__}:Mine {FAULTS[do]}")
    assert repr(state(loaded.model)) == repr(before)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (method_of(nan), "returned a map that contains NaN or infinity"),
        (method_of(random_each_call), "gives an image another map when it is called again: seed random numbers"),
        (method_of(scaled_by_batch), "gives an image another map alone than among others"),
        (method_of(of_first_target, needs=camatlas.Needs(gradients=True)), "gives an image another map alone than among others"),
        (method_of(in_place), "changed pixels_BCHW, acts['features.3'] of the evidence: work on a clone"),
        (method_of(gradient_without_need), "gradients are there if needs = camatlas.Needs(gradients=True)"),
        (method_of(forward_twice, declared=camatlas.Cost(1, 0, 2)), "took 2 forwards for one image, but declares Cost("),
        (method_of(plain, declared=3), "declares the cost 3, which is no camatlas.Cost"),
        (method_of(plain, params=torch.ones(2)), "has parameters that run.json cannot hold"),
        (method_of(plain, params=float("nan")), "has parameters that run.json cannot hold"),
    ],
)  # fmt: skip
def test_an_unsuitable_method_is_refused_before_a_run(loaded: LoadedModel, method: Any, words: str) -> None:
    (mistake,) = refused(loaded, [method])
    assert words in mistake


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (metric_of(lambda batch: {}["x"]), "raised KeyError: 'x'"),
        (metric_of(lambda batch: batch.heatmaps_BMHW), "returned a tensor of the shape"),
        (metric_of(lambda batch: torch.full((2, 2), torch.inf)), "returned an infinite value"),
        (metric_of(lambda batch: batch.heatmaps_BMHW.mean((2, 3)) + torch.rand(1)), "another value when it is called again"),
        (metric_of(lambda batch: batch.heatmaps_BMHW.mean((2, 3)) / batch.heatmaps_BMHW.mean()), "another value alone"),
        (metric_of(lambda batch: batch.heatmaps_BMHW.sub_(1).mean((2, 3))), "changed heatmaps_BMHW of the batch"),
        (metric_of(lambda batch: doubled(batch.evidence, batch.probe).mean((1, 2))[:, None]), "changed the values of linear"),
        (metric_of(lambda batch: batch.scores(camatlas.Soft("mean")).confidences_BMS[:, :, 0]), "list every view in views()"),
    ],
)  # fmt: skip
def test_an_unsuitable_metric_is_refused_before_a_run(loaded: LoadedModel, metric: Any, words: str) -> None:
    found = refused(loaded, [], [metric])
    assert any(words in mistake for mistake in found)
    assert all(mistake.startswith(f"explain.metrics.valued: plug-in {__name__}:Valued ") for mistake in found)


def test_a_metric_that_scores_images_says_what_it_reads(loaded: LoadedModel) -> None:
    view = camatlas.Soft("mean")

    def scored(batch: Any) -> Tensor:
        confidences_BM: Tensor = batch.scores(view).confidences_BMS[:, :, 0]
        return confidences_BM

    (mistake,) = refused(loaded, [], [metric_of(scored, view, reads="map")])
    assert "reads 'map': set reads" in mistake
    try_plugins(loaded, NET, {}, build_metrics([metric_of(scored, view)]))


@dataclass(frozen=True)
class Other(camatlas.BaseMethod):
    params: Any = None

    def __call__(self, evidence: Any, probe: Any) -> Tensor:
        return plain(evidence, probe)


def test_all_that_is_wrong_with_all_plugins_is_told_at_once(loaded: LoadedModel) -> None:
    methods = [method_of(raising), Other(params=torch.ones(1))]
    assert len(refused(loaded, methods, [metric_of(lambda batch: {}["x"])])) == 3


def test_several_faults_of_one_method_are_told_at_once(loaded: LoadedModel) -> None:
    def several(evidence: Any, probe: Any) -> Tensor:
        probe.model.train()
        return in_place(evidence, probe) + torch.rand(1)

    found = refused(loaded, [method_of(several)])
    for words in ("changed the training mode", "changed pixels_BCHW", "when it is called again"):
        assert sum(words in mistake for mistake in found) == 1


def test_the_cost_is_measured_where_none_is_declared(loaded: LoadedModel) -> None:
    def direct(evidence: Any, probe: Any) -> Tensor:
        with torch.no_grad():
            for _ in range(3):
                probe.model(evidence.pixels_BCHW)
        return plain(evidence, probe)

    methods = {
        **build_methods([method_of(forward_twice), Other()]),
        **{"direct": build_methods([method_of(direct)])["mine"]},
    }
    tried_ones = try_plugins(loaded, NET, methods, {})
    assert tried_ones["mine"].cost(NET) == camatlas.Cost(2, 0, 2)
    assert tried_ones["other"].cost(NET) == camatlas.Cost()
    assert tried_ones["direct"].cost(NET) == camatlas.Cost(3)
    declared = build_methods([method_of(forward_twice, declared=camatlas.Cost(5, 0, 5))])
    assert try_plugins(loaded, NET, declared, {})["mine"].cost(NET) == camatlas.Cost(5, 0, 5)


def test_a_run_without_plugins_tries_nothing(loaded: LoadedModel) -> None:
    methods = build_methods(["gradcam"])
    assert try_plugins(loaded, NET, methods, build_metrics(["average_drop"])) == methods


# ---- in Python


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
    assert (method.name, method.interpretation, method.presets) == (f"{__name__}:Mine", False, {})
    assert (metric.unit, metric.better, metric.curve, metric.length()) == ("", "neither", False, 1)
    assert dataclasses.replace(method, measured=camatlas.Cost(2)).cost(NET) == camatlas.Cost(2)
