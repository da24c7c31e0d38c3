"""Computes how similar two maps are, on any grids: correlation and structural similarity of their heat maps.

All are computed from heat maps of SIDE x SIDE pixels in [0, 1]. The similarity to a degenerate map is NaN.

Legend: N pairs of maps, (H, W) pixels, P pixels of a map.
"""

import numpy as np
import numpy.typing as npt
import torch

from pipeline.maps.codec import FloatArray
from pipeline.maps.heatmaps import heatmaps

SIDE = 64
Numbers = npt.NDArray[np.float64]


def enlarged(maps_Nuv: FloatArray) -> FloatArray:
    """Return the heat maps (N, SIDE, SIDE) of maps of one grid; degenerate ones are zero."""
    heatmaps_NHW: FloatArray = heatmaps(torch.tensor(maps_Nuv)[:, None].float(), (SIDE, SIDE))[:, 0].numpy()
    return heatmaps_NHW


def pearson(one_NHW: FloatArray, other_NHW: FloatArray) -> Numbers:
    """Compute the linear correlation of each pair, (N,), in [-1, 1]."""
    values = [maps.reshape(len(maps), -1).astype(np.float64) for maps in (one_NHW, other_NHW)]
    return _nan_where_zero(one_NHW, other_NHW, _correlation(*values))


def spearman(one_NHW: FloatArray, other_NHW: FloatArray) -> Numbers:
    """Compute the rank correlation of each pair, (N,), in [-1, 1]; tied pixels share their mean rank."""
    from scipy.stats import rankdata  # imported here, because it is slow to import

    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one_NHW, other_NHW)]
    return _nan_where_zero(one_NHW, other_NHW, _correlation(*ranks))


def _correlation(one_NP: Numbers, other_NP: Numbers) -> Numbers:
    one_NP, other_NP = (values_NP - values_NP.mean(1, keepdims=True) for values_NP in (one_NP, other_NP))
    norms_N = np.sqrt((one_NP**2).sum(1) * (other_NP**2).sum(1))
    correlation_N: Numbers = (one_NP * other_NP).sum(1) / np.where(norms_N > 0, norms_N, 1)
    return correlation_N


def ssim(one_NHW: FloatArray, other_NHW: FloatArray) -> Numbers:
    """Compute the structural similarity of each pair, (N,), in [-1, 1], with Wang's Gaussian window (sigma 1.5)."""
    from skimage.metrics import structural_similarity  # imported here, because it is slow to import

    values = [
        structural_similarity(one, other, data_range=1.0, gaussian_weights=True, use_sample_covariance=False)  # type: ignore[no-untyped-call]
        for one, other in zip(one_NHW, other_NHW, strict=True)
    ]
    return _nan_where_zero(one_NHW, other_NHW, np.array(values, np.float64))


def _nan_where_zero(one_NHW: FloatArray, other_NHW: FloatArray, values_N: Numbers) -> Numbers:
    """Replace the values of pairs with a degenerate map, whose heat map is zero, by NaN."""
    both_N = one_NHW.any((1, 2)) & other_NHW.any((1, 2))
    return np.where(both_N, values_N, np.nan)


def mean_interval(values_N: Numbers) -> tuple[float | None, float | None, int]:
    """Return the mean of the finite values, half the width of its 95 % interval (Student's t), and their number."""
    from scipy.stats import t  # imported here, because it is slow to import

    finite = values_N[np.isfinite(values_N)]
    mean = float(finite.mean()) if len(finite) else None
    half = float(t.ppf(0.975, len(finite) - 1) * finite.std(ddof=1)) / len(finite) ** 0.5 if len(finite) > 1 else None
    return mean, half, len(finite)
