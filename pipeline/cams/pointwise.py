"""Methods that weigh every position of every channel by its own gradient, not the channel as a whole.

Legend: B images, K channels, (u, v) grid; A activations, S target logit, g = dS/dA.
"""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Needs, NoExtraPass, Paper
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

LAYERCAM = Paper(
    "Jiang, Zhang, Hou, Cheng, Wei", "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
    "IEEE Transactions on Image Processing", 2021, "doi 10.1109/TIP.2021.3089943",
)  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class HiResCam(NoExtraPass):
    """HiResCAM: gradient times activation at each position, so that the map shows where the model really looked.

    M = ReLU( sum_k g_k A_k )

    Before the ReLU the map adds up to S less the part of all biases behind the layer, in networks that are piecewise
    linear. Equal to Grad-CAM for a head of pooling and one linear layer.
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
    """Element-wise Grad-CAM: gradient times activation, rectified at each position before channels are added.

    M = sum_k ReLU( g_k A_k )

    The variant of HiResCAM that libraries offer beside it: what speaks against the class is dropped, not subtracted.
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
    """Layer-CAM: positive gradients as weights of the positions, which keeps fine detail in shallow layers.

    M = ReLU( sum_k ReLU(g_k) A_k )

    The outer ReLU matters only where activations are negative. `layercam_fusion` joins several layers.
    """

    name: ClassVar[str] = "layercam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = LAYERCAM

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return layercam(evidence.acts_BKuv, evidence.grads_BKuv)


def layercam(acts_BKuv: Tensor, grads_BKuv: Tensor) -> Tensor:
    """Layer-CAM of any layer, (B, u, v)."""
    return (grads_BKuv.relu() * acts_BKuv).sum(1).relu()
