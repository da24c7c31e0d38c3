"""Increment-CAM: Grad-CAM corrected by what its channels restore of the target's confidence.

Legend: B rows (image, target), K channels, (u, v) grid, C colours, (H, W) pixels, (h, w) pixels of the small image.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, Paper, weighted_sum
from pipeline.cams.representatives import grouped_masks, masks_per_image, strongest
from pipeline.maps.heatmaps import is_degenerate, min_max
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe

Side = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class IncrementCam:
    """Increment-CAM (interpretation): Grad-CAM, raised or lowered by a Score-CAM of its weighted channels.

    phase 1   G_k = w_k A_k,   w_k = mean_ij g^k_ij,   L1 = ReLU( sum_k G_k )
    phase 2   X = image averaged down,   H_k = mm(Up(ReLU(G_k))),   s_k = p(R(X * H_k))
    phase 3   M = mm(L1) ReLU(1 + lam L2 / max |L2|),   L2 = sum_k (s_k - mean s) ReLU(G_k)       (merge = gate)
              M = mm(L1) + lam mm(L2),   L2 = ReLU( sum_k b_k G_k ),   b = softmax_k(s_k)         (merge = maps)
              M = ReLU( sum_k (w_k / sum |w| + lam b_k) A_k )                                     (merge = weights)

    A_k is the activation map of channel k, g^k its gradient of the target logit, p the target's softmax probability, mm
    min-max normalisation to [0, 1], Up bilinear upsampling to the size of X, and R to `phase2_size`.

    The abstract gives the three phases, the small image, the weighted sum, and the aim: fewer false activations. The
    rest is this project's reading, chosen among others on scenes with exact values (docs/readings.md). A gate raises
    the map where channels restore more confidence than the mean channel, and lowers it where they restore less. Added
    to the first phase, as in the other two ways, the second one changes next to nothing, whatever its weights. X is the
    image at half its size; at the size of the map, networks recognise nothing. Channels with constant ReLU(G_k) are
    skipped; if no channel is left, L2 and b are 0. With lam = 0 this is Grad-CAM after mm.

    The preset first_reading is this project's earlier reading: merge = maps, and X averaged down to the grid of the
    map, with masks upsampled after they are applied. The confidence of the empty image cancels in all three. The gate
    is divided by its largest magnitude, so where all scores are nearly equal, it follows their small differences.

    Parameters:
        lam: weight of phase 2.
        merge: gate, maps or weights, as above.
        shrink: factor by which X is smaller than the image; None averages it down to the grid of the map.
        score: s_k is the softmax probability or the logit.
        phase2_size: output size of R: input, grid (no upsampling), or (height, width).
        clusters: in phase 2, score this many groups of channels instead of each channel (approximate, as in Score-CAM).
        channels: in phase 2, score only this many channels, those with the largest |sum_ij g_ij A_ij| (approximate).
    """

    lam: Annotated[float, Field(ge=0)] = 1.0
    merge: Literal["gate", "maps", "weights"] = "gate"
    shrink: Annotated[int, Field(ge=1)] | None = 2
    score: Literal["probability", "logit"] = "probability"
    phase2_size: Literal["input", "grid"] | Annotated[tuple[Side, Side], Field(strict=False)] = "input"
    clusters: Annotated[int, Field(ge=1)] | None = None
    channels: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "increment_cam"
    interpretation: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"first_reading": {"merge": "maps", "shrink": None}}
    paper: ClassVar[Paper] = Paper(
        "Niaz, Soomro, Zia, Choi",
        "Increment-CAM: Incrementally-Weighted Class Activation Maps for Better Visual Explanations",
        "IEEE Access", 2024, "doi 10.1109/ACCESS.2024.3413859",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        weights_BK = evidence.grads_BKuv.mean((2, 3))
        positive_BKuv = (weights_BK[:, :, None, None] * evidence.acts_BKuv).relu()
        keep_BK = ~is_degenerate(positive_BKuv) & strongest(evidence, self.channels)
        scores_BK = self._scores(evidence, probe, positive_BKuv, keep_BK)
        first_Buv = weighted_sum(weights_BK, evidence.acts_BKuv)
        if self.merge == "gate":
            return min_max(first_Buv) * (1 + self.lam * _gate(scores_BK, keep_BK, positive_BKuv)).relu()
        boosts_BK = scores_BK.masked_fill(~keep_BK, -torch.inf).softmax(1).masked_fill(~keep_BK, 0.0)
        if self.merge == "weights":
            shares_BK = weights_BK / weights_BK.abs().sum(1, keepdim=True).clamp_min(1e-30)
            return weighted_sum(shares_BK + self.lam * boosts_BK, evidence.acts_BKuv)
        second_Buv = weighted_sum(boosts_BK * weights_BK, evidence.acts_BKuv)
        return min_max(first_Buv) + self.lam * min_max(second_Buv)

    @property
    def needs(self) -> Needs:
        """Return the needs: gradients, and confidences if the score is one."""
        return Needs(gradients=True, confidences=self.score == "probability")

    def cost(self, net: NetShape) -> Cost:
        """Count one masked forward pass per channel or cluster; channels with constant ReLU(G_k) need none."""
        return Cost(forwards=masks_per_image(net, self.clusters, self.channels))

    def _scores(self, evidence: Evidence, probe: Probe, positive_BKuv: Tensor, keep_BK: Tensor) -> Tensor:
        """Compute the scores s of phase 2, (B, K); not defined for channels that are skipped."""
        height, width = evidence.acts_BKuv.shape[2:] if self.shrink is None else self._small(evidence)
        small_BChw = functional.adaptive_avg_pool2d(evidence.pixels_BCHW, (height, width))
        masks = MaskStream(min_max(positive_BKuv), self._look(evidence), keep_IM=keep_BK)
        grouped = grouped_masks(masks, self.clusters)
        scores = grouped.of_channels(probe.scorer.scores(small_BChw, grouped.masks, evidence.targets_B))
        return (scores.confidences_BMS if self.score == "probability" else scores.logits_BMS)[..., 0]

    def _small(self, evidence: Evidence) -> tuple[int, int]:
        height, width = evidence.pixels_BCHW.shape[2:]
        return max(1, height // (self.shrink or 1)), max(1, width // (self.shrink or 1))

    def _look(self, evidence: Evidence) -> MaskLook:
        if self.shrink is None:
            return MaskLook(resize=self._size(evidence))
        return MaskLook("upsample_first", resize=self._size(evidence))

    def _size(self, evidence: Evidence) -> tuple[int, int] | None:
        if self.phase2_size == "grid":
            return None
        height, width = evidence.pixels_BCHW.shape[2:]
        return (height, width) if self.phase2_size == "input" else self.phase2_size


def _gate(scores_BK: Tensor, keep_BK: Tensor, positive_BKuv: Tensor) -> Tensor:
    """Sum the regions of the channels by how far their score is above the mean, in [-1, 1], (B, u, v)."""
    known_BK = scores_BK.double().masked_fill(~keep_BK, 0.0)  # so that the mean of equal scores is exact
    mean_B1 = known_BK.sum(1, keepdim=True) / keep_BK.sum(1, keepdim=True).clamp_min(1)
    above_BK = (known_BK - mean_B1).masked_fill(~keep_BK, 0.0)
    sum_Buv = (above_BK[:, :, None, None] * positive_BKuv).sum(1)
    largest_B11 = sum_Buv.abs().amax((1, 2), keepdim=True)
    return (sum_Buv / torch.where(largest_B11 > 0, largest_B11, 1.0)).float()
