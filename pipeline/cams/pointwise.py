"""Methods that weight each position of each channel by its own gradient, instead of the channel as a whole.

Legend: B images, K channels, (u, v) grid; A activations, S target logit, g = dS/dA.
"""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Needs, NoExtraPass, Paper
from pipeline.cams.weights import LAYERCAM, layercam
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class HiResCam(NoExtraPass):
    """HiResCAM: gradient times activation at each position, summed over channels.

    M = ReLU( sum_k g_k A_k )

    A_k is the activation map of channel k, g = dS/dA the gradient of the target logit S. In piecewise linear networks,
    the values of the map before the ReLU sum to S minus the contribution of all biases after the layer. Equal to
    Grad-CAM if the head is global average pooling and one linear layer.
    """

    name: ClassVar[str] = "hirescam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = Paper(
        "Draelos, Carin", "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
        "arXiv", 2020, "arXiv 2011.08891",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return (evidence.grads_BKuv * evidence.acts_BKuv).sum(1).relu()


@dataclass(frozen=True, config=STRICT)
class ElementwiseGradCam(NoExtraPass):
    """Element-wise Grad-CAM: gradient times activation, rectified at each position before summing over channels.

    M = sum_k ReLU( g_k A_k )

    A_k is the activation map of channel k, g = dS/dA the gradient of the target logit S. This variant of HiResCAM from
    pytorch-grad-cam drops evidence against the class instead of subtracting it.
    """

    name: ClassVar[str] = "elementwise_gradcam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = Paper(
        "Gildenblat and contributors", "PyTorch library for CAM methods (GradCAMElementWise)", "GitHub", 2021,
        "jacobgil/pytorch-grad-cam",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return (evidence.grads_BKuv * evidence.acts_BKuv).relu().sum(1)


@dataclass(frozen=True, config=STRICT)
class LayerCam(NoExtraPass):
    """Layer-CAM: activations weighted by their positive gradients, position by position.

    M = ReLU( sum_k ReLU(g_k) A_k )

    A_k is the activation map of channel k, g = dS/dA the gradient of the target logit S. The weights keep fine
    detail in shallow layers. The outer ReLU has an effect only where activations are negative. `layercam_fusion`
    combines several layers.
    """

    name: ClassVar[str] = "layercam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = LAYERCAM

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return layercam(evidence.acts_BKuv, evidence.grads_BKuv)
