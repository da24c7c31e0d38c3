"""Reference implementations of the methods that follow a path from a baseline or average over noisy images."""

from collections.abc import Callable

import torch
from reference.gradient import input_gradient, observe_score, pool, weighted
from torch import Tensor, nn


def rsi_gradcam(
    model: nn.Module,
    layer: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    baseline_CHW: Tensor,
    steps: int,
    score: str = "probability",
) -> Tensor:
    """Integrate rectified gradients over the change of the activations, by the trapezoid rule."""
    measure: Callable[[Tensor], Tensor] = {
        "probability": lambda logits_N: torch.softmax(logits_N, 0)[target],
        "logit": lambda logits_N: logits_N[target],
    }[score]
    before_Kuv, slope_Kuv = observe_score(model, layer, baseline_CHW, measure)
    integral_Kuv = torch.zeros_like(before_Kuv)
    for n in range(1, steps + 1):
        point_CHW = baseline_CHW + n / steps * (image_CHW - baseline_CHW)
        acts_Kuv, grads_Kuv = observe_score(model, layer, point_CHW, measure)
        integral_Kuv += 0.5 * (slope_Kuv.clamp_min(0) + grads_Kuv.clamp_min(0)) * (acts_Kuv - before_Kuv)
        before_Kuv, slope_Kuv = acts_Kuv, grads_Kuv
    acts_Kuv = observe_score(model, layer, image_CHW, measure)[0]
    return weighted(acts_Kuv, integral_Kuv.mean((1, 2)) / len(acts_Kuv))


def integrated_gradients(
    model: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    baseline_CHW: Tensor,
    steps: int,
    grid: int,
    rule: str = "midpoint",
    channels: str = "sum",
) -> Tensor:
    points = {
        "midpoint": [((n - 0.5) / steps, 1.0) for n in range(1, steps + 1)],
        "right": [(n / steps, 1.0) for n in range(1, steps + 1)],
        "left": [(n / steps, 1.0) for n in range(steps)],
        "trapezoid": [(n / steps, 0.5 if n in (0, steps) else 1.0) for n in range(steps + 1)],
    }[rule]
    mean_CHW = torch.zeros_like(image_CHW)
    for t, weight in points:
        point_CHW = baseline_CHW + t * (image_CHW - baseline_CHW)
        mean_CHW += weight * input_gradient(model, point_CHW, target) / steps
    return pool(_over_colours((image_CHW - baseline_CHW) * mean_CHW, channels), (grid, grid))


def smoothgrad(
    model: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    noise_NCHW: Tensor,
    grid: int,
    sigma: float = 0.15,
    channels: str = "abs_sum",
) -> Tensor:
    spread = float(image_CHW.max()) - float(image_CHW.min())
    mean_CHW = torch.zeros_like(image_CHW)
    for noise_CHW in noise_NCHW:
        mean_CHW += input_gradient(model, image_CHW + sigma * spread * noise_CHW, target) / len(noise_NCHW)
    return pool(_over_colours(mean_CHW, channels), (grid, grid))


def _over_colours(values_CHW: Tensor, channels: str) -> Tensor:
    return {"sum": values_CHW.sum(0), "abs_sum": values_CHW.abs().sum(0)}[channels]
