"""What captum would explain wrongly is refused in a sentence before the work, and so are parameters without effect."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captums import conv, seeded
from nets import ToyNet, images
from torch import Tensor, nn
from torch.nn import functional

import pipeline
from pipeline.cams import build_methods
from pipeline.cams.captum.table import TAKES
from pipeline.errors import ConfigError


class Functional(nn.Module):
    """A network with a function in its forward method, beside modules."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.relu, self.last, self.linear = conv(3), nn.ReLU(), conv(), nn.Linear(6, 4)
        self.function = function

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        features = self.last(self.relu(self.conv(pixels_BCHW)))
        return self.linear(functional.adaptive_avg_pool2d(self.function(features), 1).flatten(1))


def refused(model: nn.Module, algorithm: str, layer: str = "conv", **options: object) -> str:
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
    assert labels[:3] == ["captum_saliency", "captum_input_x_gradient", "captum_integrated_gradients"]
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
