"""The algorithms of captum: which parameters each takes, and how often it runs the model."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.cams.base import Cost, NetShape

Algorithm = Literal[
    "Saliency", "InputXGradient", "IntegratedGradients", "GradientShap", "GuidedBackprop", "Deconvolution",
    "GuidedGradCam", "DeepLift", "DeepLiftShap", "LRP", "LayerConductance", "Occlusion", "FeatureAblation",
    "ShapleyValueSampling", "Lime", "KernelShap",
]  # fmt: skip
_PIXELS: Mapping[str, Any] = {"colours": "sum", "grid": 56}
_CELLS: Mapping[str, Any] = {"cells": 7, "baseline": "black"}
TAKES: dict[str, Mapping[str, Any]] = {
    "Saliency": {"colours": "abs_sum", "grid": 56},
    "InputXGradient": _PIXELS,
    "IntegratedGradients": {"steps": 50, "baseline": "black", **_PIXELS},
    "GradientShap": {"samples": 20, "sigma": 0.15, "baseline": "black", **_PIXELS},
    "GuidedBackprop": _PIXELS,
    "Deconvolution": _PIXELS,
    "GuidedGradCam": _PIXELS,
    "DeepLift": {"baseline": "black", **_PIXELS},
    "DeepLiftShap": {"samples": 10, "sigma": 0.15, "baseline": "black", **_PIXELS},
    "LRP": _PIXELS,
    "LayerConductance": {"steps": 20, "baseline": "black"},
    "Occlusion": {"window": 32, "stride": 16, "baseline": "black", "grid": 56},
    "FeatureAblation": _CELLS,
    "ShapleyValueSampling": {"samples": 25, **_CELLS},
    "Lime": {"samples": 500, "alpha": 0.01, **_CELLS},
    "KernelShap": {"samples": 500, **_CELLS},
}
"""The parameters that each algorithm takes, with their defaults."""
OF_CELLS = frozenset(name for name, taken in TAKES.items() if "cells" in taken)
OF_LAYER = frozenset({"GuidedGradCam", "LayerConductance"})
HOOKING = frozenset({"GuidedBackprop", "Deconvolution", "GuidedGradCam", "DeepLift", "DeepLiftShap", "LRP"})


def cost(algorithm: str, options: Mapping[str, Any], net: NetShape) -> Cost:
    """Count the passes of an algorithm per row."""
    count = options.get("samples", options.get("steps", 1))
    if algorithm in OF_CELLS:
        cells = options["cells"] ** 2
        of_cells = {"FeatureAblation": 1 + cells, "ShapleyValueSampling": 1 + count * cells}
        return Cost(forwards=of_cells.get(algorithm, count))
    if algorithm == "Occlusion":
        steps = (math.ceil(max(0, side - options["window"]) / options["stride"]) for side in net.size)
        return Cost(forwards=1 + math.prod(1 + step for step in steps))
    forwards = {
        "GuidedGradCam": 2, "LRP": 2, "DeepLift": 2, "DeepLiftShap": 2 * count, "LayerConductance": count + 1,
    }.get(algorithm, count)  # fmt: skip
    return Cost(forwards=forwards, backwards=1 if algorithm == "LRP" else forwards)
