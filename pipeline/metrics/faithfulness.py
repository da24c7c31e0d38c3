"""Metrics of faithfulness: change of the target's confidence when the image is masked by the map.

Legend: B rows, M maps. E heat map in [0, 1]; Y = p(x) and O = p(x masked by E) softmax probabilities of the target.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.cams.gradient import GradCamPlusPlus
from pipeline.cams.region import OptiCam
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import Soft, TopPixels, View
from pipeline.model.baselines import Baseline

_TINY = 1e-12
MaskKind = Literal["soft", "top"]
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class _MaskedByMap(ReadsMap):
    """Shared part of the metrics that mask the image by the map."""

    fill: Baseline = "mean"
    mask: MaskKind = "soft"
    share: Share = 0.15

    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"sise": {"mask": "top", "share": 0.15}}
    paper: ClassVar[Paper] = GradCamPlusPlus.paper

    def views(self) -> tuple[View, ...]:
        """Return one masked image per map, the same for all metrics with these parameters."""
        return (Soft(self.fill) if self.mask == "soft" else TopPixels(self.share, self.fill),)

    def confidences(self, batch: ScoringBatch) -> tuple[Tensor, Tensor]:
        """Return the confidences Y (B, 1) and O (B, M)."""
        return batch.evidence.target_confidences_B[:, None], batch.scores(self.views()[0]).confidences_BMS[..., 0]


@dataclass(frozen=True, config=STRICT)
class AverageDrop(_MaskedByMap):
    """Relative drop of the target's confidence when the image is masked by the map.

    drop = max(0, Y - O) / Y,   Y = p(x),   O = p(x E + fill (1 - E));   0 where Y = 0

    x is the image, p the softmax probability of the target. In [0, 1], lower is better; the papers give the mean over
    images in per cent. Never above 1 - increase. A degenerate map hides the whole image, so its drop is that of the
    fill alone. Win rates of one method over another can be counted from these values in SQL.

    Parameters:
        fill: pixel values where E is 0: mean (zero in normalised space, as in all libraries), black, blur, rise_blur.
        mask: soft uses E itself; top replaces E by a binary mask, 1 on the pixels with the largest values.
        share: fraction of the pixels that top keeps.

    The preset sise is the mask of SISE and Integrated Grad-CAM: the top 15 % of the pixels.
    """

    name: ClassVar[str] = "average_drop"
    unit: ClassVar[str] = "share of the confidence, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the drop of each row and map, (B, M)."""
        clean_B1, masked_BM = self.confidences(batch)
        return (clean_B1 - masked_BM).clamp_min(0) / clean_B1.clamp_min(_TINY)


@dataclass(frozen=True, config=STRICT)
class Increase(_MaskedByMap):
    """Whether the target's confidence rises when the image is masked by the map.

    increase = 1 if O > Y else 0,   Y = p(x),   O = p(x E + fill (1 - E))

    x is the image, p the softmax probability of the target. 0 or 1, higher is better; the papers give the share of
    images with an increase in per cent.

    Parameters:
        fill, mask, share: as in average_drop, and so is the preset sise.
    """

    name: ClassVar[str] = "increase"
    unit: ClassVar[str] = "0 or 1"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute for each row and map, (B, M), whether the confidence rose."""
        clean_B1, masked_BM = self.confidences(batch)
        return (masked_BM > clean_B1).float().where(masked_BM.isfinite(), masked_BM)


@dataclass(frozen=True, config=STRICT)
class AverageGain(_MaskedByMap):
    """Gain of the target's confidence when the image is masked by the map, relative to the largest possible gain.

    gain = max(0, O - Y) / (1 - Y),   Y = p(x),   O = p(x E + fill (1 - E));   0 where Y = 1

    x is the image, p the softmax probability of the target. In [0, 1], higher is better. The counterpart of
    average_drop: it measures how much the confidence rises, where increase only records that it does.

    Parameters:
        fill, mask, share: as in average_drop, and so is the preset sise.
    """

    name: ClassVar[str] = "average_gain"
    unit: ClassVar[str] = "share of what is missing to 1, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = OptiCam.paper

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the gain of each row and map, (B, M)."""
        clean_B1, masked_BM = self.confidences(batch)
        return (masked_BM - clean_B1).clamp_min(0) / (1 - clean_B1).clamp_min(_TINY)
