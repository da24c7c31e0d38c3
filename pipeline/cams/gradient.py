"""Methods that read the channel weights off the gradient of the target logit.

Legend: B images, K channels, (u, v) grid, Z = u v cells; A activations, S target logit, g = dS/dA.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, NoExtraPass, Paper, weighted_sum
from pipeline.cams.versions import noisy_copies, versions
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class GradCam(NoExtraPass):
    """Grad-CAM: each channel counts as much as the mean of its gradient.

    M = ReLU( sum_k w_k A_k ),   w_k = (1/Z) sum_ij g^k_ij

    Read from the pre-softmax logit. Where every w_k A_k is negative the map is all zero (degenerate).
    Source: eq. 1 and 2.
    """

    name: ClassVar[str] = "gradcam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = Paper(
        "Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
        "ICCV", 2017, "arXiv 1610.02391",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return weighted_sum(evidence.grads_BKuv.mean((2, 3)), evidence.acts_BKuv)


@dataclass(frozen=True, config=STRICT)
class GradCamPlusPlus(NoExtraPass):
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
    presets: ClassVar[dict[str, dict[str, Any]]] = {"official_code": {"normalise_alpha": True}}
    paper: ClassVar[Paper] = Paper(
        "Chattopadhay, Sarkar, Howlader, Balasubramanian",
        "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
        "WACV", 2018, "arXiv 1710.11063",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return gradcam_pp(evidence.acts_BKuv, evidence.grads_BKuv, normalise_alpha=self.normalise_alpha)


def position_weights(acts_BKuv: Tensor, grads_BKuv: Tensor) -> Tensor:
    """Grad-CAM++'s alpha at positions with a positive gradient, 0 elsewhere."""
    denominator_BKuv = 2 + grads_BKuv * acts_BKuv.sum((2, 3), keepdim=True)
    usable_BKuv = (grads_BKuv > 0) & (denominator_BKuv > 1e-8)
    return torch.where(usable_BKuv, 1 / torch.where(usable_BKuv, denominator_BKuv, 1.0), 0.0)


def gradcam_pp(acts_BKuv: Tensor, grads_BKuv: Tensor, *, normalise_alpha: bool = False) -> Tensor:
    """Grad-CAM++ of any layer, (B, u, v)."""
    alpha_BKuv = position_weights(acts_BKuv, grads_BKuv)
    if normalise_alpha:
        totals_BK11 = alpha_BKuv.sum((2, 3), keepdim=True)
        alpha_BKuv = alpha_BKuv / torch.where(totals_BK11 == 0, 1.0, totals_BK11)
    return weighted_sum((alpha_BKuv * grads_BKuv.relu()).sum((2, 3)), acts_BKuv)


@dataclass(frozen=True, config=STRICT)
class SmoothGradCamPlusPlus:
    """Smooth Grad-CAM++: Grad-CAM++ with its derivatives averaged over noisy copies of the image.

    M = ReLU( sum_k w_k A_k(x) ),   w_k = sum_ij alpha^k_ij ReLU(D1^k_ij)
    alpha^k_ij = D2^k_ij / (2 D2^k_ij + D3^k_ij sum_ab A^k_ab(x)),   Dp = mean_n g(x_n)^p
    x_n = x + sigma (max x - min x) e_n,   e_n standard normal

    The activations are those of the clean image. With sigma = 0 this is Grad-CAM++. Positions where D2 = 0, or where
    the denominator is below 1e-8 D2, get 0. The noise comes from (run seed, image key, method).

    Parameters:
        samples: number of noisy copies.
        sigma: standard deviation of the noise as a share of the image's range.
        numerator: D2 (the corrected formula, which reduces to Grad-CAM++), or D1 as the paper prints it.
    """

    samples: Annotated[int, Field(ge=1)] = 25
    sigma: Annotated[float, Field(ge=0)] = 0.15
    numerator: Literal["D2", "D1"] = "D2"

    name: ClassVar[str] = "smooth_gradcam_pp"
    needs: ClassVar[Needs] = Needs(gradients=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {"printed": {"numerator": "D1"}}
    paper: ClassVar[Paper] = Paper(
        "Omeiza, Speakman, Cintas, Weldermariam",
        "Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional Neural "
        "Network Models",
        "arXiv", 2019, "arXiv 1908.01224",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        acts_BKuv = evidence.acts_BKuv
        moments = [torch.zeros_like(acts_BKuv, dtype=torch.float64) for _ in range(3)]  # cubes leave float32's range
        noisy = noisy_copies(evidence, probe.seed, self.name, self.sigma, self.samples)
        for copy in versions(evidence, probe, noisy):
            moments = [moment + copy.grads_BKuv.double() ** p / self.samples for p, moment in enumerate(moments, 1)]
        first_BKuv, second_BKuv, third_BKuv = moments
        ratio_BKuv = 2 + acts_BKuv.sum((2, 3), keepdim=True) * _share(third_BKuv, second_BKuv)
        usable_BKuv = (second_BKuv > 0) & (ratio_BKuv > 1e-8)
        top_BKuv = 1.0 if self.numerator == "D2" else _share(first_BKuv, second_BKuv)
        alpha_BKuv = torch.where(usable_BKuv, top_BKuv / torch.where(usable_BKuv, ratio_BKuv, 1.0), 0.0)
        return weighted_sum((alpha_BKuv * first_BKuv.relu()).sum((2, 3)).float(), acts_BKuv)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """One forward and head backward per noisy copy."""
        return Cost(forwards=self.samples, backwards=self.samples)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Quotient where the whole is positive, 0 elsewhere."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


@dataclass(frozen=True, config=STRICT)
class XGradCam(NoExtraPass):
    """XGrad-CAM: gradients averaged with the activations as weights, so that the map keeps the first-order sum.

    M = ReLU( sum_k w_k A_k ),   w_k = sum_ij g^k_ij A^k_ij / sum_ij A^k_ij

    Before the ReLU the map adds up to sum g A. A channel whose activations cancel, |sum A| below 1e-8 sum |A|, has
    weight 0. Equal to Grad-CAM for a head of pooling and one linear layer.
    """

    name: ClassVar[str] = "xgradcam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = Paper(
        "Fu, Hu, Dong, Guo, Gao, Li",
        "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs",
        "BMVC", 2020, "arXiv 2008.02312",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        acts_BKuv = evidence.acts_BKuv
        total_BK = acts_BKuv.sum((2, 3))
        usable_BK = total_BK.abs() > 1e-8 * acts_BKuv.abs().sum((2, 3))
        product_BK = (evidence.grads_BKuv * acts_BKuv).sum((2, 3))
        return weighted_sum(torch.where(usable_BK, product_BK / torch.where(usable_BK, total_BK, 1.0), 0.0), acts_BKuv)
