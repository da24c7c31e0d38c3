"""Runs methods and metrics of which some are the user's: what one of these does wrong fails only its own rows.

A plug-in that fails on a batch is called again on halves of it, down to single rows, so that the rows on which it works
keep their results. Ours run as always.

Legend: B rows (image, target), (u, v) grid, S points of a curve.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pipeline.cams import Adapter, CamMethod
from pipeline.cams.plugged import PluggedMethod
from pipeline.errors import PluginError
from pipeline.explain.explanations import Explanations, explain_evidence, measure
from pipeline.maps.codec import FloatArray
from pipeline.maps.heatmaps import is_degenerate
from pipeline.metrics import Metric, ScoringBatch, Truth
from pipeline.metrics.plugged import PluggedMetric
from pipeline.model.evidence import Evidence
from pipeline.model.guard import guard_of
from pipeline.model.probe import Probe
from pipeline.settings.plugins import Plugged

METHOD_ERROR, METRIC_ERROR, NONFINITE = "method_error", "metric_error", "nonfinite"
"""Codes of failure rows."""


@dataclass
class Failures:
    """What plug-ins did wrong, by method and row: the code of a failure row, and one sentence for people."""

    reasons: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)

    def add(self, method: str, row: int, code: str, detail: str) -> None:
        """Note a failure; of several metrics, all are told; a failure of the method comes first."""
        known = self.reasons.get((method, row))
        if known is None:
            self.reasons[method, row] = code, detail
        elif known[0] == code == METRIC_ERROR:
            self.reasons[method, row] = code, f"{known[1]}; {detail}"

    def of(self, method: str, row: int) -> tuple[str, str] | None:
        """Return the code and the sentence of a row; None if nothing failed."""
        return self.reasons.get((method, row))


def note_silent(
    failures: Failures, methods: Mapping[str, CamMethod], maps: Mapping[str, FloatArray], evidence: Evidence
) -> None:
    """Note why methods of others have no finite map of a row, where they say it: they know it of their last call."""
    targets = evidence.rows.targets_B.tolist()
    for label, method in methods.items():
        if not isinstance(method, Adapter):
            continue
        for row in np.flatnonzero(~np.isfinite(maps[label]).all((1, 2))).tolist():
            if failures.of(label, row) is None and (said := method.failure(evidence.keys[row], targets[row])):
                failures.add(label, row, method.name, said)


def watch(probe: Probe, plugins: Sequence[object]) -> None:
    """Look at a model before its first pass, if any of these are plug-ins."""
    if any(isinstance(one, Plugged) for one in plugins):
        guard_of(probe)


def explain_each(
    evidence: Evidence, methods: Mapping[str, CamMethod], probe: Probe, failures: Failures
) -> Explanations:
    """Run methods on the evidence of a forward pass, and note what plug-ins do wrong; their maps are NaN there."""
    ours = {label: method for label, method in methods.items() if not isinstance(method, PluggedMethod)}
    explanations = explain_evidence(evidence, ours, probe)
    if len(ours) == len(methods):
        return explanations
    maps = {
        label: explanations.maps[label] if label in ours else _maps(evidence, label, method, probe, failures)
        for label, method in methods.items()
    }
    flags = {label: is_degenerate(map_Buv) for label, map_Buv in maps.items()}
    return Explanations(maps, flags, evidence, probe, methods)


def measure_each(
    explanations: Explanations, metrics: Mapping[str, Metric], truth: Truth, failures: Failures
) -> dict[str, dict[str, Tensor]]:
    """Run metrics on explanations as `measure`, and note what plug-ins do wrong; their values are NaN there."""

    def compute(name: str, batch: ScoringBatch) -> Tensor:
        metric = metrics[name]
        if not isinstance(metric, PluggedMetric):
            return metric(batch)
        return _values(explanations, name, metric, truth, lambda: metric(batch), failures)

    def explain(evidence: Evidence, methods: Mapping[str, CamMethod], probe: Probe) -> Explanations:
        on_changed = Failures()
        explained = explain_each(evidence, methods, probe, on_changed)
        for (label, row), (_, detail) in on_changed.reasons.items():
            failures.add(label, row, METRIC_ERROR, f"on an image that a metric changed, {detail}")
        return explained

    return measure(explanations, metrics, truth, compute, explain)


def _maps(evidence: Evidence, label: str, method: CamMethod, probe: Probe, failures: Failures) -> Tensor:
    """Return the maps of a plug-in, (B, u, v), NaN where it failed."""
    rows = list(range(len(evidence.keys)))
    parts = _halving(
        rows,
        lambda some: explain_evidence(_part(evidence, some), {label: method}, probe).maps[label],
        lambda row, error: failures.add(label, row, METHOD_ERROR, _detail(error)),
    )
    grid = parts[0][1].shape[1:] if parts else evidence.acts_BKuv.shape[2:]
    maps_Buv = evidence.acts_BKuv.new_full((len(rows), *grid), torch.nan)
    for some, part_Ruv in parts:
        if part_Ruv.shape[1:] == grid:
            maps_Buv[some] = part_Ruv
            continue
        sizes = f"maps of {tuple(grid)} and {tuple(part_Ruv.shape[1:])} for images of one size"
        for row in some:
            failures.add(label, row, METHOD_ERROR, f"{_who(method)} returned {sizes}")
    for row in (~maps_Buv.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist():
        if failures.of(label, row) is None:
            failures.add(label, row, NONFINITE, f"{_who(method)} returned a map that contains NaN or infinity")
    return maps_Buv


def _values(
    explanations: Explanations,
    name: str,
    metric: PluggedMetric,
    truth: Truth,
    whole: Callable[[], Tensor],
    failures: Failures,
) -> Tensor:
    """Return the values of a plug-in, (B, M) or (B, M, S), NaN where it failed."""
    labels, rows = list(explanations.maps), list(range(len(explanations.evidence.keys)))
    shape = (len(rows), len(labels), *([metric.length()] if metric.curve else []))
    values_BM = explanations.evidence.logits_BN.new_full(shape, torch.nan)

    def some_of(some: Sequence[int], methods: Sequence[str]) -> Tensor:
        part = _only(explanations.select(_index(explanations.evidence, some)), methods)
        found = measure(part, {name: cast(Metric, metric)}, _truth_of(truth, some))[name]
        return torch.stack([found[label] for label in methods], 1)

    def alone(row: int, _: PluginError) -> None:
        for place, label in enumerate(labels):
            try:
                values_BM[row, place] = some_of([row], [label])[0, 0]
            except PluginError as error:
                failures.add(label, row, METRIC_ERROR, f"metric '{name}': {_detail(error)}")

    for some, part_RM in _halving(rows, lambda some: whole() if some == rows else some_of(some, labels), alone):
        values_BM[some] = part_RM
    _note_infinite(values_BM, name, metric, labels, failures)
    return values_BM


def _note_infinite(
    values_BM: Tensor, name: str, metric: PluggedMetric, labels: Sequence[str], failures: Failures
) -> None:
    """Note values that are infinite, and curves that are NaN in part; NaN alone means that a metric does not apply."""
    values_BMS = values_BM.reshape(*values_BM.shape[:2], -1)
    wrong_BM = values_BMS.isinf().any(2) | (values_BMS.isnan().any(2) & ~values_BMS.isnan().all(2))
    for row, place in wrong_BM.nonzero().tolist():
        what = "an infinite value" if bool(values_BMS[row, place].isinf().any()) else "a curve with NaN in it"
        failures.add(labels[place], row, METRIC_ERROR, f"metric '{name}': {metric.who} returned {what}")


def _halving(
    rows: list[int], work: Callable[[list[int]], Tensor], failed: Callable[[int, PluginError], None]
) -> list[tuple[list[int], Tensor]]:
    """Do some work on rows, on halves of them where a plug-in fails, and say which single rows failed.

    Raises:
        RuntimeError: memory ran out for a single row.
    """
    try:
        return [(rows, work(rows))]
    except PluginError as error:
        if len(rows) == 1:
            failed(rows[0], error)
            return []
    except RuntimeError:  # out of memory
        if len(rows) == 1:
            raise
    middle = len(rows) // 2
    return [*_halving(rows[:middle], work, failed), *_halving(rows[middle:], work, failed)]


def _part(evidence: Evidence, rows: Sequence[int]) -> Evidence:
    return evidence if len(rows) == len(evidence.keys) else evidence.select(_index(evidence, rows))


def _index(evidence: Evidence, rows: Sequence[int]) -> Tensor:
    return torch.tensor(rows, device=evidence.images_B.device)


def _only(explanations: Explanations, labels: Sequence[str]) -> Explanations:
    """Keep the maps of some methods."""
    return replace(
        explanations,
        maps={label: explanations.maps[label] for label in labels},
        degenerate={label: explanations.degenerate[label] for label in labels},
        methods={label: explanations.methods[label] for label in labels},
    )


def _truth_of(truth: Truth, rows: Sequence[int]) -> Truth:
    """Keep the truth of some rows; an empty list stays empty."""
    return Truth(
        [truth.boxes_xyxy[row] for row in rows],
        [truth.masks_HW[row] for row in rows] if truth.masks_HW else (),
        [truth.parts[row] for row in rows] if truth.parts else (),
    )


def _who(plugin: object) -> str:
    assert isinstance(plugin, Plugged)
    return plugin.who


def _detail(error: PluginError) -> str:
    return "; ".join(mistake.what for mistake in error.mistakes)
