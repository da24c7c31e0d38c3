"""Integrative CAM and Increment-CAM as first read: the steps of the first version, in its precision and order.

Their presets must give the same bits, so the masked passes are those of the engine. The slow implementations of both
readings are in `fusion.py` and `increment.py`.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe


def first_integrative_cam(evidence: Evidence) -> Tensor:
    """Sum Grad-CAM++ maps with a residual, weighted by rms(g) rms(A), from shallow to deep stages."""
    logits_B = evidence.target_logits_B.double()
    maps, scores = [], []
    for layer in evidence.layers:
        acts_BKuv, grads_BKuv = evidence.acts[layer].double(), evidence.grads[layer]
        steepness_B111 = torch.exp(logits_B).view(-1, 1, 1, 1)
        first_BKuv = steepness_B111 * grads_BKuv
        denominator_BKuv = 2 + grads_BKuv.double() * acts_BKuv.sum((2, 3), keepdim=True)
        usable_BKuv = (first_BKuv > 0) & (denominator_BKuv > 1e-8)
        alpha_BKuv = torch.where(usable_BKuv, 1 / torch.where(usable_BKuv, denominator_BKuv, 1.0), 0.0)
        weights_BK11 = (alpha_BKuv * first_BKuv.relu()).sum((2, 3), keepdim=True)
        residual_B = evidence.target_logits_B - (grads_BKuv.double() * evidence.acts[layer]).sum((1, 2, 3))
        map_Buv = (weights_BK11 * acts_BKuv).sum(1) + (residual_B / grads_BKuv[0, 0].numel()).view(-1, 1, 1)
        maps.append(_min_max(map_Buv.relu()).float())
        scores.append(_rms(grads_BKuv) * _rms(evidence.acts[layer]))
    scores_BL = torch.stack(scores, 1)
    shares_BL = scores_BL / scores_BL.sum(1, keepdim=True).clamp_min(1e-30)
    large_BLuv = torch.stack([_enlarged(map_Buv, maps[0].shape[1:]) for map_Buv in maps], 1)
    return (shares_BL[:, :, None, None] * large_BLuv).sum(1).float()


def first_increment_cam(evidence: Evidence, probe: Probe) -> Tensor:
    """Add to Grad-CAM its channels, weighted by the softmax of their confidences as masks of the smallest image."""
    weights_BK = evidence.grads_BKuv.mean((2, 3))
    maps_BKuv = weights_BK[:, :, None, None] * evidence.acts_BKuv
    positive_BKuv = maps_BKuv.relu()
    keep_BK = positive_BKuv.amax((2, 3)) > positive_BKuv.amin((2, 3))
    small_BCuv = adaptive_avg_pool2d(evidence.pixels_BCHW, positive_BKuv.shape[2:])
    height, width = evidence.pixels_BCHW.shape[2:]
    masks = MaskStream(_min_max(positive_BKuv), MaskLook(resize=(height, width)), keep_IM=keep_BK)
    confidences_BK = probe.scorer.scores(small_BCuv, masks, evidence.targets_B).confidences_BMS[..., 0]
    boosts_BK = confidences_BK.masked_fill(~keep_BK, -torch.inf).softmax(1).masked_fill(~keep_BK, 0.0)
    second_Buv = ((boosts_BK * weights_BK)[:, :, None, None] * evidence.acts_BKuv).sum(1).relu()
    return _min_max(maps_BKuv.sum(1).relu()) + 1.0 * _min_max(second_Buv)


def _rms(values_BKuv: Tensor) -> Tensor:
    return values_BKuv.double().square().mean((1, 2, 3)).sqrt()


def _enlarged(map_Buv: Tensor, size: torch.Size) -> Tensor:
    constant_B11 = map_Buv.amin((1, 2), keepdim=True) == map_Buv.amax((1, 2), keepdim=True)
    large_Buv = interpolate(map_Buv[:, None], size, mode="bilinear")[:, 0]
    return torch.where(constant_B11, map_Buv[:, :1, :1], large_Buv)


def _min_max(maps: Tensor) -> Tensor:
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    return torch.where(span == 0, 0.0, (maps - low) / torch.where(span == 0, 1.0, span))
