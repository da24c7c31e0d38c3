"""Methods that differentiate a function of the logits other than the target logit.

Legend: B images, R rows, K channels, (u, v) grid, N classes; A activations, S logits, c the target.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, NoExtraPass, Paper, weighted_sum
from pipeline.model.evidence import Evidence, Readout
from pipeline.model.outputs import Outputs
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class FinerCam(NoExtraPass):
    """Finer-CAM: Grad-CAM of the difference between the target logit and the logits nearest to it.

    M = ReLU( sum_k w_k A_k ),   w_k = mean_ij d(U)/dA^k_ij,   U = S_c - gamma mean_t S_{d_t}

    A_k is the activation map of channel k, S the logits and c the target class. d_1 .. d_T are the other classes whose
    logits are nearest to S_c; of two at the same distance, the class with the lower index comes first. With a single
    class, this is Grad-CAM.

    Parameters:
        gamma: strength of the comparison; 0 is Grad-CAM.
        comparisons: number T of classes to compare with; all other classes if there are fewer.
    """

    gamma: Annotated[float, Field(ge=0)] = 1.0
    comparisons: Annotated[int, Field(ge=1)] = 3

    name: ClassVar[str] = "finer_cam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = Paper(
        "Zhang, Gu, Chowdhury, Mai, Carlyn, Berger-Wolf, Su, Chao",
        "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation",
        "CVPR", 2025, "arXiv 2501.11309",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        grads_BKuv = evidence.gradients(self._difference)[evidence.layer]
        return weighted_sum(grads_BKuv.mean((2, 3)), evidence.acts_BKuv)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one more head backward pass; the forward pass is the shared one."""
        return Cost(backwards=1)

    def _difference(self, logits_RN: Tensor, targets_R: Tensor) -> Tensor:
        target_R = logits_RN.gather(1, targets_R[:, None])[:, 0]
        distances_RN = (logits_RN.detach() - target_R.detach()[:, None]).abs()
        distances_RN = distances_RN.scatter(1, targets_R[:, None], torch.inf)
        others = min(self.comparisons, logits_RN.shape[1] - 1)
        nearest_RT = distances_RN.argsort(dim=1, stable=True)[:, :others]
        return target_R - self.gamma * logits_RN.gather(1, nearest_RT).mean(1) if others else target_R


@dataclass(frozen=True, config=STRICT)
class ShapleyCam(NoExtraPass):
    """ShapleyCAM: Grad-CAM with a second-order term, which approximates the channels' Shapley values.

    M = ReLU( sum_k w_k A_k ),   w_k = mean_ij ( g^k_ij - 1/2 (H A)^k_ij ),   g = dU/dA,   H = d2U/dA2

    A_k is the activation map of channel k, S_c the target logit and p_c its confidence. H is never built: the
    product H A takes one more backward pass. With U = S_c, in networks that are piecewise linear after the layer, H is
    zero and this is Grad-CAM.

    Parameters:
        utility: rest (the authors' choice) is U = S_c + log p_c, the logit minus its cross-entropy; logit is U = S_c.
    """

    utility: Literal["rest", "logit"] = "rest"

    name: ClassVar[str] = "shapley_cam"
    paper: ClassVar[Paper] = Paper(
        "Cai", "CAMs as Shapley Value-based Explainers", "arXiv", 2025, "arXiv 2501.06261",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        outputs = evidence.outputs
        grads_BKuv, product_BKuv = evidence.curvature(
            rest(outputs) if self.utility == "rest" else outputs.target_logits
        )
        return weighted_sum((grads_BKuv - 0.5 * product_BKuv).mean((2, 3)), evidence.acts_BKuv)

    @property
    def needs(self) -> Needs:
        """Return the needs: confidences for the utility rest."""
        return Needs(gradients=True, confidences=self.utility == "rest")

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count two more head backward passes; the forward pass is the shared one."""
        return Cost(backwards=2)


def rest(outputs: Outputs) -> Readout:
    """Return the residual softmax target (ReST) as a readout: the target logit plus its log-confidence, (R,)."""

    def logit_and_log_confidence(logits_RN: Tensor, targets_R: Tensor) -> Tensor:
        log_confidences_R = outputs.log_confidences(logits_RN).gather(1, targets_R[:, None])[:, 0]
        return outputs.target_logits(logits_RN, targets_R) + log_confidences_R

    return logit_and_log_confidence
