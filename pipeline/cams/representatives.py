"""Fewer passes for methods that score channels: selection of important channels and grouping of similar ones.

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
    """Masks that each represent a group of channels.

    Attributes:
        masks: one mask per group, (I, G, u, v).
        group_IK: index of each channel's group.
        keep_IK: whether a channel is used; the group of other channels has no meaning.
    """

    masks: MaskStream
    group_IK: Tensor
    keep_IK: Tensor

    def of_channels(self, scores: Scores) -> Scores:
        """Assign each channel the scores of its group, (I, K, S); NaN for channels that are not kept."""
        group_IKS = self.group_IK[..., None].expand(-1, -1, scores.logits_BMS.shape[2])
        dropped_IK1 = ~self.keep_IK[..., None]
        return Scores(
            scores.logits_BMS.gather(1, group_IKS).masked_fill(dropped_IK1, torch.nan),
            scores.confidences_BMS.gather(1, group_IKS).masked_fill(dropped_IK1, torch.nan),
        )

    def of_rows(self, evidence: Evidence) -> "GroupedMasks":
        """Expand from images to rows: each row takes the groups of its image."""
        places_B = evidence.places()
        return replace(self, group_IK=self.group_IK[places_B], keep_IK=self.keep_IK[places_B])


def grouped_masks(masks: MaskStream, clusters: int | None) -> GroupedMasks:
    """Group the masks of each image into `clusters` representative masks; None keeps one mask per channel."""
    keep_IK = masks.kept()
    if clusters is None:
        identity_IK = torch.arange(keep_IK.shape[1], device=keep_IK.device).expand_as(keep_IK)
        return GroupedMasks(masks, identity_IK, keep_IK)
    centres_IGuv, group_IK = representatives(masks.small(), keep_IK, clusters)
    zeros_IG = torch.zeros(centres_IGuv.shape[:2], dtype=torch.int8, device=keep_IK.device)
    used_IG = zeros_IG.scatter_reduce(1, group_IK, keep_IK.char(), "amax") > 0
    return GroupedMasks(replace(masks, grids_IMuv=centres_IGuv, keep_IM=used_IG), group_IK, keep_IK)


def channel_scores(evidence: Evidence, probe: Probe, masks: MaskStream, clusters: int | None) -> Scores:
    """Score every row under the mask of each channel, or of its group, (B, K, S); NaN for channels that are not kept.

    Args:
        evidence: evidence of the rows; rows of one image are adjacent.
        probe: the model.
        masks: the channels' masks, (I, K, u, v).
        clusters: number of groups per image; None scores every channel.
    """
    grouped = grouped_masks(masks, clusters)
    return grouped.of_rows(evidence).of_channels(probe.scorer.scores_of_rows(evidence, grouped.masks))


def masks_per_image(net: NetShape, clusters: int | None, channels: int | None) -> int:
    """Return the largest number of masks that are scored per image."""
    used = net.target.channels if channels is None else min(channels, net.target.channels)
    return used if clusters is None else min(clusters, used)


def strongest(evidence: Evidence, channels: int | None) -> Tensor:
    """Select the channels with the largest first-order effect |sum_ij g_ij A_ij| on the logit, (B, K); None: all."""
    if channels is None:
        return torch.ones_like(evidence.acts_BKuv[:, :, 0, 0], dtype=torch.bool)
    effects_BK = (evidence.grads_BKuv * evidence.acts_BKuv).sum((2, 3)).abs()
    order_BK = effects_BK.sort(dim=1, descending=True, stable=True).indices
    kept_BK: Tensor = order_BK.argsort(dim=1) < channels
    return kept_BK


def of_images(kept_BK: Tensor, evidence: Evidence) -> Tensor:
    """Return which channels at least one row of each image keeps, (I, K)."""
    counts_IK = torch.zeros_like(kept_BK[evidence.first_rows()], dtype=torch.int32)  # int8 may overflow: many rows
    return counts_IK.index_add(0, evidence.places(), kept_BK.int()) > 0


def representatives(masks_IKuv: Tensor, keep_IK: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Group the kept masks of each image by k-means: centres (I, G, u, v) and the index of each mask's centre (I, K).

    Deterministic, for all images at once. The first centre is the mask farthest from the mean; each next one is the
    mask farthest from all centres so far. Ten rounds of k-means follow.
    """
    points_IKZ = masks_IKuv.flatten(2)
    centres_IGZ = _far_apart(points_IKZ, keep_IK, min(clusters, points_IKZ.shape[1]))
    for _ in range(_ROUNDS):
        members_IKG = functional.one_hot(_nearest(points_IKZ, centres_IGZ), centres_IGZ.shape[1]).to(points_IKZ)
        members_IKG = members_IKG * keep_IK[..., None]
        sizes_IG1 = members_IKG.sum(1)[..., None]
        means_IGZ = members_IKG.mT @ points_IKZ / sizes_IG1.clamp_min(1)
        centres_IGZ = torch.where(sizes_IG1 > 0, means_IGZ, centres_IGZ)
    return centres_IGZ.reshape(*centres_IGZ.shape[:2], *masks_IKuv.shape[2:]), _nearest(points_IKZ, centres_IGZ)


def _nearest(points_IKZ: Tensor, centres_IGZ: Tensor) -> Tensor:
    return torch.cdist(points_IKZ, centres_IGZ, compute_mode="donot_use_mm_for_euclid_dist").argmin(2)


def _far_apart(points_IKZ: Tensor, keep_IK: Tensor, count: int) -> Tensor:
    """Choose kept masks that are far from each other as initial centres, (I, G, Z)."""
    sizes_I11 = keep_IK.sum(1).clamp_min(1)[:, None, None]
    centre_I1Z = (points_IKZ * keep_IK[..., None]).sum(1, keepdim=True) / sizes_I11
    distance_IK = (points_IKZ - centre_I1Z).square().sum(2).masked_fill(~keep_IK, -1.0)
    chosen = list[Tensor]()
    for step in range(count):
        farthest_I1Z = distance_IK.argmax(1)[:, None, None].expand(-1, 1, points_IKZ.shape[2])
        chosen.append(points_IKZ.gather(1, farthest_I1Z))
        to_last_IK = (points_IKZ - chosen[-1]).square().sum(2).masked_fill(~keep_IK, -1.0)
        distance_IK = to_last_IK if step == 0 else torch.minimum(distance_IK, to_last_IK)
    return torch.cat(chosen, 1)
