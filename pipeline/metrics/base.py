"""What a metric is, and the passes that the metrics of one batch share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from pipeline.cams.base import Paper
from pipeline.model.baselines import Baseline
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.model.scorer import MaskStream, Scores


@dataclass(frozen=True)
class Truth:
    """What is known of the images of a batch: boxes of the explained class, (n, 4) as (x0, y0, x1, y1) in pixels of
    the model's input; None where there is none.
    """

    boxes_xyxy: Sequence[Tensor | None]


class Trial:
    """All heat maps of a batch on trial: one place for the masked passes that several metrics read.

    Legend: B images, M maps per image (one a method), (H, W) pixels.

    Attributes:
        heatmaps_BMHW: heat maps in [0, 1]; a degenerate map is all zero.
        evidence: the clean pass.
        truth: boxes of the explained class.
    """

    def __init__(self, heatmaps_BMHW: Tensor, evidence: Evidence, truth: Truth, probe: Probe) -> None:
        self.heatmaps_BMHW = heatmaps_BMHW
        self.evidence = evidence
        self.truth = truth
        self._probe = probe
        self._masked: dict[Baseline, Scores] = {}

    def masked(self, fill: Baseline) -> Scores:
        """What the model says of each image seen through each heat map; run once per fill."""
        if fill not in self._masked:
            masks = MaskStream(self.heatmaps_BMHW, fill=fill)
            pixels_BCHW, targets_B = self.evidence.pixels_BCHW, self.evidence.targets_B
            self._masked[fill] = self._probe.scorer.scores(pixels_BCHW, masks, targets_B)
        return self._masked[fill]

    def inside_BHW(self) -> Tensor:
        """Pixels whose centre lies in a box of the image; all False where there is no box."""
        height, width = self.heatmaps_BMHW.shape[-2:]
        device = self.heatmaps_BMHW.device
        masks = [box_mask(boxes, height, width) for boxes in self.truth.boxes_xyxy]
        return torch.stack(masks).to(device) if masks else torch.empty(0, height, width, device=device)


class Metric(Protocol):
    """A frozen dataclass whose fields are its parameters; its docstring is its definition."""

    name: ClassVar[str]
    paper: ClassVar[Paper]
    unit: ClassVar[str]
    better: ClassVar[Literal["higher", "lower"]]
    reads: ClassVar[Literal["probability", "logit", "map"]]
    presets: ClassVar[dict[str, dict[str, Any]]]

    def __call__(self, trial: Trial) -> Tensor:
        """Compute one value per image and map, (B, M) float32; NaN where the metric does not apply."""
        ...

    def passes(self) -> frozenset[str]:
        """Name the masked passes per map that the metric reads; those of one name are shared."""
        ...


def box_mask(boxes_xyxy: Tensor | None, height: int, width: int) -> Tensor:
    """Mark the pixels whose centre lies in any box; a box smaller than a pixel marks the pixel it lies in."""
    mask_HW = torch.zeros(height, width, dtype=torch.bool)
    for x0, y0, x1, y1 in [] if boxes_xyxy is None else boxes_xyxy.tolist():
        rows, columns = _span(y0, y1, height), _span(x0, x1, width)
        mask_HW[rows, columns] = True
    return mask_HW


def _span(low: float, high: float, length: int) -> slice:
    """Pixel indices i with low <= i + 1/2 <= high, at least one."""
    first, last = int(-(-(low - 0.5) // 1)), int((high - 0.5) // 1)
    if last < first:
        first = last = int((low + high) / 2)
    return slice(max(0, min(first, length - 1)), max(0, min(last, length - 1)) + 1)
