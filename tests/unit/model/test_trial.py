"""Every model that cannot give trustworthy rows is refused by one sentence, before a run and in a notebook."""

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from odd_models import REFUSED, RIGHT, SIDE, Body, Raising, on_meta
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.explain.api import explain
from pipeline.model.trial import LoadedModel
from pipeline.model.zoo import load_model
from pipeline.settings.model import ModelConfig


def loaded(monkeypatch: pytest.MonkeyPatch, build: Callable[[], object], **fields: Any) -> LoadedModel:
    module = types.ModuleType("mine")
    module.build = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    preprocess = {"crop": SIDE, "resize": SIDE, "mean": [0.5] * 3, "std": [0.5] * 3}
    given = {"name": "mine:build", "layer": "body", "preprocess": preprocess, **fields}
    return load_model(ModelConfig.model_validate(given))


@pytest.fixture(autouse=True)
def _the_same_weights() -> None:
    """Outputs that happen to be in [0, 1] take one more pass, which models that count their passes notice."""
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore")  # torch warns of its own deprecated kinds of models
@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_trusted_is_refused_by_one_sentence(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, words = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        loaded(monkeypatch, build)
    assert words in str(refused.value)
    assert len(refused.value.mistakes) == 1
    assert "\n" not in str(refused.value)


IN_NOTEBOOKS = [case for case in REFUSED if case not in ("NaN", "graph", "detection")]
"""Logits that are not finite mark single rows in a notebook; the slow ones are the same check."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", IN_NOTEBOOKS)
def test_a_notebook_refuses_the_same_models(case: str) -> None:
    build, words = REFUSED[case]
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the words are compared below
        explain(build(), torch.randn(2, 3, SIDE, SIDE), layer="body")  # type: ignore[arg-type]
    assert words in str(refused.value)


@pytest.mark.parametrize("case", RIGHT)
def test_other_models_are_right(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    found = loaded(monkeypatch, RIGHT[case])
    pixels_BCHW = torch.randn(2, 3, SIDE, SIDE)
    kept_BCHW = pixels_BCHW.clone()
    explanations = explain(found.model, pixels_BCHW, layer="body", methods=["gradcam", "hirescam"])
    assert torch.equal(pixels_BCHW, kept_BCHW)
    returned = found.model(kept_BCHW.clone())
    logits_BN = returned["logits"] if isinstance(returned, dict) else returned
    torch.testing.assert_close(explanations.logits, logits_BN.detach(), rtol=1e-5, atol=1e-6)


def test_mistakes_in_weights_layers_and_outputs_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"layer": "bodi", "stages": ["body.1", "bady"], "weights_sha256": "0" * 64, "outputs": "binary"}
    with pytest.raises(ConfigError) as refused:
        loaded(monkeypatch, Body, **fields)
    assert [mistake.where for mistake in refused.value.mistakes] == [
        "model.weights_sha256", "model.outputs", "model.layer", "model.stages",
    ]  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        loaded(monkeypatch, Raising, layer="bodi", weights="absent.safetensors")
    assert [mistake.where for mistake in refused.value.mistakes] == ["model.weights", "model.name", "model.layer"]


def test_a_wrong_function_is_reported_with_a_wrong_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(monkeypatch, on_meta, weights="absent.safetensors")
    assert [mistake.where for mistake in refused.value.mistakes] == ["model.name", "model.weights"]


def test_a_key_of_the_weights_needs_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="weights_key: has no effect without a weights file"):
        loaded(monkeypatch, Body, weights_key="ema")


class Noted(Body):
    """Notes the number of images of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def before(self, pixels_BCHW: Tensor) -> Tensor:
        self.passes.append(len(pixels_BCHW))
        return pixels_BCHW


def test_a_notebook_tries_a_model_once_until_its_modules_change() -> None:
    model, pixels_BCHW = Noted(), torch.randn(2, 3, SIDE, SIDE)

    def passes() -> int:
        model.passes.clear()
        explain(model, pixels_BCHW, layer="body")
        return len(model.passes)

    first, second = passes(), passes()
    assert second < first
    model.linear.weight.data.mul_(2)
    assert passes() == second
    model.linear = nn.Linear(8, 5)
    assert passes() == first
    model.linear = nn.Linear(8, 1)
    with pytest.raises(ConfigError, match="one output per image"):
        passes()
