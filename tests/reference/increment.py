"""Reference implementation of Increment-CAM, in both readings."""

import math

import torch
from reference.base import enlarge, observe, target_output
from reference.gradient import constant, mask_of, minmax, pool, weighted
from torch import Tensor, nn


def increment_cam(
    model: nn.Module,
    layer: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    lam: float = 1.0,
    merge: str = "gate",
    shrink: int | None = 2,
    score: str = "probability",
) -> Tensor:
    """Correct Grad-CAM by the scores of its channels, as masks of an image that is `shrink` times smaller."""
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    weights_K = grads_Kuv.mean((1, 2))
    maps_Kuv = weights_K[:, None, None] * acts_Kuv
    scores = _scores(model, maps_Kuv, image_CHW, target, shrink, logit=score == "logit")
    first_uv = minmax(maps_Kuv.sum(0).clamp_min(0))
    if merge == "gate":
        return _gated(first_uv, maps_Kuv, scores, lam)
    beta_K = torch.zeros(len(maps_Kuv), dtype=maps_Kuv.dtype)
    for k, value in scores.items():
        beta_K[k] = 1 / sum(math.exp(other - value) for other in scores.values())
    if merge == "maps":
        return first_uv + lam * minmax(weighted(maps_Kuv, beta_K))
    assert merge == "weights"
    total = float(weights_K.abs().sum())
    return weighted(acts_Kuv, (weights_K / total if total > 0 else weights_K) + lam * beta_K)


def _scores(
    model: nn.Module, maps_Kuv: Tensor, image_CHW: Tensor, target: int, shrink: int | None, *, logit: bool
) -> dict[int, float]:
    """Score each channel that is not constant after ReLU, as the mask of the small image, which is then enlarged."""
    height, width = image_CHW.shape[1:]
    grid = tuple(maps_Kuv.shape[1:]) if shrink is None else (height // shrink, width // shrink)
    small_Chw = torch.stack([pool(colour_HW, grid) for colour_HW in image_CHW])
    scores = {}
    for k, map_uv in enumerate(maps_Kuv):
        if not constant(map_uv.clamp_min(0)):
            masked_Chw = small_Chw * mask_of(map_uv.clamp_min(0), grid)
            shown_CHW = torch.stack([enlarge(colour_hw, (height, width)) for colour_hw in masked_Chw])
            scores[k] = target_output(model, shown_CHW, target, logit=logit)
    return scores


def _gated(first_uv: Tensor, maps_Kuv: Tensor, scores: dict[int, float], lam: float) -> Tensor:
    """Multiply each cell of the first phase by ReLU(1 + lam n), n = L2 / max |L2|."""
    mean = sum(scores.values()) / max(len(scores), 1)
    gate_uv, gated_uv = torch.zeros_like(first_uv), torch.zeros_like(first_uv)
    for i in range(gate_uv.shape[0]):
        for j in range(gate_uv.shape[1]):
            for k, value in scores.items():
                gate_uv[i, j] += (value - mean) * max(float(maps_Kuv[k, i, j]), 0.0)
    largest = max(float(gate_uv.abs().max()), 1e-300)
    for i in range(gate_uv.shape[0]):
        for j in range(gate_uv.shape[1]):
            gated_uv[i, j] = first_uv[i, j] * max(1 + lam * float(gate_uv[i, j]) / largest, 0.0)
    return gated_uv
