"""Reference implementations of the basic methods and metrics, written literally from the formulas.

They process one image at a time in double precision, with plain loops and full backward passes, and do not use the code
under test.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def observe(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return activations and gradients (K, u, v) of a layer and the logits (N,), by a full backward pass."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        output.retain_grad()
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    logits_N = model(image_CHW[None].clone().requires_grad_())[0]
    handle.remove()
    model.zero_grad()
    logits_N[target].backward()
    assert kept[0].grad is not None
    return kept[0].detach()[0], kept[0].grad[0], logits_N.detach()


def gradcam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    channels, height, width = acts_Kuv.shape
    total_uv = torch.zeros(height, width, dtype=acts_Kuv.dtype)
    for k in range(channels):
        weight = sum(float(grads_Kuv[k, i, j]) for i in range(height) for j in range(width)) / (height * width)
        total_uv += weight * acts_Kuv[k]
    return total_uv.clamp_min(0)


def gradcam_pp(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, normalise_alpha: bool = False
) -> Tensor:
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    total_uv = torch.zeros_like(acts_Kuv[0])
    for acts_uv, grads_uv in zip(acts_Kuv, grads_Kuv, strict=True):
        sum_of_acts = float(acts_uv.sum())
        alphas, positive = [], []
        for g in grads_uv.flatten().tolist():
            denominator = 2 * g**2 + sum_of_acts * g**3
            alphas.append(g**2 / denominator if g > 0 and denominator > 0 else 0.0)
            positive.append(max(g, 0.0))
        if normalise_alpha and sum(alphas) > 0:
            alphas = [alpha / sum(alphas) for alpha in alphas]
        total_uv += sum(a * p for a, p in zip(alphas, positive, strict=True)) * acts_uv
    return total_uv.clamp_min(0)


def integrated_gradcam(
    model: nn.Module,
    layer: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    baseline_CHW: Tensor,
    steps: int,
    rule: str = "right",
    subtract: bool = True,
) -> Tensor:
    start_Kuv = observe(model, layer, baseline_CHW, target)[0]
    if not subtract:
        start_Kuv = torch.zeros_like(start_Kuv)
    total_uv = torch.zeros_like(start_Kuv[0])
    points = {
        "right": [(n / steps, 1.0) for n in range(1, steps + 1)],
        "left": [(n / steps, 1.0) for n in range(steps)],
        "midpoint": [((n - 0.5) / steps, 1.0) for n in range(1, steps + 1)],
        "trapezoid": [(0.0, 0.5), *[(n / steps, 1.0) for n in range(1, steps)], (1.0, 0.5)],
    }[rule]
    for t, weight in points:
        acts_Kuv, grads_Kuv, _ = observe(model, layer, baseline_CHW + t * (image_CHW - baseline_CHW), target)
        step_uv = torch.zeros_like(total_uv)
        for k in range(len(acts_Kuv)):
            step_uv += grads_Kuv[k].mean() * (acts_Kuv[k] - start_Kuv[k])
        total_uv += weight * step_uv.clamp_min(0)
    return total_uv


def scorecam(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, logit: bool = False, softmax: bool = False
) -> Tensor:
    def score(mask_HW: Tensor) -> float:
        return target_output(model, image_CHW * mask_HW, target, logit=logit)

    return _channel_scored(model, layer, image_CHW, target, score, softmax=softmax)


def iscam(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, num_steps: int, schedule: str = "cumulative"
) -> Tensor:
    def score(mask_HW: Tensor) -> float:
        masked_CHW = image_CHW * mask_HW
        total, shown_CHW = 0.0, torch.zeros_like(image_CHW)
        for i in range(1, num_steps + 1):
            if schedule == "cumulative":
                shown_CHW = shown_CHW + masked_CHW * i / num_steps
            elif schedule == "recurrence":
                shown_CHW = shown_CHW + masked_CHW * (i - 1) / num_steps
            else:
                shown_CHW = masked_CHW * i / num_steps
            total += target_output(model, shown_CHW, target)
        return total / num_steps

    return _channel_scored(model, layer, image_CHW, target, score, softmax=False)


def _channel_scored(
    model: nn.Module,
    layer: nn.Module,
    image_CHW: Tensor,
    target: int,
    score: Callable[[Tensor], float],
    *,
    softmax: bool,
) -> Tensor:
    """Weight each channel that is not constant by a score of its mask, the upsampled and normalised map."""
    acts_Kuv = observe(model, layer, image_CHW, target)[0]
    kept, scores = [], []
    for acts_uv in acts_Kuv:
        if float(acts_uv.max()) > float(acts_uv.min()):
            kept.append(acts_uv)
            scores.append(score(heatmap(acts_uv, image_CHW.shape[-2:])))
    if softmax:
        scores = [math.exp(s - max(scores)) / sum(math.exp(t - max(scores)) for t in scores) for s in scores]
    total_uv = torch.zeros_like(acts_Kuv[0])
    for weight, acts_uv in zip(scores, kept, strict=True):
        total_uv += weight * acts_uv
    return total_uv.clamp_min(0)


def target_output(model: nn.Module, image_CHW: Tensor, target: int, *, logit: bool = False) -> float:
    """Return the softmax probability, or the logit, of a class for one image."""
    with torch.no_grad():
        logits_N = model(image_CHW[None])[0]
    return float(logits_N[target] if logit else torch.exp(logits_N[target]) / torch.exp(logits_N).sum())


def heatmap(map_uv: Tensor, size: tuple[int, ...]) -> Tensor:
    """Upsample bilinearly, then normalise by min-max; a constant map becomes zeros."""
    large_HW = enlarge(map_uv, size)
    low, high = float(large_HW.min()), float(large_HW.max())
    return (large_HW - low) / (high - low) if high > low else torch.zeros_like(large_HW)


def enlarge(map_uv: Tensor, size: tuple[int, ...]) -> Tensor:
    """Upsample bilinearly with half-pixel centres and repeated borders, as separable weights."""
    rows_Hu, columns_Wv = (
        _weights(length, cells, map_uv.dtype) for length, cells in zip(size, map_uv.shape, strict=True)
    )
    return rows_Hu @ map_uv @ columns_Wv.T


def _weights(length: int, cells: int, dtype: torch.dtype) -> Tensor:
    weights = torch.zeros(length, cells, dtype=dtype)
    for i in range(length):
        position = min(max((i + 0.5) * cells / length - 0.5, 0.0), cells - 1.0)
        low = min(int(position), cells - 1)
        high = min(low + 1, cells - 1)
        weights[i, low] += 1 - (position - low)
        weights[i, high] += position - low
    return weights


def average_drop(model: nn.Module, image_CHW: Tensor, target: int, heatmap_HW: Tensor) -> float:
    clean, masked = target_output(model, image_CHW, target), target_output(model, image_CHW * heatmap_HW, target)
    return max(0.0, clean - masked) / clean


def increase(model: nn.Module, image_CHW: Tensor, target: int, heatmap_HW: Tensor) -> float:
    return (
        1.0 if target_output(model, image_CHW * heatmap_HW, target) > target_output(model, image_CHW, target) else 0.0
    )


def inside(boxes: list[list[float]], row: int, column: int) -> bool:
    """Return whether the centre of a pixel lies in a box."""
    return any(x0 <= column + 0.5 <= x1 and y0 <= row + 0.5 <= y1 for x0, y0, x1, y1 in boxes)


def pointing_game(heatmap_HW: Tensor, boxes: list[list[float]], tolerance: int) -> float:
    height, width = heatmap_HW.shape
    best, place = -1.0, (0, 0)
    for i in range(height):
        for j in range(width):
            if float(heatmap_HW[i, j]) > best:
                best, place = float(heatmap_HW[i, j]), (i, j)
    if best <= 0:
        return 0.0
    if inside(boxes, *place):
        return 1.0
    near = [
        (i, j)
        for i in range(height)
        for j in range(width)
        if inside(boxes, i, j) and (i - place[0]) ** 2 + (j - place[1]) ** 2 < tolerance**2
    ]
    return 1.0 if near else 0.0


def energy_in_box(heatmap_HW: Tensor, boxes: list[list[float]]) -> float:
    height, width = heatmap_HW.shape
    total = sum(float(heatmap_HW[i, j]) for i in range(height) for j in range(width))
    within = sum(float(heatmap_HW[i, j]) for i in range(height) for j in range(width) if inside(boxes, i, j))
    return within / total if total > 0 else 0.0
