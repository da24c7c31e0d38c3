"""Fewer passes for methods that score channels: channels that matter, and one mask for channels that look alike.

Legend: I images, B rows (image, target), K channels, G groups of channels, S scales, (u, v) grid, Z = u v cells.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.cams.base import NetShape
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskStream
from pipeline.model.probe import Probe
from pipeline.model.scorer import Scores

_ROUNDS = 10


@dataclass(frozen=True)
class GroupedMasks:
    """Masks that stand for groups of channels.

    Attributes:
        masks: one mask a group, (I, G, u, v).
        group_IK: the group of each channel.
        keep_IK: channels that belong to a group.
    """

    masks: MaskStream
    group_IK: Tensor
    keep_IK: Tensor

    def of_channels(self, scores: Scores) -> Scores:
        """Give each channel the answer of its group, (I, K, S); NaN for channels without one."""
        group_IKS = self.group_IK[..., None].expand(-1, -1, scores.logits_BMS.shape[2])
        dropped_IK1 = ~self.keep_IK[..., None]
        return Scores(
            scores.logits_BMS.gather(1, group_IKS).masked_fill(dropped_IK1, torch.nan),
            scores.confidences_BMS.gather(1, group_IKS).masked_fill(dropped_IK1, torch.nan),
        )

    def of_rows(self, evidence: Evidence) -> "GroupedMasks":
        """Take the groups of each row's image."""
        places_B = evidence.places()
        return replace(self, group_IK=self.group_IK[places_B], keep_IK=self.keep_IK[places_B])


def grouped_masks(masks: MaskStream, clusters: int | None) -> GroupedMasks:
    """Let `clusters` masks an image stand for those of all channels; None lets every channel stand for itself."""
    keep_IK = masks.kept()
    if clusters is None:
        own_IK = torch.arange(keep_IK.shape[1], device=keep_IK.device).expand_as(keep_IK)
        return GroupedMasks(masks, own_IK, keep_IK)
    centres_IGuv, group_IK = representatives(masks.small(), keep_IK, clusters)
    nothing_IG = torch.zeros(centres_IGuv.shape[:2], dtype=torch.int8, device=keep_IK.device)
    used_IG = nothing_IG.scatter_reduce(1, group_IK, keep_IK.char(), "amax") > 0
    return GroupedMasks(replace(masks, grids_IMuv=centres_IGuv, keep_IM=used_IG), group_IK, keep_IK)


def channel_scores(evidence: Evidence, probe: Probe, masks: MaskStream, clusters: int | None) -> Scores:
    """Score every row under the mask of each channel, or of its group, (B, K, S); NaN for channels that are not kept.

    Args:
        evidence: rows; those of one image stand together.
        probe: the model.
        masks: the channels' masks, (I, K, u, v).
        clusters: number of groups; None asks about every channel.
    """
    grouped = grouped_masks(masks, clusters)
    return grouped.of_rows(evidence).of_channels(probe.scorer.scores_of_rows(evidence, grouped.masks))


def fewest(net: NetShape, clusters: int | None, channels: int | None) -> int:
    """Masks of an image that are asked about at most."""
    asked = net.target.channels if channels is None else min(channels, net.target.channels)
    return asked if clusters is None else min(clusters, asked)


def strongest(evidence: Evidence, channels: int | None) -> Tensor:
    """Tell which channels move each row's logit most at first order, |sum_ij g_ij A_ij|, (B, K); None keeps all."""
    if channels is None:
        return torch.ones_like(evidence.acts_BKuv[:, :, 0, 0], dtype=torch.bool)
    moved_BK = (evidence.grads_BKuv * evidence.acts_BKuv).sum((2, 3)).abs()
    order_BK = moved_BK.sort(dim=1, descending=True, stable=True).indices
    kept_BK: Tensor = order_BK.argsort(dim=1) < channels
    return kept_BK


def of_images(kept_BK: Tensor, evidence: Evidence) -> Tensor:
    """Tell which channels any row of an image keeps, (I, K)."""
    nothing_IK = torch.zeros_like(kept_BK[evidence.first_rows()], dtype=torch.int32)  # an image may have many rows
    return nothing_IK.index_add(0, evidence.places(), kept_BK.int()) > 0


def representatives(masks_IKuv: Tensor, keep_IK: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Group the kept masks of each image by k-means: centres (I, G, u, v), and the centre of each mask (I, K).

    All images at once and without random numbers: the first centre is the mask farthest from the mean, each next one
    the mask farthest from all centres so far; then ten rounds of means.
    """
    points_IKZ = masks_IKuv.flatten(2)
    centres_IGZ = _far_apart(points_IKZ, keep_IK, min(clusters, points_IKZ.shape[1]))
    for _ in range(_ROUNDS):
        shares_IKG = functional.one_hot(_nearest(points_IKZ, centres_IGZ), centres_IGZ.shape[1]).to(points_IKZ)
        shares_IKG = shares_IKG * keep_IK[..., None]
        sizes_IG1 = shares_IKG.sum(1)[..., None]
        means_IGZ = shares_IKG.mT @ points_IKZ / sizes_IG1.clamp_min(1)
        centres_IGZ = torch.where(sizes_IG1 > 0, means_IGZ, centres_IGZ)
    return centres_IGZ.reshape(*centres_IGZ.shape[:2], *masks_IKuv.shape[2:]), _nearest(points_IKZ, centres_IGZ)


def _nearest(points_IKZ: Tensor, centres_IGZ: Tensor) -> Tensor:
    return torch.cdist(points_IKZ, centres_IGZ, compute_mode="donot_use_mm_for_euclid_dist").argmin(2)


def _far_apart(points_IKZ: Tensor, keep_IK: Tensor, count: int) -> Tensor:
    """Kept masks that are far from each other, (I, G, Z)."""
    sizes_I11 = keep_IK.sum(1).clamp_min(1)[:, None, None]
    centre_I1Z = (points_IKZ * keep_IK[..., None]).sum(1, keepdim=True) / sizes_I11
    distance_IK = (points_IKZ - centre_I1Z).square().sum(2).masked_fill(~keep_IK, -1.0)
    chosen = list[Tensor]()
    for turn in range(count):
        farthest_I1Z = distance_IK.argmax(1)[:, None, None].expand(-1, 1, points_IKZ.shape[2])
        chosen.append(points_IKZ.gather(1, farthest_I1Z))
        own_IK = (points_IKZ - chosen[-1]).square().sum(2).masked_fill(~keep_IK, -1.0)
        distance_IK = own_IK if turn == 0 else torch.minimum(distance_IK, own_IK)
    return torch.cat(chosen, 1)
