"""Methods that read the channel weights off the gradient of the target logit.

Legend: B images, K channels, (u, v) grid, Z = u v cells; A activations, S target logit, g = dS/dA.
"""

from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, LayerShape, Needs, Paper, weighted_sum
from pipeline.model.probe import Evidence, Probe


@dataclass(frozen=True, config=STRICT)
class GradCam:
    """Grad-CAM: each channel counts as much as the mean of its gradient.

    M = ReLU( sum_k w_k A_k ),   w_k = (1/Z) sum_ij g^k_ij

    Read from the pre-softmax logit. Where every w_k A_k is negative the map is all zero (degenerate).
    Source: eq. 1 and 2.
    """

    name: ClassVar[str] = "gradcam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
        "ICCV", 2017, "arXiv 1610.02391",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return weighted_sum(evidence.grads_BKuv.mean((2, 3)), evidence.acts_BKuv)

    def cost(self, shape: LayerShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Nothing beside the shared forward and head backward."""
        return Cost()


@dataclass(frozen=True, config=STRICT)
class GradCamPlusPlus:
    """Grad-CAM++: gradients weighted by position, so that several objects of one class all count.

    M = ReLU( sum_k w_k A_k ),   w_k = sum_ij alpha^k_ij ReLU(g^k_ij)
    alpha^k_ij = 1 / (2 + g^k_ij sum_ab A^k_ab)

    This is eq. 19 of the paper, g^2 / (2 g^2 + sum(A) g^3), with g^2 cancelled, which keeps it exact for small
    gradients; exp(S) > 0 is a common factor of all weights and left out. Only positions with g > 0 count. For
    layers with negative activations the denominator can reach zero; positions where it is below 1e-8 get 0.

    Parameters:
        normalise_alpha: divide alpha by its sum over the positions with a positive gradient, per channel, as the
            authors' released code does (the paper's formula does not).
    """

    normalise_alpha: bool = False

    name: ClassVar[str] = "gradcam_pp"
    needs: ClassVar[Needs] = Needs(gradients=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {"official_code": {"normalise_alpha": True}}
    paper: ClassVar[Paper] = Paper(
        "Chattopadhay, Sarkar, Howlader, Balasubramanian",
        "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
        "WACV", 2018, "arXiv 1710.11063",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        acts_BKuv, grads_BKuv = evidence.acts_BKuv, evidence.grads_BKuv
        alpha_BKuv = position_weights(acts_BKuv, grads_BKuv)
        if self.normalise_alpha:
            totals_BK11 = alpha_BKuv.sum((2, 3), keepdim=True)
            alpha_BKuv = alpha_BKuv / torch.where(totals_BK11 == 0, 1.0, totals_BK11)
        return weighted_sum((alpha_BKuv * grads_BKuv.relu()).sum((2, 3)), acts_BKuv)

    def cost(self, shape: LayerShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Nothing beside the shared forward and head backward."""
        return Cost()


def position_weights(acts_BKuv: Tensor, grads_BKuv: Tensor) -> Tensor:
    """Grad-CAM++'s alpha at positions with a positive gradient, 0 elsewhere."""
    denominator_BKuv = 2 + grads_BKuv * acts_BKuv.sum((2, 3), keepdim=True)
    usable_BKuv = (grads_BKuv > 0) & (denominator_BKuv > 1e-8)
    return torch.where(usable_BKuv, 1 / torch.where(usable_BKuv, denominator_BKuv, 1.0), 0.0)
