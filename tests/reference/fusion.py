"""Reference implementations of the methods that combine several layers, given from shallow to deep."""

import math
from collections.abc import Callable

import torch
from reference.base import enlarge, gradcam_pp, observe
from reference.gradient import layercam, minmax
from torch import Tensor, nn

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "square": lambda s: s**2,
    "softplus": lambda s: torch.logaddexp(torch.zeros_like(s), s),
    "sigmoid": torch.sigmoid,
    "identity": lambda s: 1.0 * s,
}


def layercam_fusion(
    model: nn.Module, layers: list[nn.Module], image_CHW: Tensor, target: int, *, gamma: float = 2.0
) -> Tensor:
    """Take the maximum of the scaled Layer-CAM maps, with tanh applied to all layers but the deepest."""
    maps = [layercam(model, layer, image_CHW, target) for layer in layers]
    fused_uv = torch.zeros_like(maps[0])
    for depth, map_uv in enumerate(maps):
        high = float(map_uv.max())
        scaled_uv = map_uv / high if high > 0 else map_uv
        if depth < len(maps) - 1:
            scaled_uv = torch.tanh(gamma * scaled_uv)
        fused_uv = torch.maximum(fused_uv, enlarge(scaled_uv, tuple(fused_uv.shape)))
    return fused_uv


def refine_cam(model: nn.Module, layers: list[nn.Module], image_CHW: Tensor, target: int) -> Tensor:
    """Multiply the Grad-CAM++ maps of the layers, each scaled to [0, 1]."""
    maps = [minmax(gradcam_pp(model, layer, image_CHW, target)) for layer in layers]
    product_uv = torch.ones_like(maps[0])
    for map_uv in maps:
        product_uv = product_uv * enlarge(map_uv, tuple(product_uv.shape))
    return product_uv


def integrative_cam(
    model: nn.Module,
    layers: list[nn.Module],
    image_CHW: Tensor,
    target: int,
    *,
    f: str = "square",
    maps: str = "mixed",
    fusion: str = "guided",
    bias: str = "residual",
    layer_score: str = "contribution",
    redundancy: float | None = None,
    biases: list[Tensor] | None = None,
) -> Tensor:
    """Sum the layers' maps, weighted by their importance; `biases` holds (K,) per layer, for "fullgrad"."""
    assert maps in ("mixed", "elementwise", "channels")
    assert fusion in ("guided", "sum")
    found, scores = [], []
    for depth, layer in enumerate(layers):
        acts_Kuv, grads_Kuv, logits_N = observe(model, layer, image_CHW, target)
        score = float(logits_N[target])
        if maps == "mixed" and depth == len(layers) - 1:
            map_uv = _deepest_map(acts_Kuv, grads_Kuv, score, f)
        else:
            map_uv = (_alpha_map if maps == "channels" else _elementwise_map)(acts_Kuv, grads_Kuv, score, f)
            map_uv += _bias_map(acts_Kuv, grads_Kuv, score, bias, biases[depth] if biases else None)
        found.append(map_uv.clamp_min(0))
        scores.append(_importance(acts_Kuv, grads_Kuv, layer_score))
    kept = _not_redundant(found, redundancy)
    total = sum(scores[depth] for depth in kept)
    shares = {depth: scores[depth] / total if total > 0 else 1 / len(kept) for depth in kept}
    return _fused([minmax(map_uv) for map_uv in found], shares, fusion)


def _fused(maps: list[Tensor], shares: dict[int, float], fusion: str) -> Tensor:
    """Sum a_l Up(N_l), or a_l sqrt(Up(N_l) Up(N_L)) with the deepest layer L, cell by cell."""
    grid = tuple(maps[0].shape)
    deepest_uv = enlarge(maps[-1], grid)
    fused_uv = torch.zeros_like(maps[0])
    for depth, share in shares.items():
        large_uv = enlarge(maps[depth], grid)
        for i in range(grid[0]):
            for j in range(grid[1]):
                value, guide = float(large_uv[i, j]), float(deepest_uv[i, j])
                fused_uv[i, j] += share * (math.sqrt(value * guide) if fusion == "guided" else value)
    return fused_uv


def _importance(acts_Kuv: Tensor, grads_Kuv: Tensor, layer_score: str) -> float:
    if layer_score == "contribution":
        pairs = zip(acts_Kuv.flatten().tolist(), grads_Kuv.flatten().tolist(), strict=True)
        return max(sum(a * g for a, g in pairs), 0.0)
    if layer_score == "product":
        return _rms(grads_Kuv) * _rms(acts_Kuv)
    assert layer_score == "uniform"
    return 1.0


def _deepest_map(acts_Kuv: Tensor, grads_Kuv: Tensor, score: float, f: str) -> Tensor:
    """Compute sum_k w_k A_k, w_k the mean over cells of 2 alpha g."""
    total_uv = torch.zeros_like(acts_Kuv[0])
    for acts_uv, slopes_uv in zip(acts_Kuv, _slopes(acts_Kuv, grads_Kuv, score, f), strict=True):
        total_uv += sum(slopes_uv.flatten().tolist()) / slopes_uv.numel() * acts_uv
    return total_uv


def _elementwise_map(acts_Kuv: Tensor, grads_Kuv: Tensor, score: float, f: str) -> Tensor:
    """Compute sum_k 2 alpha g A at each cell."""
    total_uv = torch.zeros_like(acts_Kuv[0])
    for acts_uv, slopes_uv in zip(acts_Kuv, _slopes(acts_Kuv, grads_Kuv, score, f), strict=True):
        total_uv += slopes_uv * acts_uv
    return total_uv


def _slopes(acts_Kuv: Tensor, grads_Kuv: Tensor, score: float, f: str) -> Tensor:
    """Compute 2 alpha g at each cell of each channel, alpha = 1 / (2 + r Sigma_k |g|), r = f''' / f''."""
    _, second, third = (float(d) for d in derivatives(FUNCTIONS[f], torch.tensor(score, dtype=acts_Kuv.dtype)))
    slopes_Kuv = torch.zeros_like(acts_Kuv)
    for k, (acts_uv, grads_uv) in enumerate(zip(acts_Kuv, grads_Kuv, strict=True)):
        for i in range(acts_uv.shape[0]):
            for j in range(acts_uv.shape[1]):
                g = float(grads_uv[i, j])
                if f == "identity":
                    alpha = 1 / acts_uv.numel()
                else:
                    denominator = 2 + third / second * float(acts_uv.sum()) * abs(g)
                    alpha = 1 / denominator if denominator > 1e-8 else 0.0
                slopes_Kuv[k, i, j] = 2 * alpha * g
    return slopes_Kuv


def _alpha_map(acts_Kuv: Tensor, grads_Kuv: Tensor, score: float, f: str) -> Tensor:
    """Compute sum_k w_k A_k, w_k = sum_ij alpha relu(f' g), alpha = 1 / (2 + r Sigma_k g), r = f''' / f''."""
    first, second, third = derivatives(FUNCTIONS[f], torch.tensor(score, dtype=acts_Kuv.dtype))
    total_uv = torch.zeros_like(acts_Kuv[0])
    for acts_uv, grads_uv in zip(acts_Kuv, grads_Kuv, strict=True):
        denominator_uv = 2 + third / second * acts_uv.sum() * grads_uv
        weight = 0.0
        for g, denominator in zip(grads_uv.flatten().tolist(), denominator_uv.flatten().tolist(), strict=True):
            if f == "identity":
                weight += max(float(first) * g, 0.0) / grads_uv.numel()
            elif float(first) * g > 0 and denominator > 1e-8:
                weight += float(first) * g / denominator
        total_uv += weight * acts_uv
    return total_uv


def derivatives(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the first, second and third derivative of a scalar function, by autograd."""
    point = at.clone().requires_grad_()
    value, slopes = function(point), []
    for _ in range(3):
        slope = torch.zeros_like(point)
        if value.requires_grad:
            (slope,) = torch.autograd.grad(value, point, create_graph=True, allow_unused=True, materialize_grads=True)
        slopes.append(slope.detach())
        value = slope
    return slopes[0], slopes[1], slopes[2]


def _bias_map(acts_Kuv: Tensor, grads_Kuv: Tensor, score: float, bias: str, bias_K: Tensor | None) -> Tensor:
    """Compute the bias term: all biases after the layer, spread evenly, or the layer's own bias as in FullGrad."""
    map_uv = torch.zeros_like(acts_Kuv[0])
    if bias == "residual":
        map_uv += (score - float((grads_Kuv * acts_Kuv).sum())) / map_uv.numel()
    elif bias == "fullgrad":
        assert bias_K is not None
        for layer_bias, grads_uv in zip(bias_K.tolist(), grads_Kuv, strict=True):
            map_uv += (layer_bias * grads_uv).abs()
    else:
        assert bias == "none"
    return map_uv


def _rms(values: Tensor) -> float:
    return math.sqrt(float((values**2).mean()))


def _not_redundant(maps: list[Tensor], redundancy: float | None) -> list[int]:
    """Return the depths to keep, from deep to shallow, without layers similar to a kept one."""
    kept: list[int] = []
    for depth in reversed(range(len(maps))):
        similarities = [1 - float((_large(maps, depth) - _large(maps, other)).abs().mean()) for other in kept]
        if redundancy is None or all(similarity <= redundancy for similarity in similarities):
            kept.append(depth)
    return kept


def _large(maps: list[Tensor], depth: int) -> Tensor:
    """Upsample a map to the finest grid, then normalise by min-max; zeros for a constant map."""
    constant = float(maps[depth].max()) == float(maps[depth].min())
    return torch.zeros_like(maps[0]) if constant else minmax(enlarge(maps[depth], tuple(maps[0].shape)))


def softmax_derivatives(
    logit_grads_N: Tensor, probs_N: Tensor, target: int = 0
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Compute three derivatives of p_c and of log p_c by one activation, on which all logits depend linearly."""

    def log_probs(a: Tensor) -> Tensor:
        return torch.log_softmax(torch.log(probs_N) + a * logit_grads_N, 0)[target]

    origin = torch.zeros((), dtype=probs_N.dtype)
    return derivatives(lambda a: torch.exp(log_probs(a)), origin), derivatives(log_probs, origin)
