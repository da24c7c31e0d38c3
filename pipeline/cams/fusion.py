"""Methods that combine the maps of several layers of one pass.

The layers are the run's stages: the last layer of each resolution, from shallow to deep, the target layer last. The
combined maps are stored at the grid of the shallowest stage. Legend: B rows, L stages, K channels, (u, v) grid; A
activations, g gradient of the target logit, mm min-max normalisation to [0, 1], Up bilinear upsampling to the finest
grid.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Needs, NoExtraPass, Paper
from pipeline.cams.grids import at_finest
from pipeline.cams.weights import LAYERCAM, gradcam_pp, layercam
from pipeline.maps.heatmaps import min_max
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class LayerCamFusion(NoExtraPass):
    """Layer-CAM over several layers: at each position, the maximum of all layers' scaled maps.

    M = max_l Up(N_l),   M_l = ReLU( sum_k ReLU(g_k) A_k )
    N_l = M_l / max M_l for the deepest layer,   N_l = tanh( gamma M_l / max M_l ) for the others

    The layers l are the stages: the last layer of each resolution. A_k is the activation map of channel k, g_k the
    gradient of the target logit there, Up bilinear upsampling to the grid of the shallowest layer; the authors upsample
    to the image instead. N_l is zero where M_l is zero everywhere. In [0, 1].

    Parameters:
        gamma: how strongly small values of shallow layers are raised.
    """

    gamma: Annotated[float, Field(gt=0)] = 2.0

    name: ClassVar[str] = "layercam_fusion"
    needs: ClassVar[Needs] = Needs(gradients=True, stages=True)
    paper: ClassVar[Paper] = LAYERCAM

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), in [0, 1]."""
        scaled = [_max_normalised(layercam(evidence.acts[layer], evidence.grads[layer])) for layer in evidence.layers]
        lifted = [torch.tanh(self.gamma * shallow_Buv) for shallow_Buv in scaled[:-1]]
        return at_finest([*lifted, scaled[-1]]).amax(1)


@dataclass(frozen=True, config=STRICT)
class RefineCam(NoExtraPass):
    """RefineCAM: the product of all layers' Grad-CAM++ maps, which keeps only regions that every layer marks.

    M = prod_l Up(mm(M_l)),   M_l the Grad-CAM++ map of layer l

    The layers l are the stages: the last layer of each resolution. mm is min-max normalisation to [0, 1], Up bilinear
    upsampling to the grid of the shallowest layer. A position that is zero in one layer is zero in M. In [0, 1].
    """

    name: ClassVar[str] = "refine_cam"
    needs: ClassVar[Needs] = Needs(gradients=True, stages=True)
    paper: ClassVar[Paper] = Paper(
        "Domeniconi, Stramiglio, Lombardi, Salti", "How to Evaluate and Refine your CAM",
        "arXiv", 2026, "arXiv 2605.14641",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), in [0, 1]."""
        maps = [min_max(gradcam_pp(evidence.acts[layer], evidence.grads[layer])) for layer in evidence.layers]
        return at_finest(maps).prod(1)


def _max_normalised(map_Buv: Tensor) -> Tensor:
    highest_B11 = map_Buv.amax((1, 2), keepdim=True)
    return map_Buv / torch.where(highest_B11 > 0, highest_B11, 1.0)
