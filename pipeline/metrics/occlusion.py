"""Agreement of the map with the drop of the output when windows of the image are painted over from their surroundings.

Legend: B rows, M maps, W windows, P changed images, C colours, (H, W) pixels in shapes of images. E heat map in [0, 1].
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.ranks import spearman
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import PaintedOver, View


@dataclass(frozen=True, config=STRICT)
class OcclusionAgreement(ReadsMap):
    """Agreement of the map with the drop of the output when windows of the image are painted over, one at a time.

    occlusion_agreement = ( sum_n min( e_n / sum e, d_n+ / sum d+ ) + rho(e, d) ) / 2
    d_n = f(x) - f(x without window n),   d_n+ = max(0, d_n),   e_n = mean of E over window n

    f is the target's logit on the image x, and rho Spearman's rank correlation. The windows are centred on the cells of
    a grid and two cells wide, clipped at the borders of the image. A window is painted over from its surroundings, by
    linear imputation as in ROAD, without noise: a smooth patch, which looks more like the data than a grey or blurred
    one. The first term is high if the map lies on the windows that matter and on no others, the second if it orders the
    windows as the drops do. In [-1/2, 1], higher is better. 0 for a degenerate map; NaN if no window lowers the output.

    All methods, and all targets of an image, share the passes, so that the metric costs the same for one method as for
    thirty. Where either of two parts suffices for the prediction, painting over one of them changes nothing, and the
    metric notices neither.

    Parameters:
        cells: cells along each side of the image; cells^2 windows.
        score: f is the logit or the softmax probability.
    """

    cells: Annotated[int, Field(ge=2)] = 8
    score: Literal["logit", "probability"] = "logit"

    name: ClassVar[str] = "occlusion_agreement"
    unit: ClassVar[str] = "mean of overlap and rank correlation, [-1/2, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability or logit"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper("camatlas", "defined here", "this project", 2026, "no publication")

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the agreement of each row and map, (B, M)."""
        clean_B = (
            batch.evidence.target_logits_B if self.score == "logit" else batch.evidence.target_confidences_B
        ).double()
        without_BW = batch.scores(self._view()).of(self.score)[:, 0].double()
        losses_B1W = (clean_B[:, None] - without_BW)[:, None]
        energies_BMW = self._view().means(batch)
        positive_B1W = losses_B1W.clamp_min(0)
        overlap_BM = torch.minimum(_shares(energies_BMW), _shares(positive_B1W)).sum(2)
        agreement_BM = (overlap_BM + spearman(energies_BMW.float(), losses_B1W)) / 2
        agreement_BM = agreement_BM.masked_fill(batch.degenerate_BM, 0.0)
        return agreement_BM.masked_fill(~(positive_B1W > 0).any(2), torch.nan).float()

    def views(self) -> tuple[View, ...]:
        """Return the images without each window, which all maps and targets share."""
        return (self._view(),)

    def _view(self) -> PaintedOver:
        return PaintedOver(self.cells)


def _shares(values: Tensor) -> Tensor:
    """Divide numbers >= 0 by their sum over the last dimension; 0 if all are 0."""
    total = values.sum(-1, keepdim=True)
    return torch.where(total > 0, values / total.clamp_min(1e-300), 0.0)
