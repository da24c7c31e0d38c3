"""Formulas that several methods share: maps of any layer from its activations and gradients.

Legend: B images, K channels, (u, v) grid.
"""

import torch
from torch import Tensor

from pipeline.cams.base import Paper, weighted_sum

LAYERCAM = Paper(
    "Jiang, Zhang, Hou, Cheng, Wei", "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
    "IEEE Transactions on Image Processing", 2021, "doi 10.1109/TIP.2021.3089943",
)  # fmt: skip


def gradcam(acts_BKuv: Tensor, grads_BKuv: Tensor) -> Tensor:
    """Compute Grad-CAM maps from the activations and gradients of any layer, (B, u, v)."""
    return weighted_sum(grads_BKuv.mean((2, 3)), acts_BKuv)


def gradcam_pp(acts_BKuv: Tensor, grads_BKuv: Tensor, *, normalise_alpha: bool = False) -> Tensor:
    """Compute Grad-CAM++ maps from the activations and gradients of any layer, (B, u, v)."""
    alpha_BKuv = position_weights(acts_BKuv, grads_BKuv)
    if normalise_alpha:
        totals_BK11 = alpha_BKuv.sum((2, 3), keepdim=True)
        alpha_BKuv = alpha_BKuv / torch.where(totals_BK11 == 0, 1.0, totals_BK11)
    return weighted_sum((alpha_BKuv * grads_BKuv.relu()).sum((2, 3)), acts_BKuv)


def position_weights(acts_BKuv: Tensor, grads_BKuv: Tensor) -> Tensor:
    """Compute Grad-CAM++'s alpha at positions with a positive gradient; 0 elsewhere."""
    denominator_BKuv = 2 + grads_BKuv * acts_BKuv.sum((2, 3), keepdim=True)
    usable_BKuv = (grads_BKuv > 0) & (denominator_BKuv > 1e-8)
    return torch.where(usable_BKuv, 1 / torch.where(usable_BKuv, denominator_BKuv, 1.0), 0.0)


def layercam(acts_BKuv: Tensor, grads_BKuv: Tensor) -> Tensor:
    """Compute Layer-CAM maps from the activations and gradients of any layer, (B, u, v)."""
    return (grads_BKuv.relu() * acts_BKuv).sum(1).relu()
