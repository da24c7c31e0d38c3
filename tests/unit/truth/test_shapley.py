"""Exact values: equal to the definition over all orders, and efficient."""

import numpy as np
import pytest
from reference.shapley import shapley_by_orders

from pipeline.truth.scenes import make_scene
from pipeline.truth.shapley import part_values, shapley
from pipeline.truth.shards import NAMES, open_network


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_values_equal_the_mean_over_all_orders(players: int) -> None:
    payoff_S = np.random.default_rng(players).normal(size=2**players)
    found = shapley(payoff_S)
    expected = shapley_by_orders(players, lambda present: float(payoff_S[sum(1 << player for player in present)]))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert found.sum() == pytest.approx(payoff_S[-1] - payoff_S[0])


@pytest.mark.parametrize("name", NAMES)
def test_values_sum_to_the_change_of_the_logit_on_every_network(name: str) -> None:
    network = open_network(name)
    for index in range(3):
        found = part_values(network.scene(index, 0), network.outputs)
        assert found.logit_P.sum() == pytest.approx(found.change, abs=1e-4)


def test_a_part_that_changes_nothing_is_worth_nothing() -> None:
    scene = make_scene(0)
    flat = part_values(scene, lambda images: np.zeros((len(images), 9)))
    assert not flat.logit_P.any()
    assert not flat.confidence_P.any()
