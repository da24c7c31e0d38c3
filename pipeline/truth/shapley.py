"""Exact Shapley values of the parts of a scene, by drawing it again with every subset of them.

Legend: P parts, S = 2^P subsets (bit i of a subset's index says whether part i is drawn), (H, W) pixels, C colours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.truth.scenes import Scene

Values = npt.NDArray[np.float64]
Outputs = Callable[[npt.NDArray[np.uint8]], Values]
"""Function from images (S, H, W, C) in 0 .. 255 to logits (S, N)."""


@dataclass(frozen=True)
class PartValues:
    """Exact Shapley values of the parts of a scene for its class.

    Attributes:
        logit_P: values on the logit; they sum to the logit of the whole scene minus that of its background.
        confidence_P: values on the confidence.
        predicted: class of the largest logit of the whole scene.
        change: the logit of the whole scene minus that of its background.
    """

    logit_P: Values
    confidence_P: Values
    predicted: int
    change: float


def part_values(scene: Scene, outputs: Outputs) -> PartValues:
    """Compute the exact values of the parts of a scene for its class.

    v_i = sum_{T without i} |T|! (P - |T| - 1)! / P! (f(T + i) - f(T)),   f(T) the output for the scene with the parts T
    """
    parts = len(scene.parts)
    subsets = [[bool(subset >> i & 1) for i in range(parts)] for subset in range(2**parts)]
    logits_SN = outputs(np.stack([scene.drawn(keep) for keep in subsets]))
    shifted_SN = np.exp(logits_SN - logits_SN.max(1, keepdims=True))
    logit_S = logits_SN[:, scene.label]
    confidence_S = shifted_SN[:, scene.label] / shifted_SN.sum(1)
    return PartValues(
        shapley(logit_S), shapley(confidence_S), int(logits_SN[-1].argmax()), float(logit_S[-1] - logit_S[0])
    )


def shapley(payoff_S: Values) -> Values:
    """Compute the Shapley value of each of P players, (P,), from the payoff of every subset, (2^P,)."""
    players = int(math.log2(len(payoff_S)))
    subsets_S = np.arange(2**players)
    sizes_S = np.array([subset.bit_count() for subset in range(2**players)])
    weights = [math.factorial(n) * math.factorial(players - n - 1) / math.factorial(players) for n in range(players)]
    values = []
    for player in range(players):
        without_S = subsets_S[(subsets_S >> player & 1) == 0]
        gains = payoff_S[without_S | 1 << player] - payoff_S[without_S]
        values.append(float((np.array(weights)[sizes_S[without_S]] * gains).sum()))
    return np.array(values)
