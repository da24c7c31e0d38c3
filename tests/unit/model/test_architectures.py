"""Names, functions and their keys: what cannot make a classifier is one sentence, and nothing has no effect."""

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import ToyNet
from torch import nn

from pipeline.errors import ConfigError
from pipeline.model.architectures import build_architecture, other_architectures
from pipeline.settings.model import ModelConfig


def raising() -> nn.Module:
    raise FileNotFoundError("backbone.pth")


def leaving() -> nn.Module:
    sys.exit(2)


def exported() -> object:
    return torch.export.export(ToyNet(0), (torch.zeros(2, 3, 16, 16),))


FUNCTIONS: dict[str, Callable[..., object]] = {
    "build": lambda classes=4: ToyNet(0, classes=classes),
    "needs": lambda classes: ToyNet(0, classes=classes),
    "raising": raising,
    "leaving": leaving,
    "exported": exported,
    "pair": lambda: (ToyNet(0), "preprocess"),
    "state": lambda: ToyNet(0).state_dict(),
    "kind": lambda: ToyNet,
    "none": lambda: None,
}


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mine")
    for name, function in FUNCTIONS.items():
        setattr(module, name, function)
    module.model = ToyNet(0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)


def refusal(**fields: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        build_architecture(ModelConfig.model_validate(fields))
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raising", "model.name: 'mine:raising' raised FileNotFoundError: backbone.pth (test_architectures.py:"),
        ("leaving", "model.name: 'mine:leaving' raised SystemExit: 2"),
        ("needs", "model.arguments: 'mine:needs' cannot be called: missing a required argument: 'classes'"),
        ("exported", "returned an exported program, whose layers cannot be observed (return the module"),
        ("pair", "returned tuple, not a torch module (return the model alone"),
        ("state", "returned OrderedDict, not a torch module (return a model, and give the file"),
        ("kind", "returned type, not a torch module (return an instance: ToyNet(...))"),
        ("none", "returned NoneType, not a torch module"),
        ("model", "model.name: 'mine:model' is a model (name a function that returns it)"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_function_that_gives_no_model_is_one_sentence(name: str, words: str) -> None:
    message = refusal(name=f"mine:{name}")
    assert words in message
    assert "\n" not in message


def test_arguments_reach_the_function() -> None:
    config = ModelConfig.model_validate({"name": "mine:needs", "arguments": {"classes": 7}})
    model = build_architecture(config).model
    assert model.get_parameter("linear.weight").shape == (7, 8)


def test_a_key_without_an_effect_is_refused_with_the_others() -> None:
    message = refusal(name="mine:absent", num_classes=7, weights="IMAGENET1K_V1")
    assert "model.num_classes: has no effect on 'mine:absent'" in message
    assert "model.weights: 'IMAGENET1K_V1' has no effect" in message
    assert "has no 'absent'" in message
    for name in ("torchvision/resnet18", "timm/resnet18"):
        assert "model.arguments: only a model by package.module:function" in refusal(name=name, arguments={"a": 1})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "timm/vit_small_patch14_dinov2"}, "is a feature extractor"),
        ({"name": "timm/vit_small_patch14_dinov2", "weights": "random"}, "is a feature extractor"),
        ({"name": "timm/vit_small_patch14_dinov2", "num_classes": 5}, "have no classes, so a classifier with 5"),
        ({"name": "timm/resnet18", "num_classes": 7}, "have 1000 classes, so a classifier with 7 would be random"),
        ({"name": "timm/resnet18.a1_in1"}, "did you mean 'resnet18.a1_in1k'?"),
        ({"name": "timm/resnet81"}, "timm has no model 'resnet81'"),
        ({"name": "torchvision/resnet81"}, "torchvision has no classifier 'resnet81'"),
        ({"name": "torchvision/resnet18", "weights": "IMAGENET1K_V9"}, "the model has no weights 'IMAGENET1K_V9'"),
        ({"name": "resnet18"}, "is not a model name"),
    ],
)
def test_names_of_libraries_without_a_trained_classifier_are_refused(fields: dict[str, Any], words: str) -> None:
    assert words in refusal(**fields)


def test_a_new_number_of_classes_is_right_with_weights_that_have_it() -> None:
    config = ModelConfig.model_validate({"name": "timm/test_resnet", "num_classes": 7, "weights": "random"})
    model = build_architecture(config).model
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_other_architectures_are_those_of_the_same_library() -> None:
    assert "resnet34" in other_architectures("torchvision/resnet18")
    assert "tf_efficientnet_b0" in other_architectures("timm/efficientnet_b0.ra_in1k")
    assert "efficientnet_b0" not in other_architectures("timm/efficientnet_b0.ra_in1k")
    assert other_architectures("mine:build") == frozenset()
