"""Methods that derive channel weights from the gradient of the target logit.

Legend: B images, K channels, (u, v) grid, Z = u v cells; A activations, S target logit, g = dS/dA.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Draws, Needs, NetShape, NoExtraPass, Paper, weighted_sum
from pipeline.cams.versions import noisy_copies, versions
from pipeline.cams.weights import gradcam, gradcam_pp
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class GradCam(NoExtraPass):
    """Grad-CAM: activation maps weighted by the mean gradient of each channel.

    M = ReLU( sum_k w_k A_k ),   w_k = (1/Z) sum_ij g^k_ij

    A_k is the activation map of channel k, of Z = u v cells; g = dS/dA is the gradient of the target logit S, before
    the softmax. If the weighted sum is nowhere positive, the map is all zero (degenerate). Source: eq. 1 and 2.
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
        return gradcam(evidence.acts_BKuv, evidence.grads_BKuv)


@dataclass(frozen=True, config=STRICT)
class GradCamPlusPlus(NoExtraPass):
    """Grad-CAM++: gradients weighted by position, so that several objects of one class all contribute.

    M = ReLU( sum_k w_k A_k ),   w_k = sum_ij alpha^k_ij ReLU(g^k_ij)
    alpha^k_ij = 1 / (2 + g^k_ij sum_ab A^k_ab)

    A_k is the activation map of channel k, g = dS/dA the gradient of the target logit S. alpha is eq. 19 of the paper,
    g^2 / (2 g^2 + sum(A) g^3), with g^2 cancelled, which keeps it exact for small gradients. exp(S) > 0, a common
    factor of all weights, is left out. Only positions with g > 0 contribute. For layers with negative activations the
    denominator can reach zero; alpha is 0 where it is below 1e-8.

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


@dataclass(frozen=True, config=STRICT)
class SmoothGradCamPlusPlus(Draws):
    """Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy copies of the image.

    M = ReLU( sum_k w_k A_k(x) ),   w_k = sum_ij alpha^k_ij ReLU(D1^k_ij)
    alpha^k_ij = D2^k_ij / (2 D2^k_ij + D3^k_ij sum_ab A^k_ab(x)),   Dp = mean_n g(x_n)^p
    x_n = x + sigma (max x - min x) e_n,   e_n standard normal

    A_k(x) is the activation map of channel k for the clean image x, g(x_n) the gradient of the target logit for the
    n-th noisy copy. With sigma = 0 this is Grad-CAM++. alpha is 0 where D2 = 0, and where the denominator is below
    1e-8 D2. The noise is drawn from (run seed, image key, method).

    Parameters:
        samples: number of noisy copies.
        sigma: standard deviation of the noise, as a fraction of the image's range max x - min x.
        numerator: D2 (the corrected formula, which reduces to Grad-CAM++), or D1 as printed in the paper.
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
        moments = [torch.zeros_like(acts_BKuv, dtype=torch.float64) for _ in range(3)]  # cubes may over- or underflow
        noisy = noisy_copies(evidence, probe.seed, self.name, self.sigma, self.samples)
        for copy in versions(evidence, probe, noisy):
            moments = [moment + copy.grads_BKuv.double() ** p / self.samples for p, moment in enumerate(moments, 1)]
        first_BKuv, second_BKuv, third_BKuv = moments
        denominator_BKuv = 2 + acts_BKuv.sum((2, 3), keepdim=True) * _ratio(third_BKuv, second_BKuv)
        usable_BKuv = (second_BKuv > 0) & (denominator_BKuv > 1e-8)
        numerator_BKuv = 1.0 if self.numerator == "D2" else _ratio(first_BKuv, second_BKuv)
        alpha_BKuv = torch.where(usable_BKuv, numerator_BKuv / torch.where(usable_BKuv, denominator_BKuv, 1.0), 0.0)
        return weighted_sum((alpha_BKuv * first_BKuv.relu()).sum((2, 3)).float(), acts_BKuv)

    @property
    def draws(self) -> bool:
        """Whether it draws numbers: if there is noise."""
        return self.sigma > 0

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one forward pass and one head backward pass per noisy copy."""
        return Cost(forwards=self.samples, backwards=self.samples)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide where the denominator is positive; 0 elsewhere."""
    return torch.where(denominator > 0, numerator / torch.where(denominator > 0, denominator, 1.0), 0.0)


@dataclass(frozen=True, config=STRICT)
class XGradCam(NoExtraPass):
    """XGrad-CAM: activation maps weighted by the mean gradient, with the activations as weights of the mean.

    M = ReLU( sum_k w_k A_k ),   w_k = sum_ij g^k_ij A^k_ij / sum_ij A^k_ij

    A_k is the activation map of channel k, g = dS/dA the gradient of the target logit S. Before the ReLU, the values of
    the map sum to sum g A, the first-order term of S. A channel whose activations cancel, with |sum A| not above
    1e-8 sum |A|, has weight 0. Equal to Grad-CAM if the head is global average pooling and one linear layer.
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
