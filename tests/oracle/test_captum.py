"""Attributions of captum as methods equal captum called directly, and published rules where captum is wrong."""

import copy
import dataclasses
import random

import captum.attr
import numpy as np
import pytest
import torch
from captums import CELLS, KEYS, SIDE, TARGETS, black, conv, directly, flat, maps_of, method, pooling, probed, seeded
from nets import ToyNet, images
from reference import rules
from torch import Tensor, nn

from pipeline.cams import NetShape
from pipeline.cams.captum.table import TAKES
from pipeline.model.outputs import Outputs
from pipeline.model.probe import Probe
from pipeline.model.tasks.detection import Detection

pytestmark = pytest.mark.filterwarnings("ignore:Setting", "ignore:Input Tensor")


@pytest.mark.parametrize("algorithm", TAKES)
def test_maps_equal_captum_called_directly(algorithm: str) -> None:
    model, pixels = flat(), images(0, 3)
    chosen = method(algorithm, **({"grid": SIDE} if "grid" in TAKES[algorithm] else {}))
    found = maps_of(probed(model), chosen, pixels, TARGETS, KEYS)
    rows = zip(pixels.split(1), TARGETS.split(1), KEYS, strict=True)
    direct = torch.cat([directly(algorithm, copy.deepcopy(model), *row) for row in rows])
    if algorithm in ("FeatureAblation", "ShapleyValueSampling", "Lime", "KernelShap"):
        expected = direct[:, 0, :: SIDE // CELLS, :: SIDE // CELLS]
    else:
        expected = direct[:, 0] if algorithm == "Occlusion" else direct.sum(1)
    expected = expected.detach()
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("algorithm", TAKES)
def test_a_row_does_not_depend_on_its_batch(algorithm: str) -> None:
    model, pixels = pooling(), images(0, 3)
    layer = "features.1"
    together = maps_of(probed(model, layer, batch=16, batch_multiple=16), method(algorithm), pixels, TARGETS, KEYS)
    for row in range(3):
        probe = probed(model, layer, batch=16, batch_multiple=16)
        alone = maps_of(probe, method(algorithm), pixels[row : row + 1], TARGETS[row : row + 1], KEYS[row : row + 1])
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("algorithm", TAKES)
def test_costs_are_the_passes_that_run_and_the_model_is_left_unchanged(algorithm: str) -> None:
    model, pixels = flat(), images(0, 3)
    model.train()
    before, known = copy.deepcopy(model.state_dict()), [sorted(vars(module)) for module in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[union-attr]
    versions = [parameter._version for parameter in model.parameters()]
    probe = probed(model)
    evidence = probe.capture(pixels, TARGETS, gradients=False, keys=KEYS)
    counts = dataclasses.replace(probe.counts)
    chosen = method(algorithm)
    chosen(evidence, probe)
    cost = chosen.cost(NetShape((), False, (SIDE, SIDE)))
    ran = probe.counts.forwards - counts.forwards, probe.counts.backwards - counts.backwards
    assert ran == (3 * cost.forwards, 3 * cost.backwards)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert versions == [parameter._version for parameter in model.parameters()]
    assert all(module.training for module in model.modules())
    assert known == [sorted(vars(module)) for module in model.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[union-attr]
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]


def test_deep_lift_is_right_where_captum_is_not() -> None:
    model, pixels, target = pooling(), images(0, 1), 2
    base = black(pixels)
    expected = rules.deep_lift(model.layers(), pixels, base, target)
    found = maps_of(probed(model, "features.1"), method("DeepLift", grid=SIDE), pixels, torch.tensor([target]), "a")
    torch.testing.assert_close(found, expected.sum(1), rtol=1e-4, atol=1e-6)
    change = (model(pixels) - model(base))[0, target]
    torch.testing.assert_close(found.sum(), change, rtol=1e-4, atol=1e-5)
    direct = captum.attr.DeepLift(copy.deepcopy(model)).attribute(pixels, base, target=target)
    assert (direct.sum() - change).abs() > 0.05 * change.abs()  # the hooks of ReLU and MaxPool2d share a tensor


def test_lrp_is_the_epsilon_rule() -> None:
    for model in (flat(), pooling()):
        pixels = images(0, 1)
        found = maps_of(probed(model, "features.1"), method("LRP", grid=SIDE), pixels, torch.tensor([1]), "a")
        expected = rules.relevance(model.layers(), pixels, 1).sum(1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


class Reusing(nn.Module):
    """Uses one ReLU three times, twice of them side by side, as residual blocks do; or a module for each call."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.first, self.left, self.right, self.last = conv(3), conv(), conv(), conv()
        self.relus = nn.ModuleList(nn.ReLU(inplace=True) for _ in range(times))
        self.linear = nn.Linear(6, 4)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        relus = [*self.relus] * (4 // len(self.relus))
        shared = relus[0](self.first(pixels_BCHW))
        both = relus[1](self.left(shared)) + relus[2](self.right(shared))
        return self.linear(relus[3](self.last(both)).mean((2, 3)))


@pytest.mark.parametrize("algorithm", ["GuidedBackprop", "Deconvolution", "GuidedGradCam", "DeepLift", "DeepLiftShap"])
def test_a_module_that_runs_several_times_has_one_for_each_call(algorithm: str) -> None:
    once, reused = seeded(lambda: Reusing(4)), seeded(lambda: Reusing(1))
    reused.load_state_dict(once.state_dict())
    pixels = images(0, 2)
    maps = [
        maps_of(probed(model, "last"), method(algorithm), pixels, TARGETS[:2], KEYS[:2]) for model in (once, reused)
    ]
    assert torch.equal(*maps)


OF_LOGITS = [(kind, name) for kind in ("binary", "sigmoid") for name in ("Saliency", "Occlusion", "DeepLift", "LRP")]


@pytest.mark.parametrize(("kind", "algorithm"), [*OF_LOGITS, ("probabilities", "Saliency")])
def test_scores_are_the_logits_of_the_outputs(kind: str, algorithm: str) -> None:
    bare = flat(classes=1 if kind == "binary" else 3)
    model = nn.Sequential(bare, nn.Softmax(1)).eval() if kind == "probabilities" else bare
    layer = "0.features.2" if kind == "probabilities" else "features.2"
    options = {"colours": "sum"} if algorithm == "Saliency" else {}
    chosen, pixels = method(algorithm, **options), images(0, 2)
    probe = probed(model, layer, outputs=Outputs(kind))  # type: ignore[arg-type]
    found = maps_of(probe, chosen, pixels, torch.tensor([0, 1]), KEYS[:2])
    if kind == "binary":  # the logit of class 0 is -z, that of class 1 is z
        other = maps_of(probed(bare), chosen, pixels, torch.tensor([0, 0]), KEYS[:2])
        other[0] *= -1
    elif kind == "sigmoid":
        other = maps_of(probed(bare), chosen, pixels, torch.tensor([0, 1]), KEYS[:2])
    else:
        log = nn.Sequential(bare, nn.LogSoftmax(1)).eval()
        other = maps_of(probed(log, layer), chosen, pixels, torch.tensor([0, 1]), KEYS[:2])
    torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-6)


class Narrow(ToyNet):
    """Runs out of memory with more than some images in a pass."""

    most = 100

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if len(pixels_BCHW) > self.most:
            raise torch.OutOfMemoryError("DefaultCPUAllocator: no memory")
        return super().forward(pixels_BCHW)


@pytest.mark.parametrize(
    "algorithm", ["Saliency", "IntegratedGradients", "Occlusion", "Lime", "LayerConductance", "DeepLift"]
)
def test_passes_narrow_when_memory_runs_out(algorithm: str) -> None:
    model = Narrow(0)
    probe = Probe(model, "features.3")
    evidence = probe.capture(images(0, 3), TARGETS, gradients=False, keys=KEYS)
    whole = method(algorithm)(evidence, probe)
    model.most = 4
    torch.testing.assert_close(method(algorithm)(evidence, probe), whole, rtol=1e-4, atol=1e-6)


class Detector(nn.Module):
    """Detects each class with a score above the threshold, from the mean of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.linear = nn.Sequential(conv(3), nn.ReLU()), nn.Linear(6, 4)
        self.score_thresh = 0.25

    def forward(self, pixels_BCHW: Tensor) -> list[dict[str, Tensor]]:
        scores_BN = self.linear(self.features(pixels_BCHW).mean((2, 3))).softmax(1)
        kept = [scores_N.ge(self.score_thresh).nonzero()[:, 0] for scores_N in scores_BN]
        return [
            {"labels": labels_D, "scores": scores_N[labels_D]}
            for labels_D, scores_N in zip(kept, scores_BN, strict=True)
        ]


@pytest.mark.parametrize("algorithm", ["Saliency", "GuidedBackprop", "Occlusion", "IntegratedGradients"])
def test_a_class_that_a_detector_does_not_find_has_no_gradient(algorithm: str) -> None:
    model, pixels = seeded(Detector), images(0, 2)
    probe = probed(model, "features.1", outputs=Outputs("probabilities", task=Detection(4)))
    logits_BN = probe.capture(pixels, torch.tensor([0, 0]), gradients=False).logits_BN
    best, worst = logits_BN.argmax(1), logits_BN.argmin(1)
    assert maps_of(probe, method(algorithm), pixels, best, KEYS[:2]).flatten(1).any(1).all()
    assert not maps_of(probe, method(algorithm), pixels, worst, KEYS[:2]).any()
