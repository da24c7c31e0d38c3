"""Rank correlation of many rows at once.

Legend: any leading dimensions, R numbers of a row.
"""

import torch
from torch import Tensor


def spearman(one_R: Tensor, other_R: Tensor) -> Tensor:
    """Compute Spearman's rho of two rows of numbers (..., R), which are broadcast; 0 if one of them is constant.

    Equal numbers have the mean of their ranks.
    """
    ranks_R, other_ranks_R = _centred_ranks(one_R), _centred_ranks(other_R)
    spread = ranks_R.square().sum(-1) * other_ranks_R.square().sum(-1)
    rho = (ranks_R * other_ranks_R).sum(-1) / spread.sqrt().clamp_min(1e-300)
    return torch.where(spread > 0, rho, 0.0)


def _centred_ranks(values_R: Tensor) -> Tensor:
    """Rank numbers among those of their row, equal ones with their mean rank, and subtract the mean of all ranks."""
    above_R = (values_R[..., :, None] > values_R[..., None, :]).double().sum(-1)
    below_R = (values_R[..., :, None] < values_R[..., None, :]).double().sum(-1)
    return (above_R - below_R) / 2
