"""Maps of one batch and their measures: methods and metrics on shared evidence.

Legend: B images, M methods, (H, W) pixels, (u, v) grid, N classes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.cams import CamMethod
from pipeline.maps.heatmaps import heatmaps, is_degenerate
from pipeline.metrics import Metric, Redraw, ScoringBatch, Truth
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
        methods: what drew the maps.
    """

    maps: Mapping[str, Tensor]
    degenerate: Mapping[str, Tensor]
    evidence: Evidence
    probe: Probe
    methods: Mapping[str, CamMethod]

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

    def select(self, rows: Tensor) -> "Explanations":
        """Keep some rows."""
        return replace(
            self,
            maps={label: map_Buv[rows] for label, map_Buv in self.maps.items()},
            degenerate={label: flags_B[rows] for label, flags_B in self.degenerate.items()},
            evidence=self.evidence.select(rows),
        )

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
    with torch.inference_mode(False), probe.scorer.remembering(evidence):
        maps = {label: method(evidence, probe) for label, method in methods.items()}
    flags = {label: is_degenerate(map_Buv) for label, map_Buv in maps.items()}
    return Explanations(maps, flags, evidence, probe, methods)


def measure(explanations: Explanations, metrics: Mapping[str, Metric], truth: Truth) -> dict[str, dict[str, Tensor]]:
    """Run metrics on explanations; the heat maps of all methods share every masked pass."""
    height, width = explanations.evidence.pixels_BCHW.shape[-2:]
    labels = list(explanations.maps)
    heatmaps_BMHW = torch.stack([explanations.heatmap(label, (height, width)) for label in labels], 1)
    batch = ScoringBatch(heatmaps_BMHW, explanations.evidence, truth, explanations.probe, _redraw(explanations))
    batch.run(view for metric in metrics.values() for view in metric.views())
    found = {name: metric(batch).float() for name, metric in metrics.items()}
    return {name: {label: values_BM[:, i] for i, label in enumerate(labels)} for name, values_BM in found.items()}


def _redraw(explanations: Explanations) -> Redraw:
    """Draw maps of changed images by the same methods, for the same targets and with the same random numbers."""
    evidence, probe = explanations.evidence, explanations.probe
    labels = list(explanations.methods)

    def redraw(pixels_BCHW: Tensor, chosen: Collection[int]) -> Tensor:
        methods = {labels[i]: explanations.methods[labels[i]] for i in chosen}
        again = observe(pixels_BCHW, methods, probe, evidence.keys).evidence(evidence.targets_B)
        drawn = explain_evidence(again, methods, probe)
        size = (pixels_BCHW.shape[-2], pixels_BCHW.shape[-1])
        return torch.stack([drawn.heatmap(label, size) for label in methods], 1)

    return redraw
