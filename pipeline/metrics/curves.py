"""Insertion and deletion: the model's output while pixels are added or removed in the order of the map.

Legend: B rows, M maps, S + 1 points of a curve, n pixels of an image.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.cams.region import Rise
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import Ranked, Removed, View
from pipeline.model.baselines import Baseline

Steps = Annotated[int, Field(ge=2)]
Reading = Literal["probability", "logit"]


@dataclass(frozen=True, config=STRICT)
class _Curve(ReadsMap):
    """Shared part of insertion and deletion."""

    steps: Steps = 20
    fill: Baseline = "mean"
    score: Reading = "probability"

    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability or logit"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"rise": {"steps": 224}}
    paper: ClassVar[Paper] = Rise.paper
    show: ClassVar[Literal["inserted", "deleted"]] = "deleted"

    def views(self) -> tuple[View, ...]:
        """Return the inner points of the curve, per map, and the removed image, which all maps share."""
        return Ranked(self.show, self.steps, self.fill), Removed(self.fill)

    def points(self, batch: ScoringBatch) -> Tensor:
        """Compute the curve, (B, M, S + 1), after 0, 1 .. S steps; its ends are the clean and the removed image."""
        inner_BMS, removed_B11 = (batch.scores(view).of(self.score) for view in self.views())
        evidence = batch.evidence
        clean_B = evidence.target_confidences_B if self.score == "probability" else evidence.target_logits_B
        clean_BM1 = clean_B[:, None, None].expand_as(inner_BMS[..., :1])
        removed_BM1 = removed_B11.expand_as(clean_BM1)
        ends = (removed_BM1, clean_BM1) if self.show == "inserted" else (clean_BM1, removed_BM1)
        return torch.cat([ends[0], inner_BMS, ends[1]], 2)


@dataclass(frozen=True, config=STRICT)
class Insertion(_Curve):
    """Area under the confidence curve while pixels are inserted into a blurred image, most relevant first.

    insertion = (c_0 / 2 + c_1 + ... + c_S-1 + c_S / 2) / S

    c_k is the target's confidence (or logit) when the first round(k n / S) of the n pixels of the image, in order of
    falling E, are inserted into the fill. Tied pixels are in raster order, so with a degenerate map pixels are inserted
    line by line. Higher is better; in [0, 1] for a probability. If the output never changes, the area equals it.

    Parameters:
        steps: S; 20 as in torch-cam.
        fill: the initial image: blur (51 px, sigma 50), rise_blur (11 px, sigma 5, as in RISE), mean (zero in
            normalised space) or black.
        score: c_k is the softmax probability or the logit.

    Presets: rise is RISE's protocol at 224 px (224 pixels per step, its blur); torch_cam starts from zero and uses
    logits.
    """

    fill: Baseline = "blur"

    name: ClassVar[str] = "insertion"
    unit: ClassVar[str] = "mean confidence, [0, 1]; mean logit where logits are read"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    show: ClassVar[Literal["inserted", "deleted"]] = "inserted"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "rise": {"steps": 224, "fill": "rise_blur"},
        "torch_cam": {"steps": 20, "fill": "mean", "score": "logit"},
    }

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the area of each row and map, (B, M)."""
        return area(self.points(batch))


@dataclass(frozen=True, config=STRICT)
class Deletion(_Curve):
    """Area under the confidence curve while pixels are removed from the image, most relevant first.

    deletion = (c_0 / 2 + c_1 + ... + c_S-1 + c_S / 2) / S

    c_k is the target's confidence (or logit) when the first round(k n / S) of the n pixels of the image, in order of
    falling E, are replaced by the fill. Tied pixels are in raster order. Lower is better; in [0, 1] for a probability.

    Parameters:
        steps: S; 20 as in torch-cam.
        fill: values that replace pixels: mean (zero in normalised space, as in RISE), black, blur or rise_blur.
        score: c_k is the softmax probability or the logit.

    Presets: rise is RISE's protocol at 224 px (224 pixels per step); torch_cam uses logits.
    """

    name: ClassVar[str] = "deletion"
    unit: ClassVar[str] = "mean confidence, [0, 1]; mean logit where logits are read"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "rise": {"steps": 224},
        "torch_cam": {"steps": 20, "score": "logit"},
    }

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the area of each row and map, (B, M)."""
        return area(self.points(batch))


@dataclass(frozen=True, config=STRICT)
class InsertionCurve(Insertion):
    """The curve whose area is insertion: the target's confidence (or logit) after 0, 1 .. S steps.

    The column is a list of S + 1 numbers. No extra passes are needed next to insertion with the same parameters.
    Parameters and presets are those of insertion.
    """

    name: ClassVar[str] = "insertion_curve"
    curve: ClassVar[bool] = True

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the curve of each row and map, (B, M, S + 1)."""
        return self.points(batch)

    def length(self) -> int:
        """Return the number of points of the curve."""
        return self.steps + 1


@dataclass(frozen=True, config=STRICT)
class DeletionCurve(Deletion):
    """The curve whose area is deletion: the target's confidence (or logit) after 0, 1 .. S steps.

    The column is a list of S + 1 numbers. No extra passes are needed next to deletion with the same parameters.
    Parameters and presets are those of deletion.
    """

    name: ClassVar[str] = "deletion_curve"
    curve: ClassVar[bool] = True

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the curve of each row and map, (B, M, S + 1)."""
        return self.points(batch)

    def length(self) -> int:
        """Return the number of points of the curve."""
        return self.steps + 1


def area(curve_BMS: Tensor) -> Tensor:
    """Compute the area under a curve over [0, 1] by the trapezoid rule, (B, M)."""
    ends_BM = (curve_BMS[..., 0] + curve_BMS[..., -1]) / 2
    return (curve_BMS[..., 1:-1].sum(2) + ends_BM) / (curve_BMS.shape[2] - 1)
