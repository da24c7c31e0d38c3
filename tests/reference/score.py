"""Reference implementations of the methods that run the model on masked images or changed activations."""

from collections.abc import Callable
from fractions import Fraction

import torch
from reference.base import enlarge, observe, target_output
from reference.gradient import constant, mask_of, minmax, pool, weighted
from torch import Tensor, nn


def sscam(
    model: nn.Module,
    layer: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    noise: Tensor,
    std: float = 2.0,
    noise_on: str = "mask",
) -> Tensor:
    """Apply Score-CAM with the mean over noisy masks or noisy inputs; `noise` is (N, H, W) or (N, C, H, W)."""
    assert noise_on in ("mask", "input")

    def score(mask_HW: Tensor) -> float:
        total = 0.0
        for field in noise:
            shown = image_CHW * (mask_HW + std * field) if noise_on == "mask" else image_CHW * mask_HW + std * field
            total += target_output(model, shown, target)
        return total / len(noise)

    return _scored(observe(model, layer, image_CHW, target)[0], tuple(image_CHW.shape[-2:]), score)


def _scored(acts_Kuv: Tensor, size: tuple[int, ...], score: Callable[[Tensor], float]) -> Tensor:
    """Weight the channels by the scores of their masks; constant channels have weight 0."""
    weights = [0.0 if constant(acts_uv) else score(mask_of(acts_uv, size)) for acts_uv in acts_Kuv]
    return weighted(acts_Kuv, torch.tensor(weights, dtype=acts_Kuv.dtype))


def ablation_cam(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, divide_by_score: str | None = None
) -> Tensor:
    acts_Kuv = observe(model, layer, image_CHW, target)[0]
    clean = target_output(model, image_CHW, target, logit=True)
    divisor = {None: 1.0, "abs": abs(clean) + 1e-8, "signed": clean}[divide_by_score]
    weights = []
    for k in range(len(acts_Kuv)):
        mask_K11 = torch.ones(len(acts_Kuv), 1, 1, dtype=acts_Kuv.dtype)
        mask_K11[k] = 0
        weights.append(
            (clean - output_with_masked_layer(model, layer, image_CHW, target, mask_K11, logit=True)) / divisor
        )
    return weighted(acts_Kuv, torch.tensor(weights, dtype=acts_Kuv.dtype))


def output_with_masked_layer(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, mask: Tensor, *, logit: bool = False
) -> float:
    """Return the model's output for the target when a layer's output is multiplied by a mask."""
    handle = layer.register_forward_hook(lambda _module, _inputs, output: output * mask)
    output = target_output(model, image_CHW, target, logit=logit)
    handle.remove()
    return output


def group_cam(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, blur_CHW: Tensor, groups: int = 32
) -> Tensor:
    """Sum groups of weighted channels, each scored by the confidence it restores in the blurred image."""
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    maps_Kuv = grads_Kuv.mean((1, 2))[:, None, None] * acts_Kuv
    total_uv = torch.zeros_like(acts_Kuv[0])
    for group_kuv in torch.chunk(maps_Kuv, groups):
        group_uv = group_kuv.sum(0).clamp_min(0)
        large_HW = enlarge(group_uv, tuple(image_CHW.shape[-2:]))
        low, high = float(large_HW.min()), float(large_HW.max())
        if constant(group_uv) or high == low:
            continue
        mask_HW = (large_HW - low) / (high - low)
        gain = target_output(model, image_CHW * mask_HW + blur_CHW * (1 - mask_HW), target) - target_output(
            model, blur_CHW, target
        )
        total_uv += max(gain, 0.0) * (group_uv - low) / (high - low)
    return total_uv


def recipro_cam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, gaussian: bool = True) -> Tensor:
    """Compute the probability with the activations of one cell at a time."""
    height, width = observe(model, layer, image_CHW, target)[0].shape[1:]
    kernel = {(di, dj): (2 - abs(di)) * (2 - abs(dj)) / 16 for di in (-1, 0, 1) for dj in (-1, 0, 1)}
    if not gaussian:
        kernel = {(0, 0): 1.0}
    total_uv = torch.zeros(height, width, dtype=image_CHW.dtype)
    for i in range(height):
        for j in range(width):
            mask_uv = torch.zeros_like(total_uv)
            for (di, dj), weight in kernel.items():
                if 0 <= i + di < height and 0 <= j + dj < width:
                    mask_uv[i + di, j + dj] = weight
            total_uv[i, j] = output_with_masked_layer(model, layer, image_CHW, target, mask_uv)
    return total_uv


def rise(model: nn.Module, image_CHW: Tensor, target: int, *, masks_NHW: Tensor, keep: float, grid: int) -> Tensor:
    total_HW = torch.zeros_like(image_CHW[0])
    for mask_HW in masks_NHW:
        total_HW += target_output(model, image_CHW * mask_HW, target) * mask_HW / (len(masks_NHW) * keep)
    return pool(total_HW, (grid, grid))


def opti_cam(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, iterations: int, rate: float = 0.1
) -> Tensor:
    """Optimise softmax channel weights by Adam (0.9, 0.999, 1e-8) to maximise the logit of the masked image."""
    acts_Kuv = observe(model, layer, image_CHW, target)[0]
    logits_K, first_K, second_K = (torch.zeros(len(acts_Kuv), dtype=acts_Kuv.dtype) for _ in range(3))
    for step in range(1, iterations + 1):
        leaf_K = logits_K.clone().requires_grad_()
        map_uv = (torch.softmax(leaf_K, 0)[:, None, None] * acts_Kuv).sum(0)
        if constant(map_uv.detach()):
            break
        map_HW = enlarge(map_uv, tuple(image_CHW.shape[-2:]))
        mask_HW = (map_HW - map_HW.min()) / (map_HW.max() - map_HW.min())
        (slope_K,) = torch.autograd.grad(-model((image_CHW * mask_HW)[None])[0, target], leaf_K)
        first_K = 0.9 * first_K + 0.1 * slope_K
        second_K = 0.999 * second_K + 0.001 * slope_K**2
        root_K = torch.sqrt(second_K / (1 - 0.999**step))
        logits_K = logits_K - rate * first_K / (1 - 0.9**step) / (root_K + 1e-8)
    return (torch.softmax(logits_K, 0)[:, None, None] * acts_Kuv).sum(0)


def poly_cam(
    model: nn.Module, layers: list[nn.Module], image_CHW: Tensor, target: int, *, variant: str = "plus"
) -> Tensor:
    """Multiply the layers' score maps, from deep to shallow, each normalised by its own coarse version."""
    clean = target_output(model, image_CHW, target)

    def score(mask_HW: Tensor) -> float:
        kept, removed = (target_output(model, image_CHW * mask, target) for mask in (mask_HW, 1 - mask_HW))
        return {"plus": kept, "minus": max(clean - removed, 0.0), "both": max(kept + clean - removed, 0.0)}[variant]

    size = tuple(image_CHW.shape[-2:])
    maps = [_scored(observe(model, layer, image_CHW, target)[0], size, score) for layer in layers]
    product_uv = maps[-1]
    for map_uv in reversed(maps[:-1]):
        coarse_uv = enlarge(enlarge(map_uv, tuple(product_uv.shape)), tuple(map_uv.shape))
        product_uv = map_uv / coarse_uv.clamp_min(1e-12) * enlarge(product_uv, tuple(map_uv.shape))
    return product_uv


def sise(model: nn.Module, layers: list[nn.Module], image_CHW: Tensor, target: int, *, mu: float = 0.0) -> Tensor:
    """Apply RISE with each layer's channels of large gradient as masks, fused from shallow to deep under Otsu masks."""
    grid = tuple(observe(model, layers[0], image_CHW, target)[0].shape[1:])
    fused_uv, *deeper = [minmax(pool(_visualised(model, layer, image_CHW, target, mu), grid)) for layer in layers]
    for map_uv in deeper:
        fused_uv = minmax((fused_uv + map_uv) * (map_uv > otsu(map_uv)))
    return fused_uv


def _visualised(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, mu: float) -> Tensor:
    """Sum the masks of channels with a large mean gradient, weighted by probability over area, at input size."""
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    slopes = [float(grads_uv.mean()) for grads_uv in grads_Kuv]
    total_HW = torch.zeros_like(image_CHW[0])
    for slope, acts_uv in zip(slopes, acts_Kuv, strict=True):
        if slope > mu * max(slopes) and not constant(acts_uv):
            mask_HW = mask_of(acts_uv, tuple(image_CHW.shape[-2:]))
            total_HW += target_output(model, image_CHW * mask_HW, target) * mask_HW / mask_HW.sum()
    return total_HW


def otsu(map_uv: Tensor) -> float:
    """Compute Otsu's threshold over 256 bins, in exact fractions, so that ties are not broken by rounding."""
    counts = [0] * 256
    for value in map_uv.flatten().tolist():
        counts[min(int(value * 256), 255)] += 1
    best: Fraction | float = -1
    threshold = 1 / 256
    for cut in range(255):
        below, above = sum(counts[: cut + 1]), sum(counts[cut + 1 :])
        moment_below, moment_above = (
            sum(Fraction(2 * b + 1, 512) * counts[b] for b in bins) for bins in (range(cut + 1), range(cut + 1, 256))
        )
        variance: Fraction | float = 0
        if below and above:
            variance = below * above * (moment_below / below - moment_above / above) ** 2
        if variance > best:
            best, threshold = variance, (cut + 1) / 256
    return threshold
