"""How alike two maps are, whatever their grids: rank correlation and structural similarity of their heat maps.

Legend: N pairs of maps, SIDE pixels. Both numbers are taken from heat maps of SIDE x SIDE pixels in [0, 1]; a map that
shows nothing is like no other, its similarity is NaN.
"""

import numpy as np
import numpy.typing as npt
import torch

from pipeline.maps.codec import FloatArray
from pipeline.maps.heatmaps import heatmaps

SIDE = 64
Numbers = npt.NDArray[np.float64]


def enlarged(maps_Nuv: FloatArray) -> FloatArray:
    """Heat maps (N, SIDE, SIDE) of maps of one grid; degenerate ones are zero."""
    found: FloatArray = heatmaps(torch.tensor(maps_Nuv)[:, None].float(), (SIDE, SIDE))[:, 0].numpy()
    return found


def spearman(one_NHW: FloatArray, other_NHW: FloatArray) -> Numbers:
    """Rank correlation of each pair, (N,), in [-1, 1]; tied pixels share their mean rank."""
    from scipy.stats import rankdata  # costs time to import

    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (one_NHW, other_NHW)]
    one_NP, other_NP = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    norms_N = np.sqrt((one_NP**2).sum(1) * (other_NP**2).sum(1))
    return _known(one_NHW, other_NHW, (one_NP * other_NP).sum(1) / np.where(norms_N > 0, norms_N, 1))


def ssim(one_NHW: FloatArray, other_NHW: FloatArray) -> Numbers:
    """Structural similarity of each pair, (N,), in [-1, 1], with Wang's Gaussian window (sigma 1.5)."""
    from skimage.metrics import structural_similarity  # costs time to import

    found = [
        structural_similarity(one, other, data_range=1.0, gaussian_weights=True, use_sample_covariance=False)  # type: ignore[no-untyped-call]
        for one, other in zip(one_NHW, other_NHW, strict=True)
    ]
    return _known(one_NHW, other_NHW, np.array(found, np.float64))


def _known(one_NHW: FloatArray, other_NHW: FloatArray, values_N: Numbers) -> Numbers:
    shown_N = one_NHW.any((1, 2)) & other_NHW.any((1, 2))
    return np.where(shown_N, values_N, np.nan)


def mean_interval(values_N: Numbers) -> tuple[float | None, float | None, int]:
    """Mean of the known values, half the width of its 95 % interval (Student's t), and their number."""
    from scipy.stats import t  # costs time to import

    known = values_N[np.isfinite(values_N)]
    mean = float(known.mean()) if len(known) else None
    half = float(t.ppf(0.975, len(known) - 1) * known.std(ddof=1)) / len(known) ** 0.5 if len(known) > 1 else None
    return mean, half, len(known)
