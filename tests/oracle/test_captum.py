"""Attributions of captum as methods equal captum called directly, and published rules where captum is wrong."""

import copy
import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLasso
from nets import ToyNet, images
from reference import rules
from torch import Tensor, nn
from torch.nn import functional

import pipeline
from pipeline.cams import NetShape, build_methods
from pipeline.cams.captum import Captum
from pipeline.cams.captum.library import drawing
from pipeline.cams.captum.table import TAKES
from pipeline.errors import ConfigError
from pipeline.model.outputs import Outputs
from pipeline.model.probe import Probe

SIDE = 16
CELLS = 4
KEYS = ("a", "b", "c")
TARGETS = torch.tensor([1, 2, 0])
FEW: dict[str, dict[str, Any]] = {
    "IntegratedGradients": {"steps": 5},
    "GradientShap": {"samples": 4},
    "DeepLiftShap": {"samples": 3},
    "LayerConductance": {"steps": 4},
    "Occlusion": {"window": 6, "stride": 4},
    "FeatureAblation": {"cells": CELLS},
    "ShapleyValueSampling": {"cells": CELLS, "samples": 3},
    "Lime": {"cells": CELLS, "samples": 40, "alpha": 1e-4},
    "KernelShap": {"cells": CELLS, "samples": 40},
}
pytestmark = pytest.mark.filterwarnings("ignore:Setting", "ignore:Input Tensor")


class Flat(nn.Module):
    """A convolutional network of modules that LRP has rules for; only the order of numbers is a function."""

    def __init__(self, *layers: nn.Module, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2))
        self.linear = nn.Linear(6 * 4, classes)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.features(pixels_BCHW).flatten(1))

    def layers(self) -> list[nn.Module]:
        return [*self.features, nn.Flatten(), self.linear]


def conv(inputs: int = 6) -> nn.Module:
    return nn.Conv2d(inputs, 6, 3, padding=1)


def seeded(make: Callable[[], nn.Module]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def flat(**options: int) -> Flat:
    """A network in which captum hooks no tensor twice: a convolution follows every activation."""
    return seeded(lambda: Flat(conv(3), nn.ReLU(), conv(), nn.ReLU(), conv(), **options))


def pooling() -> Flat:
    """A network like VGG, in which a maximum follows an activation."""
    return seeded(lambda: Flat(conv(3), nn.ReLU(), nn.MaxPool2d(2), conv(), nn.ReLU(), nn.MaxPool2d(2)))


def method(algorithm: str, **options: Any) -> Captum:
    return Captum(algorithm, **FEW.get(algorithm, {}) | options)


def probed(model: nn.Module, layer: str = "features.2", **options: Any) -> Probe:
    return Probe(model, layer, **options)


def maps_of(probe: Probe, chosen: Captum, pixels: Tensor, targets: Tensor, keys: Sequence[str]) -> Tensor:
    evidence = probe.capture(pixels, targets, gradients=False, keys=keys)
    return chosen(evidence, probe)


def black(pixels_BCHW: Tensor) -> Tensor:
    return Probe(ToyNet(0)).baseline_pixels("black", pixels_BCHW)


def cells() -> Tensor:
    rows = torch.arange(SIDE) * CELLS // SIDE
    return (rows[:, None] * CELLS + rows)[None, None]


def directly(algorithm: str, model: nn.Module, pixels: Tensor, targets: Tensor, key: str) -> Tensor:
    """Call captum as its documentation does, on one image or on a batch of them."""
    layers = [model.features[2]] if algorithm in ("GuidedGradCam", "LayerConductance") else []
    one = getattr(captum.attr, algorithm)(model, *layers)
    base = black(pixels)
    few = FEW.get(algorithm, {})
    if algorithm in ("Saliency", "InputXGradient", "GuidedBackprop", "Deconvolution", "GuidedGradCam", "LRP"):
        return one.attribute(pixels, target=targets)
    if algorithm == "DeepLift":
        return one.attribute(pixels, base, target=targets)
    if algorithm in ("IntegratedGradients", "LayerConductance"):
        return one.attribute(pixels, base, target=targets, n_steps=few["steps"])
    if algorithm == "Occlusion":
        return one.attribute(pixels, (3, 6, 6), (3, 4, 4), base, target=targets)
    if algorithm == "FeatureAblation":
        return one.attribute(pixels, base, target=targets, feature_mask=cells())
    if algorithm == "DeepLiftShap":
        from pipeline.model import noise

        drawn = torch.cat([*noise.normal(0, [key], "captum DeepLiftShap", tuple(pixels.shape[1:]), 3)])
        return one.attribute(pixels, base + 0.15 * (pixels.max() - pixels.min()) * drawn, target=targets)
    with drawing(0, key, f"captum {algorithm}"):
        if algorithm == "GradientShap":
            drawn = torch.randn(few["samples"], *pixels.shape[1:])
            base = base + 0.15 * (pixels.max() - pixels.min()) * drawn
            return one.attribute(pixels, base, n_samples=few["samples"], target=targets)
        if algorithm == "Lime":
            one = captum.attr.Lime(model, interpretable_model=SkLearnLasso(alpha=few["alpha"]))
        return one.attribute(pixels, base, target=targets, feature_mask=cells(), n_samples=few["samples"])


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


@pytest.mark.parametrize("kind", ["binary", "sigmoid", "probabilities"])
@pytest.mark.parametrize("algorithm", ["Saliency", "Occlusion", "DeepLift", "LRP"])
def test_scores_are_the_logits_of_the_outputs(kind: str, algorithm: str) -> None:
    if kind == "probabilities" and algorithm in ("DeepLift", "LRP"):
        pytest.skip("captum has no rule for the logarithm")
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


class Functional(nn.Module):
    """A network with a function in its forward method, beside modules."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.relu, self.last, self.linear = conv(3), nn.ReLU(), conv(), nn.Linear(6, 4)
        self.function = function

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        features = self.last(self.relu(self.conv(pixels_BCHW)))
        return self.linear(functional.adaptive_avg_pool2d(self.function(features), 1).flatten(1))


def refused(model: nn.Module, algorithm: str, layer: str = "conv", **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        pipeline.explain(model, images(0, 1), methods=[{"captum": {"algorithm": algorithm} | options}], layer=layer)
    return str(caught.value)


@pytest.mark.parametrize(
    ("algorithm", "function", "said"),
    [
        ("GuidedBackprop", functional.relu, "nn.ReLU modules only, but the model calls relu in the forward method"),
        ("Deconvolution", torch.relu_, "calls relu_"),
        ("GuidedGradCam", nn.ReLU6(), "'function' is a module of type ReLU6"),
        ("DeepLift", functional.relu, "no rule of DeepLift for functions, and the model calls relu"),
        ("DeepLiftShap", functional.gelu, "calls gelu"),
        ("DeepLift", lambda features: features * features.sigmoid(), "calls sigmoid"),
        ("DeepLift", nn.GELU(), "no rule of DeepLift for 'function', a module of type GELU"),
        ("DeepLift", nn.MaxPool2d(3, 2), "wrong where windows overlap, as in 'function'"),
        ("LRP", lambda features: features + 1, "no rule of LRP for functions, and the model calls add"),
        ("LRP", nn.Tanh(), "calls adaptive_avg_pool2d"),
        ("LRP", nn.Identity(), "no rule of LRP for 'function', a module of type Identity"),
    ],
)
def test_models_that_captum_would_explain_wrongly_are_refused(
    algorithm: str, function: Callable[[Tensor], Tensor], said: str
) -> None:
    assert said in refused(seeded(lambda: Functional(function)), algorithm)


def test_what_an_algorithm_needs_of_layers_and_images_is_said() -> None:
    smooth = seeded(lambda: nn.Sequential(conv(3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)))
    assert "the model has none" in refused(smooth, "GuidedBackprop", "0")
    assert "no rule of LRP for '3', a module of type Flatten" in refused(smooth, "LRP", "0")
    net = ToyNet(0)
    assert "which the layer 'features.2:input' is not" in refused(net, "GuidedGradCam", "features.2:input")
    assert "which the layer 'features.2:input' is not" in refused(net, "LayerConductance", "features.2:input")
    assert "17 cells along each side do not fit images of 16 pixels" in refused(net, "Lime", "features.3", cells=17)
    assert "window of 32 pixels does not fit images of 16 pixels" in refused(net, "Occlusion", "features.3")
    assert "stride larger than the window" in refused(net, "Occlusion", "features.3", window=3, stride=4)


def test_deep_lift_must_add_up_on_a_trial_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cams.captum.problem_of", lambda job: "")
    message = refused(seeded(lambda: Functional(functional.gelu)), "DeepLift")
    assert "its attributions add up to" in message
    assert "instead of" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"algorithm": "Oclusion"}, "unknown algorithm (did you mean 'Occlusion'?)"),
        ({}, "explain.methods.captum.algorithm"),
        ({"algorithm": "Saliency", "cells": 3}, "captum.cells: has no effect on Saliency, which takes colours, grid"),
        ({"algorithm": "Lime", "grid": 7}, "captum.grid: has no effect on Lime"),
        ({"algorithm": "Lime", "samples": 0}, "greater than or equal to 1, got 0"),
        ({"algorithm": "DeepLift", "baseline": "white"}, "captum.baseline"),
        ({"algorithm": "LRP", "foo": 1}, "unknown parameter 'foo'"),
    ],
)
def test_parameters_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_methods([{"captum": options}])
    assert said in str(caught.value)


def test_methods_are_named_after_their_algorithms() -> None:
    labels = [*build_methods([{"captum": {"algorithm": name}} for name in TAKES])]
    assert labels[:4] == [
        "captum_saliency",
        "captum_input_x_gradient",
        "captum_integrated_gradients",
        "captum_gradient_shap",
    ]
    assert "captum_lrp" in labels
    assert [*build_methods([{"captum": {"algorithm": "LRP", "as": "mine"}}])] == ["mine"]
    with pytest.raises(ConfigError, match="listed twice"):
        build_methods([{"captum": {"algorithm": "LRP"}}, {"captum": {"algorithm": "LRP", "grid": 7}}])


def test_without_captum_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.cams.captum import library

    def missing(name: str) -> str:
        raise library.PackageNotFoundError(name)

    monkeypatch.setattr(library, "version", missing)
    with pytest.raises(ConfigError, match=r"captum is not installed \(run pip install 'camatlas\[captum\]'\)"):
        build_methods([{"captum": {"algorithm": "Saliency"}}])
