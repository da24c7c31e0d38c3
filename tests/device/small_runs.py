"""Explanations and metrics of the small networks, on the host or on the simulated device."""

from collections.abc import Iterable

import torch
from device.simulated import is_here, to_host
from device.small_nets import SIDE, SmallNet, made, pictures
from torch import Tensor

from pipeline.cams import build_methods
from pipeline.explain.explanations import Explanations, explain_evidence, measure, observe
from pipeline.metrics import METRICS, Parts, Truth, build_metrics
from pipeline.model.engine import Precision
from pipeline.model.probe import Probe

IMAGES, TARGETS = (0, 0, 1, 2), (1, 2, 3, 0)
"""The rows: two targets of the first image, and one of each other."""
_QUICK: dict[str, dict[str, object]] = {
    "insertion": {"steps": 3},
    "insertion_curve": {"steps": 3},
    "deletion": {"steps": 3},
    "deletion_curve": {"steps": 3},
    **{name: {"percentiles": [30.0]} for name in ("road", "road_morf", "road_lerf")},
    "infidelity": {"samples": 2},
    "occlusion_agreement": {"cells": 2},
    "max_sensitivity": {"samples": 2},
}
METRIC_SPECS: list[dict[str, dict[str, object]]] = [
    *({name: _QUICK.get(name, {})} for name in METRICS),
    {"average_drop": {"as": "drop_top", "preset": "sise"}},
    {"average_drop": {"as": "drop_blur", "fill": "rise_blur"}},
    {"increase": {"as": "increase_black", "fill": "black"}},
    {"infidelity": {"as": "infidelity_gaussian", "samples": 2, "perturbation": "gaussian"}},
    {"infidelity": {"as": "infidelity_baseline", "samples": 2, "perturbation": "noisy_baseline"}},
    {"pointing_game": {"as": "pointing_near", "tolerance": 4}},
]
"""Every metric with few steps, and variants that compute in another way."""


def probe_of(kind: type[SmallNet], device: str, precision: Precision) -> Probe:
    return Probe(
        made(kind).to(device), kind.LAYER, stages=kind.STAGES, precision=precision, batch=16, batch_multiple=4, seed=5
    )


def explained(kind: type[SmallNet], device: str, precision: Precision, methods: Iterable[object]) -> Explanations:
    """Explain a few images, of which the first has two targets."""
    built, probe = build_methods(methods), probe_of(kind, device, precision)
    observation = observe(pictures().to(device), built, probe, ("a", "b", "c"))
    rows = (torch.tensor(index, device=device) for index in (IMAGES, TARGETS))
    return explain_evidence(observation.evidence_of(*rows), built, probe)


def measured(explanations: Explanations, metrics: Iterable[object]) -> dict[str, dict[str, Tensor]]:
    """Compute metrics of `explained`, whose truth is on the host."""
    return measure(explanations, build_metrics(metrics), truth())


def truth() -> Truth:
    """Return boxes, a mask and parts of the rows; some rows have none."""
    boxes = [
        torch.tensor([[2.0, 3.0, 20.0, 25.0]]),
        None,
        torch.tensor([[0.0, 0.0, 9.0, 9.0], [12.0, 12.0, 30.0, 31.0]]),
    ]
    mask_HW = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask_HW[4:20, 9:30] = True
    index_HW = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    index_HW[2:9, 3:12], index_HW[15:28, 16:30], index_HW[3:12, 20:28] = 1, 2, 3
    parts = Parts(index_HW, torch.tensor([0.5, -0.25, 0.125], dtype=torch.float64), TARGETS[0])
    return Truth([boxes[0], boxes[1], None, boxes[2]], [None, None, mask_HW, None], [parts, parts, None, None])


def host_maps(explanations: Explanations) -> dict[str, Tensor]:
    """Return the maps on the host, by method."""
    return {name: to_host(map_Buv.detach()) for name, map_Buv in explanations.maps.items()}


def tensors_of(explanations: Explanations) -> dict[str, Tensor]:
    """Return all tensors of explanations that belong on the device of their model."""
    evidence = explanations.evidence
    named = {"pixels": evidence.pixels_BCHW, "logits": evidence.logits_BN, "targets": evidence.targets_B}
    named |= {"images": evidence.images_B, "raw": evidence.raw}
    groups = {"acts": evidence.acts, "grads": evidence.grads, "map": explanations.maps, "flag": explanations.degenerate}
    return named | {f"{kind} {name}": each for kind, group in groups.items() for name, each in group.items()}


def left_behind(explanations: Explanations) -> list[str]:
    """Name the tensors of explanations that are on the host."""
    return [name for name, tensor in tensors_of(explanations).items() if not is_here(tensor)]
