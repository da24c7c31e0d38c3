"""Methods based on activations alone, or on a principal component.

Legend: B images, K channels, (u, v) grid, Z = u v cells; A activations, g gradient of the target logit.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Needs, NoExtraPass, Paper, weighted_sum
from pipeline.errors import LayerError
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

Kernel = Literal["sigmoid", "rbf"]


@dataclass(frozen=True, config=STRICT)
class Cam(NoExtraPass):
    """CAM: activation maps weighted by the target class's row of the last linear layer.

    M = sum_k w^c_k A_k

    A_k is the activation map of channel k, of Z = u v cells. w^c is the row of the target class c in the linear layer
    that follows global average pooling; networks with another head are refused. The map is signed, as in the paper.
    ReLU(M) is Z times Grad-CAM.
    """

    name: ClassVar[str] = "cam"
    needs: ClassVar[Needs] = Needs(linear_head=True)
    paper: ClassVar[Paper] = Paper(
        "Zhou, Khosla, Lapedriza, Oliva, Torralba", "Learning Deep Features for Discriminative Localization",
        "CVPR", 2016, "arXiv 1512.04150",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), signed.

        Raises:
            LayerError: the head is not global average pooling and one linear layer.
        """
        weights_NK = probe.linear_head(evidence)
        if weights_NK is None:
            raise LayerError(
                f"'cam' needs a head of global average pooling and one linear layer after '{evidence.layer}', "
                "which this model does not have; use gradcam, which generalises cam to every head"
            )
        return (weights_NK[evidence.targets_B][:, :, None, None] * evidence.acts_BKuv).sum(1)


@dataclass(frozen=True, config=STRICT)
class EigenCam(NoExtraPass):
    """Eigen-CAM: the activations projected on their first principal component, independent of the target class.

    M = F v_1

    F (Z, K) holds the activations of the Z = u v cells and K channels, with each channel's mean subtracted; v_1 is its
    first right singular vector. The sign of v_1 is arbitrary: it is chosen so that the value of largest magnitude in
    the map is positive. The map is signed, and zero for constant activations.
    """

    name: ClassVar[str] = "eigen_cam"
    needs: ClassVar[Needs] = Needs()
    paper: ClassVar[Paper] = Paper(
        "Muhammad, Yeasin", "Eigen-CAM: Class Activation Map using Principal Components",
        "IJCNN", 2020, "arXiv 2008.00299",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), signed."""
        return principal_component(evidence.acts_BKuv)


@dataclass(frozen=True, config=STRICT)
class EigenGradCam(NoExtraPass):
    """EigenGrad-CAM: Eigen-CAM of gradient times activation, which depends on the target class.

    M = F v_1

    F (Z, K) holds the products g A of gradient and activation at the Z = u v cells and K channels, with each channel's
    mean subtracted; v_1 is its first right singular vector; g is the gradient of the target logit. The sign is chosen
    as in Eigen-CAM. The map is zero where the products are constant.
    """

    name: ClassVar[str] = "eigen_gradcam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = Paper(
        "Gildenblat and contributors", "PyTorch library for CAM methods (EigenGradCAM)", "GitHub", 2021,
        "jacobgil/pytorch-grad-cam",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), signed."""
        return principal_component(evidence.grads_BKuv * evidence.acts_BKuv)


@dataclass(frozen=True, config=STRICT)
class KpcaCam(NoExtraPass):
    """KPCA-CAM: Eigen-CAM with a kernel instead of the inner product, independent of the target class.

    M = sqrt(l_1) u_1,   (l_1, u_1) the first eigenpair of the centred kernel matrix of the cells
    kernel(a, b) = tanh(a b / K + 1) (sigmoid) or exp(-|a - b|^2 / K) (rbf)

    a and b are rows of F, the centred activations of two cells over the K channels, as in Eigen-CAM. The sign is chosen
    as in Eigen-CAM; the map is zero for constant activations.

    Parameters:
        kernel: sigmoid (the best one in the paper) or rbf.
    """

    kernel: Kernel = "sigmoid"

    name: ClassVar[str] = "kpca_cam"
    needs: ClassVar[Needs] = Needs()
    paper: ClassVar[Paper] = Paper(
        "Karmani, Sivakaran, Prasad, Ali, Yang, Tang",
        "KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA",
        "IEEE MMSP", 2024, "arXiv 2410.00267",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), signed."""
        cells_BZK = _centred_cells(evidence.acts_BKuv)
        kernel_BZZ = _kernel(cells_BZK, self.kernel)
        rows_BZ1 = kernel_BZZ.mean(2, keepdim=True)
        centred_BZZ = kernel_BZZ - rows_BZ1 - rows_BZ1.mT + kernel_BZZ.mean((1, 2), keepdim=True)
        alike_B11 = (cells_BZK == cells_BZK[:, :1]).all(2).all(1)[:, None, None]  # centring leaves rounding noise
        return _with_sign(_first_component(centred_BZZ.masked_fill(alike_B11, 0.0)), evidence.acts_BKuv)


@dataclass(frozen=True, config=STRICT)
class Fem(NoExtraPass):
    """FEM: activation maps weighted by the share of their cells that stand out, independent of the target class.

    M = ReLU( sum_k w_k A_k ),   w_k = share of cells with A^k_ij > mean + n std of A_k

    A_k is the activation map of channel k; std is the population standard deviation. A constant channel has weight 0.

    Parameters:
        k_sigma: n, the threshold in standard deviations above the mean.
    """

    k_sigma: Annotated[float, Field(ge=0)] = 2.0

    name: ClassVar[str] = "fem"
    needs: ClassVar[Needs] = Needs()
    paper: ClassVar[Paper] = Paper(
        "Fuad, Martin, Giot, Bourqui, Benois-Pineau, Zemmari",
        "Features Understanding in 3D CNNs for Actions Recognition in Video",
        "IPTA", 2020, "HAL hal-02963298",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        acts_BKuv = evidence.acts_BKuv
        deviation_BK11 = acts_BKuv.std((2, 3), correction=0, keepdim=True)
        standing_out = acts_BKuv > acts_BKuv.mean((2, 3), keepdim=True) + self.k_sigma * deviation_BK11
        return weighted_sum(standing_out.float().mean((2, 3)), acts_BKuv)


def principal_component(maps_BKuv: Tensor) -> Tensor:
    """Project each cell on the first principal component of the channels, (B, u, v)."""
    cells_BZK = _centred_cells(maps_BKuv)
    if cells_BZK.shape[1] <= cells_BZK.shape[2]:
        return _with_sign(_first_component(cells_BZK @ cells_BZK.mT), maps_BKuv)
    _, directions_BKK = torch.linalg.eigh(cells_BZK.mT @ cells_BZK)
    return _with_sign((cells_BZK @ directions_BKK[..., -1:])[..., 0], maps_BKuv)


def _centred_cells(maps_BKuv: Tensor) -> Tensor:
    """Return the values as (B, Z, K) in double precision, each channel centred."""
    cells_BZK = maps_BKuv.flatten(2).transpose(1, 2).double()
    return cells_BZK - cells_BZK.mean(1, keepdim=True)


def _first_component(gram_BZZ: Tensor) -> Tensor:
    values_BZ, vectors_BZZ = torch.linalg.eigh(gram_BZZ)
    projections_BZ: Tensor = vectors_BZZ[..., -1] * values_BZ[:, -1:].clamp_min(0).sqrt()
    return projections_BZ


def _kernel(cells_BZK: Tensor, kernel: Kernel) -> Tensor:
    inner_BZZ = cells_BZK @ cells_BZK.mT
    channels = cells_BZK.shape[2]
    if kernel == "sigmoid":
        return torch.tanh(inner_BZZ / channels + 1)
    squares_BZ = inner_BZZ.diagonal(dim1=1, dim2=2)
    return torch.exp(-(squares_BZ[:, :, None] + squares_BZ[:, None] - 2 * inner_BZZ).clamp_min(0) / channels)


def _with_sign(projections_BZ: Tensor, like_BKuv: Tensor) -> Tensor:
    """Choose the sign of each map so that its value of largest magnitude is positive."""
    flip_B1 = projections_BZ.amin(1, keepdim=True).abs() > projections_BZ.amax(1, keepdim=True).abs()
    signed_BZ = torch.where(flip_B1, -projections_BZ, projections_BZ).float()
    return signed_BZ.view(len(like_BKuv), like_BKuv.shape[2], like_BKuv.shape[3])
