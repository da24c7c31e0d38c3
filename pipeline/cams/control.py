"""A control method with uninformative maps: a baseline for every metric.

Legend: B rows, (u, v) grid.
"""

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Needs, NoExtraPass, Paper
from pipeline.cams.weights import gradcam
from pipeline.model import noise
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class ShuffledGradCam(NoExtraPass):
    """Shuffled Grad-CAM: Grad-CAM's map with its cells in random order, as a control for metrics.

    M_i = G_s(i),   G the map of Grad-CAM, s a random permutation of its cells

    The histogram is that of Grad-CAM, but the positions carry no information. This is not an explanation: if a method
    is no better than this control on a metric, that metric shows nothing in favour of the method. s is drawn from the
    run's seed and the image's key.
    """

    name: ClassVar[str] = "shuffled_gradcam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    paper: ClassVar[Paper] = Paper("camatlas", "a control, defined here", "this project", 2026, "no publication")

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        cells_BZ = gradcam(evidence.acts_BKuv, evidence.grads_BKuv).flatten(1)
        orders = [torch.randperm(cells_BZ.shape[1], generator=self._generator(probe, key)) for key in evidence.keys]
        order_BZ = torch.stack(orders).to(cells_BZ.device)
        return cells_BZ.gather(1, order_BZ).view_as(evidence.acts_BKuv[:, 0])

    def _generator(self, probe: Probe, key: str) -> torch.Generator:
        return noise.generator(probe.seed, key, self.name)
