"""Models are checked before a run, and those that cannot give trustworthy rows are refused."""

import sys
import types

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.weights import digest
from pipeline.model.zoo import load_model
from pipeline.settings.model import ModelConfig


class BatchCentred(nn.Module):
    """Subtracts the mean over the batch, also in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class NotANumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / torch.zeros_like(x)


class Overflowing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1e38 * 1e38


class NeverTheLast(nn.Module):
    """Gives the last class a logit of minus infinity, as models with masked classes do."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :-1], torch.full_like(x[:, -1:], -torch.inf)], 1)


class Huge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1e30


def net(between: nn.Module, *after: nn.Module, classes: int = 5) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), between,
        nn.Linear(64, classes), *after,
    )  # fmt: skip


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Install a user module with functions that build models."""
    module = types.ModuleType("mine")
    for kind in (nn.Identity, BatchCentred, AlwaysDropping, NotANumber):
        setattr(module, kind.__name__, lambda kind=kind: net(kind()))
    for kind in (Overflowing, NeverTheLast, Huge):
        setattr(module, kind.__name__, lambda kind=kind: net(nn.Identity(), kind()))
    module.OneClass = lambda: net(nn.Identity(), classes=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def config(name: str, **fields: object) -> ModelConfig:
    preprocess = {"crop": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    return ModelConfig.model_validate({"name": f"mine:{name}", "layer": "1", "preprocess": preprocess, **fields})


def refusal(name: str, **fields: object) -> str:
    with pytest.raises(ConfigError) as refused:
        load_model(config(name, **fields))
    return str(refused.value)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BatchCentred", "alone than in a batch"),
        ("AlwaysDropping", "change from one pass to the next"),
        ("NotANumber", "NaN or infinity"),
        ("Overflowing", "NaN or infinity"),
        ("NeverTheLast", "NaN or infinity"),
    ],
)
def test_models_with_unreliable_logits_are_refused(name: str, words: str) -> None:
    assert words in refusal(name)


@pytest.mark.usefixtures("mine")
def test_huge_logits_are_accepted() -> None:
    assert load_model(config("Huge")).classes == 5


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(("outputs", "classes"), [("binary", 2), ("sigmoid", 1), ("raw", 1)])
def test_one_output_is_read_as_stated_and_refused_otherwise(outputs: str, classes: int) -> None:
    assert load_model(config("OneClass", outputs=outputs)).classes == classes
    assert "model.outputs: the model has one output per image" in refusal("OneClass")


@pytest.mark.usefixtures("mine")
def test_a_preprocessing_that_nobody_stated_is_said() -> None:
    said = [note for note in load_model(config("Identity", preprocess="default")).notes if "model.preprocess" in note]
    assert said[0].startswith("model.preprocess is not stated, so images become 224 x 224 pixels")
    stated = {"resize": 32, "crop": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    assert not any("model.preprocess" in note for note in load_model(config("Identity", preprocess=stated)).notes)


@pytest.mark.usefixtures("mine")
def test_weights_can_be_pinned_to_their_hash() -> None:
    loaded = load_model(config("Identity"))
    assert loaded.weights_digest == digest(loaded.model)
    assert load_model(config("Identity", weights_sha256=loaded.weights_digest)).weights_digest == loaded.weights_digest
    message = refusal("Identity", weights_sha256="0" * 64)
    assert "model.weights_sha256" in message
    assert loaded.weights_digest in message


@pytest.mark.usefixtures("mine")
def test_wrong_weights_and_a_wrong_layer_are_reported_together() -> None:
    message = refusal("Identity", weights_sha256="0" * 64, layer="9")
    assert "model.weights_sha256" in message
    assert "model.layer" in message
