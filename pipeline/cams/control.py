"""A control method with uninformative maps: a baseline for every metric.

Legend: B rows, (u, v) grid.
"""

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Draws, Needs, NoExtraPass, Paper
from pipeline.cams.weights import gradcam
from pipeline.model import noise
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.model.transfers import sent


@dataclass(frozen=True, config=STRICT)
class ShuffledGradCam(NoExtraPass, Draws):
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
        streams = [noise.Stream(probe.seed, key, self.name) for key in evidence.keys]
        orders_BZ = torch.stack([stream.permutation(cells_BZ.shape[1]) for stream in streams])
        return cells_BZ.gather(1, sent(orders_BZ, cells_BZ.device)).view_as(evidence.acts_BKuv[:, 0])
