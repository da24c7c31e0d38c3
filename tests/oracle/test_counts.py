"""Number of passes of methods and metrics: exact counts, equal to the passes that really run."""

import dataclasses
import math

import pytest
import torch
from nets import GapNet, StagedNet, TinyVit, ToyNet, images
from quick import OF_ATTENTION
from torch import Tensor

import pipeline
from pipeline.cams import METHODS, LayerShape, NetShape
from pipeline.maps.heatmaps import is_degenerate
from pipeline.metrics import METRICS
from pipeline.metrics.cost import metrics_cost
from pipeline.model.probe import Probe


class Tally:
    """Counters that a model shares with its deep copies."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0

    def __deepcopy__(self, memo: object) -> "Tally":
        return self

    def count(self, grad_BN: Tensor) -> None:
        self.backwards += len(grad_BN)


class CountingNet(ToyNet):
    """Counts the images of every forward pass and of every backward pass that reaches the target layer."""

    def __init__(self) -> None:
        super().__init__(0)
        self.tally = Tally()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        self.tally.forwards += len(pixels_BCHW)
        logits_BN = super().forward(pixels_BCHW)
        if logits_BN.requires_grad:
            logits_BN.register_hook(self.tally.count)
        return logits_BN


def costs(*methods: object, count: int = 3) -> tuple[int, int, int, int]:
    model = CountingNet()
    pipeline.explain(model, images(0, 1), layer="features.3")  # a model is tried once, before it is explained
    model.tally.forwards = model.tally.backwards = 0
    explanations = pipeline.explain(model, images(0, count), methods=methods, layer="features.3")
    counted = explanations.counts
    assert (counted.forwards, counted.backwards) == (model.tally.forwards, model.tally.backwards)
    return counted.forwards, counted.head_passes, counted.backwards, count


def test_gradient_methods_share_one_forward_and_one_head_backward() -> None:
    forwards, head_passes, backwards, count = costs("gradcam", "gradcam_pp")
    assert (forwards, head_passes, backwards) == (count, 0, count)


@pytest.mark.parametrize(("rule", "path_forwards"), [("right", 7), ("left", 8), ("midpoint", 8), ("trapezoid", 8)])
def test_integrated_gradcam_costs_its_steps_and_one_baseline(rule: str, path_forwards: int) -> None:
    """The image itself, t = 1, is the shared evidence: with the right rule, S steps take S forward passes in total."""
    forwards, _, backwards, count = costs({"integrated_gradcam": {"steps": 7, "rule": rule}})
    assert forwards == count * path_forwards + 1
    assert backwards == count * path_forwards


def test_the_baseline_is_run_once_for_a_model() -> None:
    from pipeline.cams import build_methods

    probe = Probe(ToyNet(0), "features.3")
    (method,) = build_methods([{"integrated_gradcam": {"steps": 3}}]).values()
    for seed in range(4):
        method(probe.capture(images(seed), gradients=True), probe)
    assert probe.counts.forwards == 4 * 3 * 3 + 1


def test_scorecam_costs_one_forward_per_channel_that_is_not_constant() -> None:
    model = ToyNet(0)
    with torch.no_grad():
        model.features[2].weight[:2] = 0
    explanations = pipeline.explain(model, images(0), methods=["scorecam"], layer="features.3")
    alive = int((~is_degenerate(explanations.evidence.acts_BKuv)).sum())
    assert alive <= 3 * 4
    assert explanations.counts.forwards == 3 + alive
    assert explanations.counts.backwards == 0


def test_iscam_costs_its_steps_for_each_channel() -> None:
    model = ToyNet(0)
    explanations = pipeline.explain(model, images(0), methods=[{"iscam": {"num_steps": 4}}], layer="features.3")
    alive = int((~is_degenerate(explanations.evidence.acts_BKuv)).sum())
    assert explanations.counts.forwards == 3 + 4 * alive


CHEAP: dict[str, dict[str, object]] = {
    "rise": {"num_masks": 20},
    "opti_cam": {"iterations": 3},
    "integrated_gradients": {"steps": 5},
    "smoothgrad": {"samples": 4},
    "sscam": {"samples": 2},
}
ONCE = {"integrated_gradcam": 1}
"""Forward passes for all images together: the baseline's activations."""


COSTS = [
    *((name, "vit") for name in (*OF_ATTENTION, "gradcam")),
    *(
        (name, net)
        for name in METHODS
        for net in ("toy", "gap", "staged")
        if name not in OF_ATTENTION and (name != "cam" or net == "gap")
    ),
]
"""CAM needs a linear head, and some methods need attention."""


@pytest.mark.parametrize(("name", "net"), COSTS)
def test_the_stated_cost_is_exact(name: str, net: str) -> None:
    """On networks without constant channels, `cost` is the exact number of passes, not an estimate."""
    model, layers = {
        "toy": (ToyNet(5), ("features.3",)),
        "gap": (GapNet(1), ("features.1",)),
        "staged": (StagedNet(2, smooth=True), StagedNet.STAGES),
        "vit": (TinyVit(2), ("blocks.1",)),
    }[net]
    clean = Probe(model, layers[-1], stages=layers).capture(images(5), gradients=False, stages=True)
    assert not any(bool(is_degenerate(acts).any()) for acts in clean.acts.values()), "choose another seed"
    stages = tuple(LayerShape(*acts.shape[1:]) for acts in clean.acts.values())
    shape = NetShape(stages, linear_head=net == "gap", attention_layers=3 if net == "vit" else 0)
    method = METHODS[name](**CHEAP.get(name, {}))
    counted = pipeline.explain(model, images(5), methods=[method], layer=layers[-1], stages=layers).counts
    stated, extra = method.cost(shape), counted.forwards - 3 - ONCE.get(name, 0)
    assert 0 < extra <= 3 * stated.forwards if name in SKIPPING else extra == 3 * stated.forwards
    assert counted.backwards == 3 * ((1 if method.needs.gradients else 0) + stated.backwards)
    assert counted.head_passes == 3 * stated.head_passes


SKIPPING = {"increment_cam", "sise", "group_cam"}
"""Methods that skip channels depending on the gradient, so that `cost` is an upper bound."""


@pytest.mark.parametrize("name", ["gradcam", "gradcam_pp", "scorecam", "iscam", "ablation_cam", "recipro_cam", "rise"])
def test_further_targets_of_an_image_share_its_forward_and_head_passes(name: str) -> None:
    method = METHODS[name](**CHEAP.get(name, {}))
    one, three = (
        pipeline.explain(ToyNet(5), images(5), methods=[method], layer="features.3", targets=targets).counts
        for targets in ([0, 1, 2], [[0, 1, 2]] * 3)
    )
    assert (three.forwards, three.head_passes) == (one.forwards, one.head_passes)
    assert three.backwards == 3 * one.backwards


def test_metrics_share_one_masked_pass_for_each_map() -> None:
    model, pixels_BCHW = ToyNet(0), images(0)
    explanations = pipeline.explain(model, pixels_BCHW, methods=["gradcam", "gradcam_pp"], layer="features.3")
    before = explanations.counts.forwards
    values = pipeline.evaluate(
        model, pixels_BCHW, explanations, metrics=["average_drop", "increase", "pointing_game", "energy_in_box"]
    )
    assert explanations.counts.forwards == before + 3 * 2
    assert math.isnan(float(values["energy_in_box"]["gradcam"][0]))


@pytest.mark.parametrize("steps", [2, 5, 12])
@pytest.mark.parametrize("methods", [["gradcam"], ["gradcam", "gradcam_pp", "eigen_cam"]])
def test_both_curves_share_their_ends(methods: list[object], steps: int) -> None:
    explanations = pipeline.explain(ToyNet(0), images(0), methods=methods, layer="features.3")
    before = explanations.counts.forwards
    both = [{"insertion": {"steps": steps}}, {"deletion": {"steps": steps}}]
    curves = [{"insertion_curve": {"steps": steps}}, {"deletion_curve": {"steps": steps}}]
    pipeline.evaluate(explanations.probe.model, images(0), explanations, metrics=both + curves)
    assert explanations.counts.forwards - before == 3 * (len(methods) * (2 * steps - 2) + 2)


@pytest.mark.parametrize("name", METRICS)
def test_the_stated_cost_of_a_metric_is_exact(name: str) -> None:
    shape = NetShape((LayerShape(6, 8, 8),), linear_head=False)
    methods = ["gradcam", "scorecam", {"integrated_gradcam": {"steps": 3}}]
    explanations = pipeline.explain(ToyNet(5), images(5), methods=methods, layer="features.3")
    before = dataclasses.replace(explanations.counts)
    metric = METRICS[name](**CHEAP_METRICS.get(name, {}))
    boxes = [[[2.0, 2.0, 9.0, 9.0]]] * 3
    pipeline.evaluate(explanations.probe.model, images(5), explanations, metrics=[metric], boxes=boxes)
    stated = metrics_cost([metric], explanations.methods, shape)
    baseline = 1 if metric.redrawn_maps() else 0  # computing maps again takes a new pass for the shared baseline
    assert explanations.counts.forwards - before.forwards == 3 * stated.forwards + baseline
    assert explanations.counts.backwards - before.backwards == 3 * stated.backwards
    assert explanations.counts.head_passes - before.head_passes == 3 * stated.head_passes


CHEAP_METRICS: dict[str, dict[str, object]] = {
    "max_sensitivity": {"samples": 2},
    "infidelity": {"samples": 4},
}


def test_metrics_of_all_kinds_fill_the_same_passes() -> None:
    """54 changed images of four kinds in batches of 16: four passes, the last one not full."""
    sizes: list[int] = []

    class RecordingNet(ToyNet):
        def forward(self, pixels_BCHW: Tensor) -> Tensor:
            sizes.append(len(pixels_BCHW))
            return super().forward(pixels_BCHW)

    model = RecordingNet(0)
    explanations = pipeline.explain(model, images(0), methods=["gradcam", "gradcam_pp"], layer="features.3", batch=16)
    sizes.clear()
    metrics = [
        "average_drop",
        {"deletion": {"steps": 5}},
        {"road": {"percentiles": [50]}},
        {"infidelity": {"samples": 3}},
    ]
    pipeline.evaluate(model, images(0), explanations, metrics=metrics)
    assert sizes == [16, 16, 16, 6]


def test_metrics_that_read_only_the_map_do_not_run_the_model() -> None:
    map_only = [name for name, kind in METRICS.items() if kind.reads == "map" and not kind().redrawn_maps()]
    assert len(map_only) == 14
    explanations = pipeline.explain(ToyNet(0), images(0), methods=["gradcam"], layer="features.3")
    before = explanations.counts.forwards
    pipeline.evaluate(
        explanations.probe.model, images(0), explanations, metrics=map_only, boxes=[[[1.0, 1.0, 8.0, 8.0]]] * 3
    )
    assert explanations.counts.forwards == before


def test_changed_images_shared_by_all_targets_run_once() -> None:
    metrics = [{"deletion": {"steps": 4}}, {"infidelity": {"samples": 5}}]
    extra = []
    for targets in ([0, 1, 2], [[0, 1, 2]] * 3):
        explanations = pipeline.explain(ToyNet(5), images(5), layer="features.3", targets=targets)
        before = explanations.counts.forwards
        pipeline.evaluate(explanations.probe.model, images(5), explanations, metrics=metrics)
        extra.append(explanations.counts.forwards - before)
    assert extra == [3 * (3 + 1 + 5), 3 * (3 * 3 + 1 + 5)]
