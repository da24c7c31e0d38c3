"""A wrapped or compiled model gives the bare model's weights, layers and maps, bit for bit."""

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import StagedNet, images
from torch import nn

from pipeline.explain.api import evaluate, explain
from pipeline.model.trial import LoadedModel
from pipeline.model.wrappers import unwrap_parts, unwrapped
from pipeline.model.zoo import load_model
from pipeline.settings.model import ModelConfig

METHODS = ["gradcam", "layercam", {"scorecam": {}}]


def with_parts(wrap: Callable[[nn.Module], Any]) -> nn.Module:
    model = StagedNet(1)
    model.stage1, model.head = wrap(model.stage1), wrap(model.head)
    return model


def compiled_in_place() -> nn.Module:
    model = StagedNet(1)
    model.compile()
    model.stage2.compile()
    return model


WRAPPED: dict[str, Callable[[], Any]] = {
    "parallel": lambda: nn.DataParallel(StagedNet(1)),
    "compiled": lambda: torch.compile(StagedNet(1)),
    "compiled, then parallel": lambda: nn.DataParallel(torch.compile(StagedNet(1))),
    "parts parallel": lambda: with_parts(nn.DataParallel),
    "parts compiled": lambda: with_parts(torch.compile),
    "compiled in place": compiled_in_place,
}


def loaded(monkeypatch: pytest.MonkeyPatch, build: Callable[[], nn.Module]) -> LoadedModel:
    module = types.ModuleType("mine")
    module.build = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    preprocess = {"crop": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    return load_model(ModelConfig.model_validate({"name": "mine:build", "layer": "stage2", "preprocess": preprocess}))


@pytest.mark.parametrize("case", WRAPPED)
def test_a_run_loads_the_bare_model(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, wrapped = loaded(monkeypatch, lambda: StagedNet(1)), loaded(monkeypatch, WRAPPED[case])
    assert wrapped.weights_digest == bare.weights_digest
    assert [name for name, _ in wrapped.model.named_modules()] == [name for name, _ in bare.model.named_modules()]
    assert (wrapped.layer, wrapped.stages, wrapped.classes) == (bare.layer, bare.stages, bare.classes)
    assert all(part._compiled_call_impl is None for part in wrapped.model.modules())


@pytest.mark.parametrize("case", WRAPPED)
def test_a_notebook_explains_the_bare_model(case: str) -> None:
    pixels_BCHW = images(0, 2, 32)
    bare = explain(StagedNet(1), pixels_BCHW, methods=METHODS, layer="stage2")
    model = WRAPPED[case]()
    wrapped = explain(model, pixels_BCHW, methods=METHODS, layer="stage2")
    rounding = 1e-6 if case.startswith("parts") else 0.0  # batch norms inside of wrapped parts are not folded
    torch.testing.assert_close(wrapped.logits, bare.logits, rtol=0, atol=rounding)
    for name, map_Buv in bare.maps.items():
        torch.testing.assert_close(wrapped.maps[name], map_Buv, rtol=0, atol=rounding)
    assert evaluate(model, pixels_BCHW, wrapped).keys() == {"average_drop"}


def test_nothing_but_wrappers_is_taken_off() -> None:
    model = StagedNet(1)
    assert unwrapped(model) is model
    before = dict(model.named_modules())
    unwrap_parts(model)
    assert dict(model.named_modules()) == before
