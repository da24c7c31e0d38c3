"""Maps of one batch and their measures: methods and metrics on shared evidence.

Legend: B images, M methods, (H, W) pixels, (u, v) grid, N classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.cams import CamMethod
from pipeline.heatmaps import heatmaps, is_degenerate
from pipeline.metrics import Metric, Trial, Truth
from pipeline.model.counts import Counts
from pipeline.model.evidence import Evidence, Observation
from pipeline.model.probe import Probe


@dataclass(frozen=True)
class Explanations:
    """The maps of a batch and what they were made from.

    Attributes:
        maps: per method (B, u, v) float32 at grid resolution, raw: signed where the paper is, not normalised.
        degenerate: per method (B,) bool, True where the map is constant.
        evidence: the shared forward pass: logits, targets, activations, gradients.
        probe: the model that was asked; `evaluate` asks it again.
    """

    maps: Mapping[str, Tensor]
    degenerate: Mapping[str, Tensor]
    evidence: Evidence
    probe: Probe

    @property
    def logits(self) -> Tensor:
        """Pre-softmax outputs of the clean images, (B, N)."""
        return self.evidence.logits_BN

    @property
    def targets(self) -> Tensor:
        """Explained class of each image, (B,)."""
        return self.evidence.targets_B

    @property
    def counts(self) -> Counts:
        """Forwards, head passes and backwards so far, in images."""
        return self.probe.counts

    def heatmap(self, name: str, size: tuple[int, int] | None = None) -> Tensor:
        """Give one method's heat maps (B, H, W) in [0, 1], by default at the size of the images."""
        height, width = self.evidence.pixels_BCHW.shape[-2:]
        return heatmaps(self.maps[name][:, None], size or (height, width))[:, 0]


def observe(
    pixels_ICHW: Tensor, methods: Mapping[str, CamMethod], probe: Probe, keys: Sequence[str] | None = None
) -> Observation:
    """Run the one forward pass that the methods share, and keep what any of them needs."""
    needs = [method.needs for method in methods.values()]
    gradients, stages = any(need.gradients for need in needs), any(need.stages for need in needs)
    return probe.observe(pixels_ICHW, gradients=gradients, stages=stages, keys=keys)


def explain_evidence(evidence: Evidence, methods: Mapping[str, CamMethod], probe: Probe) -> Explanations:
    """Run methods on evidence that is there already."""
    with torch.inference_mode(False):
        maps = {label: method(evidence, probe) for label, method in methods.items()}
    return Explanations(maps, {label: is_degenerate(map_Buv) for label, map_Buv in maps.items()}, evidence, probe)


def measure(explanations: Explanations, metrics: Mapping[str, Metric], truth: Truth) -> dict[str, dict[str, Tensor]]:
    """Run metrics on explanations; the heat maps of all methods share every masked pass."""
    height, width = explanations.evidence.pixels_BCHW.shape[-2:]
    labels = list(explanations.maps)
    heatmaps_BMHW = torch.stack([explanations.heatmap(label, (height, width)) for label in labels], 1)
    trial = Trial(heatmaps_BMHW, explanations.evidence, truth, explanations.probe)
    found = {name: metric(trial).float() for name, metric in metrics.items()}
    return {name: {label: values_BM[:, i] for i, label in enumerate(labels)} for name, values_BM in found.items()}
