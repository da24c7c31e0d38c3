"""Shapley values from their definition: the mean gain of a player over all orders in which the players can come."""

import itertools
from collections.abc import Callable


def shapley_by_orders(players: int, payoff: Callable[[frozenset[int]], float]) -> list[float]:
    """Return the value of each player."""
    values = [0.0] * players
    orders = list(itertools.permutations(range(players)))
    for order in orders:
        present: set[int] = set()
        for player in order:
            before = payoff(frozenset(present))
            present.add(player)
            values[player] += (payoff(frozenset(present)) - before) / len(orders)
    return values
