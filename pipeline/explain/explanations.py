"""Runs methods and metrics on the shared evidence of one batch.

Legend: I images, B rows (image, target), M methods, (H, W) pixels, (u, v) grid, N classes, S points of a curve.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.cams import CamMethod
from pipeline.errors import ConfigError, nearest
from pipeline.explain.inputs import Preparation
from pipeline.explain.showing import heading, page, shown_rows
from pipeline.maps.codec import FloatArray
from pipeline.maps.gallery import chosen, figure, html
from pipeline.maps.heatmaps import heatmaps, is_degenerate, upsample
from pipeline.metrics import Metric, Redraw, ScoringBatch, Truth, View
from pipeline.metrics.plugged import PluggedMetric
from pipeline.model.attention import AttentionWanted
from pipeline.model.counts import Counts
from pipeline.model.evidence import Evidence, Observation
from pipeline.model.probe import Probe
from pipeline.model.transfers import host_arrays
from pipeline.settings.libraries import import_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Explanations:
    """The saliency maps of a batch, with the forward pass and the methods that they were computed from.

    A notebook shows the first images with their maps; `plot` draws them with matplotlib.

    Attributes:
        maps: per method (B, u, v) float32 at grid resolution: not normalised, and signed where the paper's maps are.
        degenerate: per method (B,) bool, True where the map is constant or not finite.
        evidence: logits, targets, activations and gradients of the shared forward pass.
        probe: runs the model; `evaluate` uses it again.
        methods: the methods, by the same names as `maps`.
        preparation: how images became the model's input; None if that was given.
        class_names: names of the classes, by index; empty if not known.
    """

    maps: Mapping[str, Tensor]
    degenerate: Mapping[str, Tensor]
    evidence: Evidence
    probe: Probe
    methods: Mapping[str, CamMethod]
    preparation: Preparation | None = None
    class_names: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"<{heading(self)}>"

    def _repr_html_(self) -> str:
        return html(page(self))

    def plot(self, rows: Sequence[int] | None = None, methods: Sequence[str] | None = None) -> "Figure":
        """Draw images with their maps, one row each, as a figure of matplotlib (`pip install 'camatlas[plot]'`).

        Args:
            rows: which rows (images, or pairs of image and target); None draws the first ones.
            methods: names of the methods; None draws all.

        Raises:
            ConfigError: matplotlib is not installed, or there is no such row or method (also a ValueError).
        """
        import_matplotlib()
        names = list(self.maps) if methods is None else list(methods)
        drawn = range(chosen(len(self.targets), names)[0]) if rows is None else rows
        unknown = [name for name in names if name not in self.maps]
        if unknown:
            raise ConfigError.one("methods", f"there are no maps of '{unknown[0]}'", nearest(unknown[0], self.maps))
        if not drawn or not all(0 <= row < len(self.targets) for row in drawn):
            raise ConfigError.one(
                "rows", f"{list(drawn)} are not rows", f"they count from 0 to {len(self.targets) - 1}"
            )
        return figure(shown_rows(self, drawn, names))

    @property
    def logits(self) -> Tensor:
        """Logits of the unmasked image of each row, (B, N)."""
        return self.evidence.logits_BN

    @property
    def targets(self) -> Tensor:
        """Target class of each row, (B,)."""
        return self.evidence.targets_B

    @property
    def counts(self) -> Counts:
        """Passes through the model so far, in images."""
        return self.probe.counts

    def select(self, rows: Tensor) -> "Explanations":
        """Keep the given rows."""
        return replace(
            self,
            maps={label: map_Buv[rows] for label, map_Buv in self.maps.items()},
            degenerate={label: flags_B[rows] for label, flags_B in self.degenerate.items()},
            evidence=self.evidence.select(rows),
        )

    def heatmap(self, name: str, size: tuple[int, int] | None = None) -> Tensor:
        """Return one method's heat maps (B, H, W) in [0, 1], by default at the size of the images."""
        if name not in self.maps:
            raise ConfigError.one("name", f"there are no maps of '{name}'", nearest(name, self.maps))
        height, width = self.evidence.pixels_BCHW.shape[-2:]
        return heatmaps(self.maps[name][:, None], size or (height, width))[:, 0]

    def stacked_raw(self) -> Tensor:
        """Return the maps of all methods at the size of the images, (B, M, H, W), as they are: not scaled to [0, 1]."""
        height, width = self.evidence.pixels_BCHW.shape[-2:]
        return torch.cat([upsample(map_Buv[:, None], (height, width)) for map_Buv in self.maps.values()], 1)


Explain = Callable[[Evidence, Mapping[str, CamMethod], Probe], Explanations]
"""Runs methods on the evidence of a forward pass."""


def observe(
    pixels_ICHW: Tensor, methods: Mapping[str, CamMethod], probe: Probe, keys: Sequence[str] | None = None
) -> Observation:
    """Run the forward pass that all methods share, and capture what any of them needs."""
    needs = [method.needs for method in methods.values()]
    gradients, stages = any(need.gradients for need in needs), any(need.stages for need in needs)
    attention = AttentionWanted(
        weights=any(need.attention for need in needs),
        gradients=any(need.attention_gradients for need in needs),
        readouts=any(need.readouts for need in needs),
    )
    return probe.observe(pixels_ICHW, gradients=gradients, stages=stages, keys=keys, attention=attention)


def evidence_for(observation: Observation, targets: Tensor | None) -> Evidence:
    """Return the evidence for target classes, (B,) or (B, T) with T rows for each image; None takes the predicted."""
    if targets is None or targets.ndim == 1:
        return observation.evidence(targets)
    images_B = torch.arange(len(targets)).repeat_interleave(targets.shape[1])
    return observation.evidence_of(images_B, targets.flatten())


def explain_evidence(evidence: Evidence, methods: Mapping[str, CamMethod], probe: Probe) -> Explanations:
    """Run methods on the evidence of a forward pass."""
    with torch.inference_mode(False), probe.scorer.caching(evidence):
        maps = {label: method(evidence, probe) for label, method in methods.items()}
    flags = {label: is_degenerate(map_Buv) for label, map_Buv in maps.items()}
    return Explanations(maps, flags, evidence, probe, methods)


def measure(
    explanations: Explanations,
    metrics: Mapping[str, Metric],
    truth: Truth,
    compute: Callable[[str, ScoringBatch], Tensor] | None = None,
    explain: Explain | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Run metrics on explanations and return `{metric: {method: (B,) or (B, S)}}`; methods share the masked passes.

    Args:
        explanations: the maps.
        metrics: the metrics.
        truth: boxes, masks and parts of the rows.
        compute: computes the values of the metric with a name; by default, the metric itself.
        explain: runs methods on images that a metric changed; by default, `explain_evidence`.
    """
    labels, batch = list(explanations.maps), scoring_batch(explanations, truth, explain)
    batch.run(view for metric in metrics.values() for view in _shared_views(metric))
    values = {
        name: (metric(batch) if compute is None else compute(name, batch)).float() for name, metric in metrics.items()
    }
    return {name: {label: values_BM[:, i] for i, label in enumerate(labels)} for name, values_BM in values.items()}


def as_arrays(values: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, FloatArray]]:
    """Return the values of metrics on the host, `{metric: {method: values}}`; it waits for the device once."""
    copies = host_arrays({(name, label): rows_B for name, by in values.items() for label, rows_B in by.items()})
    return {name: {label: copies[name, label] for label in by} for name, by in values.items()}


def _shared_views(metric: Metric) -> tuple[View, ...]:
    """Return the changed images of a metric; of a plug-in, only those that code of ours makes."""
    return metric.shared_views() if isinstance(metric, PluggedMetric) else metric.views()


def scoring_batch(explanations: Explanations, truth: Truth, explain: Explain | None = None) -> ScoringBatch:
    """Return what metrics are computed from; `explain` runs methods on images that a metric changed."""
    heatmaps_BMHW = torch.stack([explanations.heatmap(label) for label in explanations.maps], 1)
    redraw = _redraw(explanations, explain or explain_evidence)
    return ScoringBatch(
        heatmaps_BMHW, explanations.evidence, truth, explanations.probe, redraw, explanations.stacked_raw
    )


def _redraw(explanations: Explanations, explain: Explain) -> Redraw:
    """Return a function that draws maps of changed images for the same targets, with the same random numbers."""
    evidence, probe = explanations.evidence, explanations.probe
    labels = list(explanations.methods)

    def redraw(pixels_BCHW: Tensor, chosen: Collection[int]) -> Tensor:
        methods = {labels[i]: explanations.methods[labels[i]] for i in chosen}
        changed = observe(pixels_BCHW, methods, probe, evidence.keys).evidence(evidence.rows.targets_B)
        redrawn = explain(changed, methods, probe)
        size = (pixels_BCHW.shape[-2], pixels_BCHW.shape[-1])
        return torch.stack([redrawn.heatmap(label, size) for label in methods], 1)

    return redraw
