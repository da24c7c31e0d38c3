"""Methods that weight each channel by the model's output on the image masked by that channel.

Legend: B images, K channels, S scales, (u, v) grid, (H, W) pixels; Up bilinear upsampling to (H, W), mm min-max
normalisation to [0, 1]; p softmax probability of the target class.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Draws, Needs, NetShape, Paper, weighted_sum
from pipeline.cams.representatives import channel_scores, masks_per_image, of_images, strongest
from pipeline.maps.heatmaps import is_degenerate
from pipeline.model import noise
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskRule, MaskStream
from pipeline.model.probe import Probe
from pipeline.model.scorer import Scores

Read = Literal["probability", "logit"]
Schedule = Literal["cumulative", "recurrence", "linear"]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class ScoreCam:
    """Score-CAM: activation maps weighted by the target's confidence on the image masked by each channel.

    M = ReLU( sum_k w_k A_k ),   w_k = p(x * H_k),   H_k = mm(Up(A_k))

    A_k is the activation map of channel k, x the image, p the target's softmax probability. Up is bilinear upsampling
    to the image, mm min-max normalisation to [0, 1]. The paper subtracts the confidence of the baseline image from w_k;
    it is the same for all channels and is left out, as in the authors' code. A constant channel has no mask and weight
    0. The sum and the ReLU are computed at grid resolution.

    Parameters:
        score: w_k is a probability (authors) or a logit.
        channel_softmax: apply a softmax over channels to w_k ("v2" in the paper's text; other libraries).
        masks: upsample_first upsamples a channel, then normalises it (authors); normalise_first does the reverse.
        align_corners: the align_corners option of bilinear interpolation in Up.
        skip_constant: give constant channels weight 0 (authors); False scores them with an empty mask.
        clusters, channels: approximate with fewer passes, see below; None scores every channel.

    With `clusters: G`, the masks H_k are grouped by k-means at grid resolution. The model runs on the mean mask of each
    group, and the channels of a group share its score. With `channels: C`, only the C channels with the largest
    |sum_ij g_ij A_ij| (gradient times activation) are scored; the others have weight 0. Both are approximations of this
    project, not of the paper. Pearson correlation with the exact map, mean (and worst) over 100 photographs with
    MobileNetV2, which has 1,280 channels:
    clusters 64: 0.995 (0.906), 16: 0.987 (0.636); channels 256: 0.996 (0.940), 64: 0.984 (0.869); Grad-CAM 0.955.

    Presets: authors, v2, and the variants of the libraries pytorch_grad_cam and torchcam.
    """

    score: Read = "probability"
    channel_softmax: bool = False
    masks: MaskRule = "upsample_first"
    align_corners: bool = False
    skip_constant: bool = True
    clusters: Count | None = None
    channels: Count | None = None

    name: ClassVar[str] = "scorecam"
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

    def cost(self, net: NetShape) -> Cost:
        """Count one masked forward pass per channel or cluster of channels; constant channels need none."""
        return Cost(forwards=masks_per_image(net, self.clusters, self.channels))

    @property
    def needs(self) -> Needs:
        """Return the needs: gradients if they select the channels, confidences if the score is one."""
        return Needs(gradients=self.channels is not None, confidences=self.score == "probability")


@dataclass(frozen=True, config=STRICT)
class IsCam:
    """IS-CAM: Score-CAM with each channel's score averaged over masks of increasing strength.

    M = ReLU( sum_k w_k A_k ),   w_k = (1/N) sum_i C(c_i x * H_k),   H_k = mm(Up(A_k)),   i = 1..N

    A_k is the activation map of channel k and x the image; C gives the target's softmax probability; H_k is the mask of
    Score-CAM. The strengths c_i follow the schedule:

        cumulative   c_i = i (i + 1) / (2 N)    the recurrence M_i = M_{i-1} + x * H_k * i/N, as in the code that the
                                               first author reviewed; N = 10 gives .1 .3 .6 1 1.5 2.1 2.8 3.6 4.5 5.5
        recurrence   c_i = i (i - 1) / (2 N)    the same recurrence, literally from M_1 = 0
        linear       c_i = i / N                 a straight line from the empty to the masked image

    The first two amplify the masked image far beyond its range; linear is the actual integral. A constant channel
    has weight 0. With N = 1, cumulative and linear are Score-CAM.

    Parameters:
        num_steps: N; the authors use 10.
        schedule: cumulative, recurrence or linear, as above.
        score, channel_softmax, masks, align_corners, skip_constant, clusters, channels: as in Score-CAM.
    """

    num_steps: Annotated[int, Field(ge=1)] = 10
    schedule: Schedule = "cumulative"
    score: Read = "probability"
    channel_softmax: bool = False
    masks: MaskRule = "upsample_first"
    align_corners: bool = False
    skip_constant: bool = True
    clusters: Count | None = None
    channels: Count | None = None

    name: ClassVar[str] = "iscam"
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

    def cost(self, net: NetShape) -> Cost:
        """Count N masked forward passes per channel or cluster of channels; constant channels need none."""
        return Cost(forwards=masks_per_image(net, self.clusters, self.channels) * self.num_steps)

    @property
    def needs(self) -> Needs:
        """Return the needs: gradients if they select the channels, confidences if the score is one."""
        return Needs(gradients=self.channels is not None, confidences=self.score == "probability")


@dataclass(frozen=True, config=STRICT)
class SsCam(Draws):
    """SS-CAM: Score-CAM with each channel's score averaged over noise.

    M = ReLU( sum_k w_k A_k ),   w_k = (1/N) sum_n C(x * (H_k + s e_n))   (noise on the mask)
                                 w_k = (1/N) sum_n C(x * H_k + s e_n)     (noise on the input)

    A_k is the activation map of channel k and x the image; H_k = mm(Up(A_k)) is the mask of Score-CAM; C gives the
    target's softmax probability. e_n is standard normal noise at the image's size: one field for all colours on the
    mask, one field per colour on the input. All channels of an image share the same N fields, drawn from (run seed,
    image key, method). A constant channel has weight 0. With s = 0 this is Score-CAM.

    Parameters:
        samples: N.
        std: s, the standard deviation of the noise.
        noise_on: mask or input.
        score, channel_softmax, clusters, channels: as in Score-CAM.
    """

    samples: Annotated[int, Field(ge=1)] = 35
    std: Annotated[float, Field(ge=0)] = 2.0
    noise_on: Literal["mask", "input"] = "mask"
    score: Read = "probability"
    channel_softmax: bool = False
    clusters: Count | None = None
    channels: Count | None = None

    name: ClassVar[str] = "sscam"
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Wang, Naidu, Michael, Kundu", "SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization",
        "arXiv", 2020, "arXiv 2006.14255",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        per_image = [evidence.select(rows_R) for rows_R in evidence.rows.by_image()]
        return torch.cat([self._of_one_image(rows, probe) for rows in per_image])

    @property
    def draws(self) -> bool:
        """Whether it draws numbers: if there is noise."""
        return self.std > 0

    def cost(self, net: NetShape) -> Cost:
        """Count N masked forward passes per channel or cluster of channels; constant channels need none."""
        return Cost(forwards=masks_per_image(net, self.clusters, self.channels) * self.samples)

    @property
    def needs(self) -> Needs:
        """Return the needs: gradients if they select the channels, confidences if the score is one."""
        return Needs(gradients=self.channels is not None, confidences=self.score == "probability")

    def _of_one_image(self, evidence: Evidence, probe: Probe) -> Tensor:
        acts_1Kuv, pixels_BCHW = evidence.acts_BKuv[:1], evidence.pixels_BCHW
        shape = tuple(pixels_BCHW.shape[2:] if self.noise_on == "mask" else pixels_BCHW.shape[1:])
        device = pixels_BCHW.device
        fields = noise.normal(probe.seed, evidence.keys[:1], self.name, shape, self.samples, device)
        noise_S = self.std * torch.cat(list(fields))
        on_mask, kept_BK = self.noise_on == "mask", strongest(evidence, self.channels)
        masks = MaskStream(
            acts_1Kuv,
            MaskLook("upsample_first"),
            (1.0,) * self.samples,
            of_images(kept_BK, evidence) & ~is_degenerate(acts_1Kuv),
            mask_noise_SHW=noise_S if on_mask else None,
            pixel_noise_SCHW=None if on_mask else noise_S,
        )
        scores = channel_scores(evidence, probe, masks, self.clusters)
        return weighted_sum(_weights(self, scores, kept_BK), evidence.acts_BKuv)


def strengths(num_steps: int, schedule: Schedule) -> tuple[float, ...]:
    """Return the strengths c_1 .. c_N of IS-CAM's masked images."""
    if schedule == "linear":
        return tuple(i / num_steps for i in range(1, num_steps + 1))
    shift = 1 if schedule == "cumulative" else -1
    return tuple(i * (i + shift) / (2 * num_steps) for i in range(1, num_steps + 1))


def _channel_weights(method: ScoreCam | IsCam, evidence: Evidence, probe: Probe, scales: tuple[float, ...]) -> Tensor:
    """Compute the weight of each channel, (B, K): its mean score over the scales; 0 for skipped channels."""
    acts_IKuv = evidence.acts_BKuv[evidence.first_rows()]
    skip_IK = is_degenerate(acts_IKuv) & method.skip_constant
    kept_BK = strongest(evidence, method.channels)
    keep_IK = of_images(kept_BK, evidence) & ~skip_IK
    masks = MaskStream(acts_IKuv, MaskLook(method.masks, method.align_corners), scales, keep_IK)
    return _weights(method, channel_scores(evidence, probe, masks, method.clusters), kept_BK)


def _weights(method: ScoreCam | IsCam | SsCam, scores: Scores, kept_BK: Tensor) -> Tensor:
    """Average each channel's probability or logit over the scales, (B, K); 0 for channels that were not scored."""
    scores_BK = (scores.confidences_BMS if method.score == "probability" else scores.logits_BMS).mean(2)
    skip_BK = scores_BK.isnan() | ~kept_BK
    if method.channel_softmax:
        scores_BK = scores_BK.masked_fill(skip_BK, -torch.inf).softmax(1)
    return scores_BK.masked_fill(skip_BK, 0.0)
