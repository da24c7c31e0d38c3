"""Methods that weight the channels of several layers by the model's output on the image masked by each channel.

The layers are the run's stages: the last layer of each resolution. The combined maps are stored at the grid of the
shallowest stage. Legend: B rows, K channels, (u, v) grid, (H, W) pixels; A activations, H_k = mm(Up(A_k)) at the size
of the image, p softmax probability of the target, mm min-max normalisation to [0, 1], Up bilinear upsampling.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, Paper, weighted_sum
from pipeline.maps.heatmaps import is_degenerate, min_max, upsample
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe

_BINS = 256
_CHANNELS_AT_ONCE = 64


@dataclass(frozen=True, config=STRICT)
class PolyCam:
    """Poly-CAM: Score-CAM at every stage, where each stage refines the map of the next deeper one.

    P_L = M_L,   P_l = LN(M_l) * Up(P_{l+1}),   M_l = ReLU( sum_k w_k A_k ),   deepest stage L first
    LN(M) = M / max(Up(Down(M)), 1e-12),   Down bilinear to the grid of P_{l+1}
    w_k = p(x * H_k)                                        (plus, PCAM+)
          ReLU( p(x) - p(x * (1 - H_k)) )                   (minus, PCAM-)
          ReLU( p(x * H_k) + p(x) - p(x * (1 - H_k)) )      (both, PCAM+-)

    A_k is the activation map of channel k of stage l; H_k = mm(Up(A_k)) is its mask at the size of the image x, with Up
    bilinear upsampling and mm min-max normalisation to [0, 1]; p is the target's softmax probability. Stages are the
    last layers of each resolution. Constant channels have weight 0. The map is P of the shallowest stage.

    Parameters:
        variant: plus, minus or both.
    """

    variant: Literal["plus", "minus", "both"] = "both"

    name: ClassVar[str] = "poly_cam"
    needs: ClassVar[Needs] = Needs(stages=True, confidences=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Englebert, Cornu, De Vleeschouwer", "Poly-CAM: High resolution class activation map for convolutional neural "
        "networks",
        "Machine Vision and Applications", 2024, "arXiv 2204.13359",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        deepest, *shallower = reversed(evidence.layers)
        joined_B1uv = self._layer_map(evidence, probe, deepest)
        for layer in shallower:
            joined_B1uv = _sharpened(joined_B1uv, self._layer_map(evidence, probe, layer))
        return joined_B1uv[:, 0]

    def cost(self, net: NetShape) -> Cost:
        """Count one masked forward pass per channel of every stage, two for `both`; constant channels need none."""
        channels = sum(stage.channels for stage in net.stages)
        return Cost(forwards=channels * (2 if self.variant == "both" else 1))

    def _layer_map(self, evidence: Evidence, probe: Probe, layer: str) -> Tensor:
        return weighted_sum(self._weights(evidence, probe, layer), evidence.acts[layer])[:, None]

    def _weights(self, evidence: Evidence, probe: Probe, layer: str) -> Tensor:
        acts_IKuv = evidence.acts[layer][evidence.first_rows()]
        clean_B1 = evidence.target_confidences_B[:, None]

        def confidences(*, complement: bool) -> Tensor:
            masks = MaskStream(
                acts_IKuv, MaskLook("upsample_first", complement=complement), keep_IM=~is_degenerate(acts_IKuv)
            )
            return probe.scorer.scores_of_rows(evidence, masks).confidences_BMS[..., 0]

        if self.variant == "plus":
            weights_BK = confidences(complement=False)
        elif self.variant == "minus":
            weights_BK = (clean_B1 - confidences(complement=True)).relu()
        else:
            weights_BK = (confidences(complement=False) + clean_B1 - confidences(complement=True)).relu()
        return weights_BK.nan_to_num(0.0)


def _sharpened(deep_B1uv: Tensor, map_B1uv: Tensor) -> Tensor:
    """Multiply the map of the deeper layers by the locally normalised map of this one."""
    local_B1uv = upsample(upsample(map_B1uv, _size(deep_B1uv)), _size(map_B1uv))
    return map_B1uv / local_B1uv.clamp_min(1e-12) * upsample(deep_B1uv, _size(map_B1uv))


@dataclass(frozen=True, config=STRICT)
class Sise:
    """SISE: RISE with the channels of every stage as masks, combined from shallow to deep.

    V_l = mm( sum_k p(x * H_k) H_k / sum H_k )   over channels with mean g_k > mu max_k mean g_k
    F = V_1;   F = mm( (F + V_l) * Otsu(V_l) )   for l = 2 .. L

    H_k = mm(Up(A_k)) is the mask of channel k at the size of the image x: its activation map, upsampled bilinearly and
    scaled to [0, 1] by mm. p is the target's softmax probability, g_k the gradient of the target logit, l the stage.
    Otsu(V) is 1 where V exceeds Otsu's threshold over 256 bins, else 0. Constant channels are skipped. V is computed at
    the size of the image and averaged to the grid of the shallowest stage, where the maps are combined. A stage without
    channels above the threshold gives zero.

    Parameters:
        mu: threshold on the mean gradient of a channel, as a fraction of the largest; 0 keeps all positive ones.
    """

    mu: Annotated[float, Field(ge=0, lt=1)] = 0.0

    name: ClassVar[str] = "sise"
    needs: ClassVar[Needs] = Needs(gradients=True, stages=True, confidences=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Sattarzadeh, Sudhakar, Lem, Mehryar, Plataniotis, Jang, Kim, Jeong, Lee, Bae",
        "Explaining Convolutional Neural Networks through Attribution-Based Input Sampling and Block-Wise Feature "
        "Aggregation",
        "AAAI", 2021, "arXiv 2010.00672",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), in [0, 1]."""
        finest = _size(evidence.acts[evidence.layers[0]])
        first_Buv, *deeper = [self._layer_map(evidence, probe, layer, finest) for layer in evidence.layers]
        for map_Buv in deeper:
            first_Buv = min_max((first_Buv + map_Buv) * (map_Buv > otsu(map_Buv)))
        return first_Buv

    def cost(self, net: NetShape) -> Cost:
        """Count one masked forward pass per channel of every stage, an upper bound."""
        return Cost(forwards=sum(stage.channels for stage in net.stages))

    def _layer_map(self, evidence: Evidence, probe: Probe, layer: str, finest: tuple[int, int]) -> Tensor:
        acts_BKuv, pixels_BCHW = evidence.acts[layer], evidence.pixels_BCHW
        slopes_BK = evidence.grads[layer].mean((2, 3))
        keep_BK = (slopes_BK > self.mu * slopes_BK.amax(1, keepdim=True)) & ~is_degenerate(acts_BKuv)
        if self.mu == 0:
            keep_BK = keep_BK & (slopes_BK > 0)
        masks = MaskStream(acts_BKuv, MaskLook("upsample_first"), keep_IM=keep_BK)
        confidences_BK = probe.scorer.scores(pixels_BCHW, masks, evidence.targets_B).confidences_BMS[..., 0]
        return min_max(_mask_mean(acts_BKuv, confidences_BK.nan_to_num(0.0), _size(pixels_BCHW), finest))


def _mask_mean(acts_BKuv: Tensor, confidences_BK: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Compute sum_k p_k H_k / sum H_k, averaged to a grid, (B, u, v), on a few channels at a time."""
    total_B1uv = acts_BKuv.new_zeros(len(acts_BKuv), 1, *grid)
    for start in range(0, acts_BKuv.shape[1], _CHANNELS_AT_ONCE):
        channels = slice(start, start + _CHANNELS_AT_ONCE)
        masks_BKHW = min_max(upsample(acts_BKuv[:, channels], size))
        shares_BK = confidences_BK[:, channels] / masks_BKHW.sum((2, 3)).clamp_min(1e-12)
        mixed_B1HW = (shares_BK[:, :, None, None] * masks_BKHW).sum(1, keepdim=True)
        total_B1uv = total_B1uv + functional.adaptive_avg_pool2d(mixed_B1HW, grid)
    return total_B1uv[:, 0]


def otsu(maps_Buv: Tensor) -> Tensor:
    """Compute Otsu's threshold of maps in [0, 1] over 256 bins, the upper edge of the best bin, (B, 1, 1)."""
    bins_BZ = (maps_Buv.flatten(1).double() * _BINS).long().clamp(0, _BINS - 1)
    counts_Bn = torch.zeros(len(maps_Buv), _BINS, dtype=torch.float64, device=maps_Buv.device)
    counts_Bn.scatter_add_(1, bins_BZ, torch.ones_like(bins_BZ, dtype=torch.float64))
    centres_n = (torch.arange(_BINS, device=maps_Buv.device).double() + 0.5) / _BINS
    below_Bn, mass_Bn = counts_Bn.cumsum(1), (counts_Bn * centres_n).cumsum(1)
    above_Bn, rest_Bn = below_Bn[:, -1:] - below_Bn, mass_Bn[:, -1:] - mass_Bn
    both_Bn = (below_Bn > 0) & (above_Bn > 0)
    distance_Bn = mass_Bn / below_Bn.clamp_min(1) - rest_Bn / above_Bn.clamp_min(1)
    between_Bn = torch.where(both_Bn, below_Bn * above_Bn * distance_Bn**2, 0.0)
    return ((between_Bn.argmax(1) + 1).to(maps_Buv) / _BINS).view(-1, 1, 1)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]
