"""Methods that join maps of several layers of one pass.

The layers are the run's stages: the last layer of each resolution, shallow to deep, the target layer last. Joined maps
are stored at the grid of the shallowest stage. Legend: B rows, L stages, K channels, (u, v) grid; A activations,
g gradient of the target logit, mm min-max to [0, 1], Up bilinear enlargement to the finest grid.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Needs, NoExtraPass, Paper
from pipeline.cams.gradient import gradcam_pp
from pipeline.cams.pointwise import LAYERCAM, layercam
from pipeline.maps.heatmaps import min_max, upsample
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class LayerCamFusion(NoExtraPass):
    """Layer-CAM over several layers: the strongest evidence of any layer at each place.

    M = max_l Up(N_l),   N_l = tanh( gamma M_l / max M_l ) for all layers but the deepest,   M_l / max M_l for that one
    M_l = ReLU( sum_k ReLU(g_k) A_k )

    A layer whose map is zero stays zero. Joined at the grid of the shallowest layer; the authors join at the size of
    the image.

    Parameters:
        gamma: how strongly weak evidence of shallow layers is lifted.
    """

    gamma: Annotated[float, Field(gt=0)] = 2.0

    name: ClassVar[str] = "layercam_fusion"
    needs: ClassVar[Needs] = Needs(gradients=True, stages=True)
    paper: ClassVar[Paper] = LAYERCAM

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), in [0, 1]."""
        scaled = [_by_maximum(layercam(evidence.acts[layer], evidence.grads[layer])) for layer in evidence.layers]
        lifted = [torch.tanh(self.gamma * shallow_Buv) for shallow_Buv in scaled[:-1]]
        return at_finest([*lifted, scaled[-1]]).amax(1)


@dataclass(frozen=True, config=STRICT)
class RefineCam(NoExtraPass):
    """RefineCAM: the product of all layers' Grad-CAM++ maps, so that only what every layer sees remains.

    M = prod_l Up(mm(M_l)),   M_l Grad-CAM++ of layer l

    Zero in one layer is zero in the product.
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


def at_finest(maps: list[Tensor]) -> Tensor:
    """Bring maps (B, u, v) of several grids to the grid of the first, (B, L, u, v); a constant map stays constant."""
    size = (maps[0].shape[1], maps[0].shape[2])
    return torch.stack([_enlarged(map_Buv, size) for map_Buv in maps], 1)


def _enlarged(map_Buv: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge maps; of a constant one that leaves rounding noise, which min-max would blow up."""
    constant_B11 = map_Buv.amin((1, 2), keepdim=True) == map_Buv.amax((1, 2), keepdim=True)
    return torch.where(constant_B11, map_Buv[:, :1, :1], upsample(map_Buv[:, None], size)[:, 0])


def _by_maximum(map_Buv: Tensor) -> Tensor:
    highest_B11 = map_Buv.amax((1, 2), keepdim=True)
    return map_Buv / torch.where(highest_B11 > 0, highest_B11, 1.0)
