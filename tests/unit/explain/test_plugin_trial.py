"""What methods and metrics of the user's do wrong on trial images is refused before a run, all at once."""

# ruff: noqa: E501 - cases stand on one line

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from misbehaving import (
    FAULTS,
    Do,
    doubled,
    faded,
    forward_twice,
    gradient_without_need,
    in_place,
    method_of,
    metric_of,
    nan,
    of_first_target,
    plain,
    raising,
    random_each_call,
    scaled_by_batch,
    state,
)
from nets import TinyVit, ToyNet
from torch import Tensor

import camatlas
from pipeline.cams import LayerShape, NetShape, build_methods
from pipeline.errors import ConfigError
from pipeline.explain.plugin_trial import try_plugins
from pipeline.metrics import build_metrics
from pipeline.model.trial import LoadedModel, tried
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess

NET = NetShape((LayerShape(6, 8, 8),), False)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return tried(ToyNet(0), ModelConfig(name="x", layer="features.3"), Preprocess.of({"resize": 16, "crop": 16}), "")


def refused(loaded: LoadedModel, methods: Sequence[Any] = (), metrics: Sequence[Any] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        try_plugins(loaded, NET, build_methods(methods), build_metrics(metrics))
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize("do", FAULTS)
def test_a_faulty_method_is_refused_before_a_run(loaded: LoadedModel, do: Do) -> None:
    before = state(loaded.model)
    (mistake,) = refused(loaded, [method_of(do)])
    assert mistake.startswith(f"explain.methods.mine: plug-in misbehaving:Mine {FAULTS[do]}")
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
    assert all(mistake.startswith("explain.metrics.valued: plug-in misbehaving:Valued ") for mistake in found)


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


def test_a_change_of_the_attention_is_refused_before_a_run() -> None:
    preprocess = Preprocess.of({"resize": 16, "crop": 16})
    vit = tried(TinyVit(), ModelConfig(name="x"), preprocess, "")
    (mistake,) = refused(vit, [method_of(faded, needs=camatlas.Needs(attention=True))])
    assert "changed attention.weights[0], attention.weights[1], attention.weights[2] of the evidence" in mistake


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
