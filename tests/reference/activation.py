"""Reference implementations of the methods based on activations alone."""

import torch
from reference.base import observe
from reference.gradient import centred_rows, principal, weighted, with_sign
from sklearn.decomposition import KernelPCA
from torch import Tensor, nn


def cam(model: nn.Module, layer: nn.Module, linear: nn.Linear, image_CHW: Tensor, target: int) -> Tensor:
    """Weight the channels with the class's row of the linear layer, without ReLU."""
    acts_Kuv = observe(model, layer, image_CHW, target)[0]
    total_uv = torch.zeros_like(acts_Kuv[0])
    for weight, acts_uv in zip(linear.weight[target].detach().tolist(), acts_Kuv, strict=True):
        total_uv += weight * acts_uv
    return total_uv


def eigen_cam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int) -> Tensor:
    return principal(observe(model, layer, image_CHW, target)[0])


def kpca_cam(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, kernel: str = "sigmoid") -> Tensor:
    """Project the centred rows on their first kernel principal component by scikit-learn, without ReLU."""
    acts_Kuv = observe(model, layer, image_CHW, target)[0]
    analysis = KernelPCA(n_components=1, kernel=kernel, gamma=None, coef0=1, eigen_solver="dense")
    scores_Z1 = analysis.fit_transform(centred_rows(acts_Kuv).numpy())
    return with_sign(torch.from_numpy(scores_Z1).to(acts_Kuv.dtype).reshape(acts_Kuv.shape[1:]))


def fem(model: nn.Module, layer: nn.Module, image_CHW: Tensor, target: int, *, k_sigma: float = 2.0) -> Tensor:
    """Weight each channel by the share of positions above its mean plus k_sigma standard deviations."""
    acts_Kuv = observe(model, layer, image_CHW, target)[0]
    weights = []
    for acts_uv in acts_Kuv:
        mean = float(acts_uv.mean())
        deviation = float(((acts_uv - mean) ** 2).mean()) ** 0.5
        values = acts_uv.flatten().tolist()
        weights.append(sum(value > mean + k_sigma * deviation for value in values) / len(values))
    return weighted(acts_Kuv, torch.tensor(weights, dtype=acts_Kuv.dtype))
