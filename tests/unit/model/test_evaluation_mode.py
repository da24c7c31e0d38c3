"""Models that keep dropout or statistics of the batch switched on are explained in evaluation mode all the same."""

import pickle
import sys
import types
from typing import Any, Self

import pytest
import torch
from odd_models import SIDE, Body
from torch import Tensor, nn
from torch.nn import functional

from pipeline.explain.api import evaluate, explain
from pipeline.model.engine import fast_copy
from pipeline.model.outputs import SOFTMAX
from pipeline.model.private_copy import PrivateModel, operations_of
from pipeline.model.probe import Probe
from pipeline.model.zoo import load_model
from pipeline.settings.model import ModelConfig


class _Between(Body):
    """A classifier with a module before its last layer."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.between = between

    def pooled(self, acts_BKuv: Tensor) -> Tensor:
        pooled_BK: Tensor = self.between(acts_BKuv.mean((2, 3)))
        return pooled_BK


class MonteCarlo(_Between):
    """Its `eval()` keeps dropout on, and returns nothing."""

    def __init__(self) -> None:
        super().__init__(nn.Dropout(0.5))

    def eval(self) -> Self:
        super().eval()
        self.between.train()
        return None  # type: ignore[return-value]


class _Stubborn(nn.Dropout):
    def train(self, mode: bool = True) -> Self:
        return super().train(True)


class StubbornDropout(_Between):
    """Its dropout ignores the mode."""

    def __init__(self) -> None:
        super().__init__(_Stubborn(0.5))


class BatchNormInTraining(_Between):
    """Its `train()` keeps batch norm in training mode."""

    def __init__(self) -> None:
        super().__init__(nn.BatchNorm1d(8))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.between.training = True
        return self


KINDS = (MonteCarlo, StubbornDropout, BatchNormInTraining)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def model(request: pytest.FixtureRequest) -> Body:
    torch.manual_seed(0)
    made: Body = request.param()
    made.eval()
    assert made.between.training  # type: ignore[union-attr]
    return made


def pixels(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def steady_logits(model: Body, pixels_BCHW: Tensor) -> Tensor:
    """Compute the logits without dropout and with running statistics, which are 0 and 1."""
    between = model.between
    pooled_BK = model.body(pixels_BCHW).mean((2, 3))
    if isinstance(between, nn.BatchNorm1d):
        assert between.running_mean is not None
        pooled_BK = functional.batch_norm(pooled_BK, between.running_mean, between.running_var)
    logits_BN: Tensor = model.linear(pooled_BK)
    return logits_BN.detach()


def test_python_explains_without_chance_and_leaves_the_flags_of_the_model(model: Body) -> None:
    flags = [module.training for module in model.modules()]
    options: dict[str, Any] = {"layer": "body", "methods": ["gradcam", "scorecam", "integrated_gradcam"]}
    one, other = (explain(model, pixels(), **options) for _ in range(2))
    torch.testing.assert_close(one.logits, steady_logits(model, pixels()), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(one.maps[name], other.maps[name]) for name in one.maps)
    drops = [evaluate(model, pixels(), each)["average_drop"] for each in (one, other)]
    assert all(torch.equal(drops[0][name], drops[1][name]) for name in one.maps)
    assert [module.training for module in model.modules()] == flags


def test_a_model_of_a_run_reaches_the_workers_in_evaluation_mode(model: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = types.ModuleType("mine")
    mine.build = lambda: model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", mine)
    preprocess = {"crop": SIDE, "resize": SIDE, "mean": [0.5] * 3, "std": [0.5] * 3}
    config = ModelConfig.model_validate({"name": "mine:build", "layer": "body", "preprocess": preprocess})
    sent = pickle.loads(pickle.dumps(load_model(config).model))
    assert not any(module.training for module in sent.modules())
    logits_BN = Probe(sent, "body").capture(pixels(), gradients=True).logits_BN
    torch.testing.assert_close(logits_BN, steady_logits(model, pixels()), rtol=1e-5, atol=1e-6)


def test_every_copy_is_in_evaluation_mode(model: Body) -> None:
    calls = operations_of(model, SOFTMAX, pixels(1)).calls
    for copied in (fast_copy(model, "fp32", ()), PrivateModel(model, SOFTMAX, calls)):
        assert not any(module.training for module in copied.modules())
