"""Metrics of robustness: stability of the map under small changes, and how well it predicts changes of the logit.

Legend: B rows, M maps, S samples, C colours, (H, W) pixels. E(x) heat map of image x in [0, 1].
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Draws, Paper
from pipeline.metrics.base import ReadsMap, Redrawn
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import Perturbation, Perturbed, View
from pipeline.model import noise
from pipeline.model.baselines import Baseline

YEH = Paper(
    "Yeh, Hsieh, Suggala, Inouye, Ravikumar", "On the (In)fidelity and Sensitivity of Explanations",
    "NeurIPS", 2019, "arXiv 1901.09392",
)  # fmt: skip
Samples = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, config=STRICT)
class Infidelity(ReadsMap, Draws):
    """Mean squared error of the map as a predictor of how perturbations of the image change the target logit.

    infidelity = mean over I of ( b <I, E> - (f(x) - f(x - I)) )^2,   <I, E> = sum over colours and pixels of I E
    b = sum <I, E> (f(x) - f(x - I)) / sum <I, E>^2, the least-squares factor;  b = 1 without `scale`

    f is the target logit on the image x; the map E is the same for all colours. Lower is better, >= 0, in squared
    logits. Values compare methods on the same model and image, but not models. A degenerate map predicts no change: its
    value is the mean of (f(x) - f(x - I))^2.

    Parameters:
        perturbation: square replaces one random square by the fill; gaussian adds noise; noisy_baseline replaces the
            image by the fill plus noise.
        samples: number of perturbations I, shared by all methods and targets of an image.
        sigma: standard deviation of the noise, in normalised units.
        side: side of the square, as a fraction of the image's shorter side.
        fill: pixel values of the square, or of the noisy baseline.
        scale: use the least-squares b, since heat maps have no unit.

    The preset captum uses captum's setting: 10 samples, b = 1.
    """

    perturbation: Perturbation = "square"
    samples: Samples = 10
    sigma: Annotated[float, Field(ge=0)] = 0.2
    side: Annotated[float, Field(gt=0, le=1)] = 0.25
    fill: Baseline = "mean"
    scale: bool = True

    name: ClassVar[str] = "infidelity"
    unit: ClassVar[str] = "squared logit, >= 0"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "logit"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"captum": {"samples": 10, "scale": False}}
    paper: ClassVar[Paper] = YEH

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the mean squared error of each row and map, (B, M)."""
        logits_BS = batch.scores(self._view()).logits_BMS[:, 0]
        change_B1S = (batch.evidence.target_logits_B[:, None] - logits_BS).double()[:, None]
        predicted_BMS = torch.stack([self._predicted(batch, step) for step in range(self.samples)], 2)
        if self.scale:
            strength_BM1 = (predicted_BMS**2).sum(2, keepdim=True)
            best_BM1 = (predicted_BMS * change_B1S).sum(2, keepdim=True) / strength_BM1.clamp_min(1e-300)
            predicted_BMS = predicted_BMS * best_BM1
        return ((predicted_BMS - change_B1S) ** 2).mean(2).float()

    def views(self) -> tuple[View, ...]:
        """Return the perturbed images, which all maps and targets share."""
        return (self._view(),)

    def _view(self) -> Perturbed:
        return Perturbed(self.perturbation, self.samples, self.sigma, self.side, self.fill)

    def _predicted(self, batch: ScoringBatch, step: int) -> Tensor:
        """Compute <I, E> of one perturbation for every row and map, (B, M)."""
        rows_B = torch.arange(len(batch.evidence.keys), device=batch.evidence.targets_B.device)
        change_BHW = self._view().change(batch, rows_B, torch.full_like(rows_B, step)).sum(1).double()
        return torch.einsum("bhw,bmhw->bm", change_BHW, batch.heatmaps_BMHW.double())


@dataclass(frozen=True, config=STRICT)
class MaxSensitivity(ReadsMap, Draws):
    """Largest relative change of the map when the image is changed imperceptibly.

    max_sensitivity = max over d of ||E(x + d) - E(x)|| / ||E(x)||,   d uniform in [-radius, radius] for every value

    E(x + d) is the same method's map of the changed image, for the same class; all methods use the same changed images.
    The norm is Euclidean over pixels; ||E(x)|| is taken as 1 where E(x) is degenerate. >= 0, lower is better. Because d
    is sampled, the value is a lower bound of the paper's.

    Parameters:
        radius: in normalised units; 0.02 as in captum.
        samples: number of changed images.
    """

    radius: Annotated[float, Field(gt=0)] = 0.02
    samples: Samples = 10

    name: ClassVar[str] = "max_sensitivity"
    unit: ClassVar[str] = "share of the map's norm, >= 0"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    paper: ClassVar[Paper] = YEH

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the largest change of each row and map, (B, M)."""
        maps = range(batch.heatmaps_BMHW.shape[1])
        norms_BM = batch.heatmaps_BMHW.flatten(2).norm(dim=2)
        largest_BM = torch.zeros_like(norms_BM)
        for step in range(self.samples):
            changed_BMHW = batch.redrawn(batch.evidence.pixels_BCHW + self._jitter(batch, step), maps)
            largest_BM = largest_BM.maximum((changed_BMHW - batch.heatmaps_BMHW).flatten(2).norm(dim=2))
        return largest_BM / torch.where(norms_BM > 0, norms_BM, 1.0)

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return the maps of all methods on the same changed images."""
        return (Redrawn(f"jittered by {self.radius}", self.samples, shared=True),)

    def _jitter(self, batch: ScoringBatch, step: int) -> Tensor:
        pixels_BCHW = batch.evidence.pixels_BCHW
        shape, purpose = tuple(pixels_BCHW.shape[1:]), f"max_sensitivity {step}"
        drawn_BCHW = noise.uniform(batch.probe.seed, batch.evidence.keys, purpose, shape, pixels_BCHW.device)
        return (2 * drawn_BCHW - 1) * self.radius
