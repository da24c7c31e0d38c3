"""The record: what planted metrics are said to be worth."""

from typing import Any

import numpy as np
import pytest

from pipeline.judge import record
from pipeline.judge.candidates import CHANGES, RUINS, SIZES
from pipeline.judge.measuring import BASES, Measured
from pipeline.metrics import METRICS
from schemas.judged import MetricRecord

METHODS = (*(f"method/m{i}" for i in range(12)), "method/gradcam")
CANDIDATES = (
    *METHODS, *(f"ruin/{name}" for name in RUINS), *(f"change/{base}/{name}" for base in BASES for name in CHANGES),
    *(f"region/{number}" for number in range(SIZES)),
)  # fmt: skip
PLANTED = ("mass", "rank", "insertion", "deletion", "increase", "sparsity", "adcc")


def _measured(seed: int, scenes: int = 60) -> Measured:
    """Plant a metric that is the truth, its reverse, chance, a constant, one that likes blur, and one of methods."""
    random = np.random.default_rng(seed)
    mass = random.random((scenes, len(CANDIDATES)))
    columns = {
        "mass": mass,
        "rank": random.random(mass.shape),
        "insertion": mass,  # the truth itself
        "deletion": -mass,  # lower is better
        "increase": np.ones_like(mass),
        "sparsity": random.random(mass.shape),
        "adcc": np.where([name.startswith("method/") for name in CANDIDATES], random.random(mass.shape), np.nan),
    }
    for base, origin in (("truth", "ruin/truth"), ("gradcam", "method/gradcam")):
        before = columns["sparsity"][:, CANDIDATES.index(origin)]
        columns["sparsity"][:, CANDIDATES.index(f"change/{base}/blur")] = before + 0.1
    values_SKQ = np.stack([columns[name] for name in PLANTED], 2)
    keys = tuple(f"s{i}" for i in range(scenes))
    return Measured(keys, ("one",) * scenes, (1.0,) * scenes, CANDIDATES, PLANTED, values_SKQ)


@pytest.fixture(scope="module")
def judged() -> dict[str, Any]:
    networks = {"plain": _measured(0), "vit": _measured(1)}
    return record.judge_metrics(networks, {name: METRICS[name]() for name in PLANTED}, seed=0)


@pytest.mark.parametrize("name", ["insertion", "deletion", "mass"])
def test_the_truth_itself_agrees_by_1_in_either_direction(judged: dict[str, Any], name: str) -> None:
    found = judged[name]["agreement"]["methods"]["mass"]
    assert (found["tau"], found["low"], found["high"]) == pytest.approx((1, 1, 1))
    assert found["scenes"] == 120


def test_chance_agrees_within_its_interval_of_0(judged: dict[str, Any]) -> None:
    for score in ("mass", "rank"):
        found = judged["sparsity"]["agreement"]["methods"][score]
        assert found["low"] < 0 < found["high"]


def test_the_agreement_of_a_constant_metric_is_none_and_not_0(judged: dict[str, Any]) -> None:
    constant = judged["increase"]
    assert constant["agreement"]["methods"] == {"mass": None, "rank": None}
    assert constant["size"] is None
    assert constant["repeatability"] is None
    assert set(constant["free_gains"].values()) == {None}
    assert constant["order"]["shifted"] == 0.5  # a tie each time


def test_a_metric_that_likes_blur_is_caught(judged: dict[str, Any]) -> None:
    assert judged["sparsity"]["free_gains"]["blur"]["rewarded"] == 1
    assert judged["sparsity"]["free_gains"]["blur"]["gain"] == pytest.approx(0.1 / 0.29, rel=0.1)
    assert judged["sparsity"]["free_gains"]["dilation"]["rewarded"] == pytest.approx(0.5, abs=0.1)


def test_a_metric_that_needs_a_method_is_judged_on_methods_alone(judged: dict[str, Any]) -> None:
    assert judged["adcc"]["agreement"]["ruins"] == {"mass": None, "rank": None}
    assert judged["adcc"]["order"]["noise"] is None
    assert judged["adcc"]["agreement"]["methods"]["mass"]["scenes"] == 120


def test_every_judged_metric_fits_the_schema(judged: dict[str, Any]) -> None:
    for fields in judged.values():
        assert MetricRecord.model_validate(fields).by_network.keys() == {"plain", "vit"}


def test_methods_are_scored_with_intervals() -> None:
    found = record.judge_methods({"plain": _measured(0)}, seed=0)
    assert len(found) == len(METHODS)
    one = found["m0"]["mass"]
    assert one["low"] < one["mean"] < one["high"]


def test_a_method_that_one_network_does_not_allow_is_judged_on_the_others() -> None:
    fewer = _measured(1)
    keep = [i for i, name in enumerate(CANDIDATES) if name != "method/m3"]
    smaller = Measured(
        fewer.keys, fewer.rules, fewer.own, tuple(CANDIDATES[i] for i in keep), PLANTED, fewer.values_SKQ[:, keep]
    )
    found = record.judge_methods({"plain": _measured(0), "vit": smaller}, seed=0)
    assert found["m3"]["mass"]["scenes"] == 60
    assert found["m4"]["mass"]["scenes"] == 120
