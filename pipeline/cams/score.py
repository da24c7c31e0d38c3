"""Methods that weigh each channel by what the model says when only that channel's region is shown.

Legend: B images, K channels, S scales, (u, v) grid, (H, W) pixels; Up bilinear enlargement to (H, W), mm min-max to
[0, 1]; p softmax probability and S logit of the target class.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, LayerShape, Needs, Paper, weighted_sum
from pipeline.heatmaps import is_degenerate
from pipeline.model.probe import Evidence, Probe
from pipeline.model.scorer import MaskRule, MaskStream

Read = Literal["probability", "logit"]
Schedule = Literal["cumulative", "recurrence", "linear"]


@dataclass(frozen=True, config=STRICT)
class ScoreCam:
    """Score-CAM: a channel counts as much as the target's confidence when the image is seen through that channel.

    M = ReLU( sum_k w_k A_k ),   w_k = p(x * H_k),   H_k = mm(Up(A_k))

    The score of the removed image is a constant and dropped, as by the authors. A constant channel gives no mask and
    has weight 0. The sum is taken, and rectified, at grid resolution.

    Parameters:
        score: read the probability (authors) or the logit.
        channel_softmax: softmax over channels of the scores ("v2" of the paper's text; other libraries).
        masks: upsample_first enlarges and then normalises a channel (authors); normalise_first the other way round.
        align_corners: how grid corners meet image corners in Up.
        skip_constant: give constant channels weight 0 (authors); False scores them as an empty mask.

    Presets: authors, v2, pytorch_grad_cam, torchcam (those libraries' variants).
    """

    score: Read = "probability"
    channel_softmax: bool = False
    masks: MaskRule = "upsample_first"
    align_corners: bool = False
    skip_constant: bool = True

    name: ClassVar[str] = "scorecam"
    needs: ClassVar[Needs] = Needs(gradients=False)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "authors": {},
        "v2": {"channel_softmax": True},
        "pytorch_grad_cam": {
            "score": "logit", "channel_softmax": True, "align_corners": True, "skip_constant": False
        },
        "torchcam": {
            "score": "logit", "channel_softmax": True, "masks": "normalise_first", "skip_constant": False
        },
    }  # fmt: skip
    paper: ClassVar[Paper] = Paper(
        "Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu",
        "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks",
        "CVPR Workshops", 2020, "arXiv 1910.01279",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        return weighted_sum(_channel_weights(self, evidence, probe, (1.0,)), evidence.acts_BKuv)

    def cost(self, shape: LayerShape) -> Cost:
        """One masked forward per channel that is not constant."""
        return Cost(forwards=shape.channels)


@dataclass(frozen=True, config=STRICT)
class IsCam:
    """IS-CAM: Score-CAM with each channel's score averaged over masks of growing strength.

    M = ReLU( sum_k w_k A_k ),   w_k = (1/N) sum_i C(c_i x * H_k),   H_k = mm(Up(A_k)),   i = 1..N

    C reads the target's probability. The strengths c_i follow the schedule:

        cumulative   c_i = i (i + 1) / (2 N)    the recurrence M_i = M_{i-1} + x * H_k * i/N, as in the code the first
                                               author reviewed; N = 10 gives .1 .3 .6 1 1.5 2.1 2.8 3.6 4.5 5.5
        recurrence   c_i = i (i - 1) / (2 N)    the same recurrence read literally from M_1 = 0
        linear       c_i = i / N                 a straight line from the empty to the masked image

    The first two amplify the masked image far beyond its range; linear is the actual integral. A constant channel
    has weight 0. With N = 1, cumulative and linear are Score-CAM.

    Parameters:
        num_steps: N; the authors use 10.
        schedule: as above.
        score, channel_softmax, masks, align_corners, skip_constant: as in Score-CAM.
    """

    num_steps: Annotated[int, Field(ge=1)] = 10
    schedule: Schedule = "cumulative"
    score: Read = "probability"
    channel_softmax: bool = False
    masks: MaskRule = "upsample_first"
    align_corners: bool = False
    skip_constant: bool = True

    name: ClassVar[str] = "iscam"
    needs: ClassVar[Needs] = Needs(gradients=False)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "torchcam": {
            "score": "logit", "channel_softmax": True, "masks": "normalise_first", "skip_constant": False
        }
    }  # fmt: skip
    paper: ClassVar[Paper] = Paper(
        "Naidu, Ghosh, Maurya, Nayak K, Kundu",
        "IS-CAM: Integrated Score-CAM for axiomatic-based explanations",
        "arXiv", 2020, "arXiv 2010.03023",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        scales = strengths(self.num_steps, self.schedule)
        return weighted_sum(_channel_weights(self, evidence, probe, scales), evidence.acts_BKuv)

    def cost(self, shape: LayerShape) -> Cost:
        """N masked forwards per channel that is not constant."""
        return Cost(forwards=shape.channels * self.num_steps)


def strengths(num_steps: int, schedule: Schedule) -> tuple[float, ...]:
    """The coefficients c_1 .. c_N of IS-CAM's masked images."""
    if schedule == "linear":
        return tuple(i / num_steps for i in range(1, num_steps + 1))
    shift = 1 if schedule == "cumulative" else -1
    return tuple(i * (i + shift) / (2 * num_steps) for i in range(1, num_steps + 1))


def _channel_weights(method: ScoreCam | IsCam, evidence: Evidence, probe: Probe, scales: tuple[float, ...]) -> Tensor:
    """Weight of each channel, (B, K): its mean score over the scales; 0 for channels that are skipped."""
    acts_BKuv = evidence.acts_BKuv
    skip_BK = is_degenerate(acts_BKuv) & method.skip_constant
    masks = MaskStream(acts_BKuv, method.masks, scales, method.align_corners, keep_BM=~skip_BK)
    scores = probe.scorer.scores(evidence.pixels_BCHW, masks, evidence.targets_B)
    scores_BK = (scores.confidences_BMS if method.score == "probability" else scores.logits_BMS).mean(2)
    if method.channel_softmax:
        scores_BK = scores_BK.masked_fill(skip_BK, -torch.inf).softmax(1)
    return scores_BK.masked_fill(skip_BK, 0.0)
