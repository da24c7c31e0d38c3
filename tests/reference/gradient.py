"""Reference implementations of the gradient methods: one image at a time, with full backward passes."""

from collections.abc import Callable

import torch
from reference.base import enlarge, observe
from torch import Tensor, nn


def xgradcam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    """Average the gradients with the activations as weights; 0 where a channel's activations cancel."""
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    total_uv = torch.zeros_like(acts_Kuv[0])
    for acts_uv, grads_uv in zip(acts_Kuv, grads_Kuv, strict=True):
        signed, absolute = float(acts_uv.sum()), float(acts_uv.abs().sum())
        if absolute > 0 and abs(signed) >= 1e-8 * absolute:
            total_uv += float((grads_uv * acts_uv).sum()) / signed * acts_uv
    return total_uv.clamp_min(0)


def hirescam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    return _products(model, layer, image_CHW, target).sum(0).clamp_min(0)


def elementwise_gradcam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    return _products(model, layer, image_CHW, target).clamp_min(0).sum(0)


def layercam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    total_uv = torch.zeros_like(acts_Kuv[0])
    for acts_uv, grads_uv in zip(acts_Kuv, grads_Kuv, strict=True):
        total_uv += grads_uv.clamp_min(0) * acts_uv
    return total_uv.clamp_min(0)


def _products(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    acts_Kuv, grads_Kuv, _ = observe(model, layer, image_CHW, target)
    return grads_Kuv * acts_Kuv


def smooth_gradcam_pp(
    model: nn.Module,
    layer: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    noise_NCHW: Tensor,
    sigma: float = 0.15,
    numerator: str = "D2",
) -> Tensor:
    """Apply Grad-CAM++ to powers of the gradient averaged over noisy images, with the clean activations."""
    assert numerator in ("D1", "D2")
    acts_Kuv = observe(model, layer, image_CHW, target)[0]
    spread = float(image_CHW.max()) - float(image_CHW.min())
    powers = [torch.zeros_like(acts_Kuv) for _ in range(3)]
    for noise_CHW in noise_NCHW:
        grads_Kuv = observe(model, layer, image_CHW + sigma * spread * noise_CHW, target)[1]
        for p in range(3):
            powers[p] += grads_Kuv ** (p + 1) / len(noise_NCHW)
    total_uv = torch.zeros_like(acts_Kuv[0])
    for k, acts_uv in enumerate(acts_Kuv):
        sum_of_acts, weight = float(acts_uv.sum()), 0.0
        for d1, d2, d3 in zip(*(power_Kuv[k].flatten().tolist() for power_Kuv in powers), strict=True):
            denominator = 2 * d2 + sum_of_acts * d3
            if d2 > 0 and denominator / d2 > 1e-8:
                weight += (d1 if numerator == "D1" else d2) / denominator * max(d1, 0.0)
        total_uv += weight * acts_uv
    return total_uv.clamp_min(0)


def eigen_gradcam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    return principal(_products(model, layer, image_CHW, target))


def principal(features_Kuv: Tensor) -> Tensor:
    """Project each position on the first principal axis of the channels, without ReLU."""
    rows_ZK = centred_rows(features_Kuv)
    axis_K = torch.linalg.svd(rows_ZK, full_matrices=False).Vh[0]
    return with_sign((rows_ZK @ axis_K).reshape(features_Kuv.shape[1:]))


def centred_rows(features_Kuv: Tensor) -> Tensor:
    """Return one row per position and one column per channel, each column centred."""
    rows_ZK = features_Kuv.flatten(1).T
    return rows_ZK - rows_ZK.mean(0)


def with_sign(map_uv: Tensor) -> Tensor:
    """Choose the sign with which the value of largest magnitude is positive."""
    return -map_uv if abs(float(map_uv.min())) > abs(float(map_uv.max())) else map_uv


def shapley_cam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, utility: str = "rest") -> Tensor:
    """Average g - H A / 2, the second-order Shapley value, by two backward passes through the layers after `layer`."""
    kept: list[Tensor] = []

    def restart(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0].clone()

    handle = layer.register_forward_hook(restart)
    logits_N = model(image_CHW[None])[0]
    handle.remove()
    score = {"logit": logits_N[target], "rest": logits_N[target] + torch.log_softmax(logits_N, 0)[target]}[utility]
    (grads_BKuv,) = torch.autograd.grad(score, kept[0], create_graph=True)
    acts_BKuv = kept[0].detach()
    curvature_BKuv = torch.zeros_like(acts_BKuv)
    if grads_BKuv.requires_grad:
        along = (grads_BKuv * acts_BKuv).sum()
        (curvature_BKuv,) = torch.autograd.grad(along, kept[0], allow_unused=True, materialize_grads=True)
    return weighted(acts_BKuv[0], (grads_BKuv.detach() - 0.5 * curvature_BKuv)[0].mean((1, 2)))


def weighted(acts_Kuv: Tensor, weights_K: Tensor) -> Tensor:
    total_uv = torch.zeros_like(acts_Kuv[0])
    for weight, acts_uv in zip(weights_K.tolist(), acts_Kuv, strict=True):
        total_uv += weight * acts_uv
    return total_uv.clamp_min(0)


def finer_cam(
    model: nn.Module,
    layer: nn.Module,
    image_CHW: Tensor,
    target: int,
    *,
    gamma: float = 1.0,
    comparisons: int = 3,
) -> Tensor:
    """Apply Grad-CAM to the logit minus gamma times the mean of the logits nearest to it."""
    acts_Kuv, grads_Kuv, logits_N = observe(model, layer, image_CHW, target)
    others = sorted(
        (d for d in range(len(logits_N)) if d != target), key=lambda d: (abs(float(logits_N[d] - logits_N[target])), d)
    )[:comparisons]
    grads_Kuv = grads_Kuv.clone()
    for d in others:
        grads_Kuv -= gamma * observe(model, layer, image_CHW, d)[1] / len(others)
    return weighted(acts_Kuv, grads_Kuv.mean((1, 2)))


def fullgrad(model: nn.Module, image_CHW: Tensor, target: int, *, grid: int, order: str = "enlarge_first") -> Tensor:
    """Sum input times gradient and, per channel, each bias times its gradient, all scaled to [0, 1].

    `order` is the order of upsampling a bias map and normalising it: "enlarge_first" or "minmax_first".
    """
    size = tuple(image_CHW.shape[-2:])
    total_HW = torch.zeros(size, dtype=image_CHW.dtype)
    for product_HW in (image_CHW * input_gradient(model, image_CHW, target)).abs():
        total_HW += minmax(product_HW)
    for module in model.modules():
        bias_K = effective_bias(module)
        if bias_K is None:
            continue
        for bias, grads_uv in zip(bias_K, observe(model, module, image_CHW, target)[1], strict=True):
            map_uv = (bias * grads_uv).abs()
            total_HW += mask_of(map_uv, size) if order == "enlarge_first" else enlarge(minmax(map_uv), size)
    return pool(total_HW, (grid, grid))


def effective_bias(module: nn.Module) -> Tensor | None:
    """Return the constant a convolution or batch norm in eval mode adds to its output, (K,); None if there is none."""
    if isinstance(module, nn.Conv2d):
        return None if module.bias is None else module.bias.detach()
    if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
        shift_K = module.running_mean / torch.sqrt(module.running_var + module.eps)
        if module.affine:
            return (module.bias - module.weight * shift_K).detach()
        return -shift_K
    return None


def input_gradient(model: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    """Return the gradient of the logit with respect to the image."""
    leaf_CHW = image_CHW.clone().requires_grad_()
    return torch.autograd.grad(model(leaf_CHW[None])[0, target], leaf_CHW)[0]


def observe_score(
    model: nn.Module, layer: nn.Module, image_CHW: Tensor, score: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return activations and gradients (K, u, v) of a layer for any function of the logits."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    logits_N = model(image_CHW[None].clone().requires_grad_())[0]
    handle.remove()
    (grads_BKuv,) = torch.autograd.grad(score(logits_N), kept[0])
    return kept[0].detach()[0], grads_BKuv[0]


def minmax(map_uv: Tensor) -> Tensor:
    """Scale a map to [0, 1]; a constant map becomes zeros."""
    low, high = float(map_uv.min()), float(map_uv.max())
    return (map_uv - low) / (high - low) if high > low else torch.zeros_like(map_uv)


def mask_of(map_uv: Tensor, size: tuple[int, ...]) -> Tensor:
    """Upsample a map and scale it to [0, 1]; zeros for a constant map, regardless of rounding in the upsampling."""
    if constant(map_uv):
        return torch.zeros(size, dtype=map_uv.dtype)
    return minmax(enlarge(map_uv, size))


def constant(map_uv: Tensor) -> bool:
    return float(map_uv.max()) == float(map_uv.min())


def pool(map_HW: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Average a map over the cells of a grid whose sides divide those of the map."""
    height, width = (side // cells for side, cells in zip(map_HW.shape, grid, strict=True))
    assert (height * grid[0], width * grid[1]) == tuple(map_HW.shape)
    pooled_uv = torch.zeros(*grid, dtype=map_HW.dtype)
    for i in range(grid[0]):
        for j in range(grid[1]):
            pooled_uv[i, j] = map_HW[i * height : (i + 1) * height, j * width : (j + 1) * width].mean()
    return pooled_uv
