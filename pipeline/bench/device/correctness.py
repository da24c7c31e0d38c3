"""Compares maps and metrics on the device with those of the CPU in float32, for the same images and classes.

Legend: B rows (image, target), (u, v) grid, S points of a curve.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.bench.device.clock import Device
from pipeline.bench.device.subjects import NETWORKS, inputs, trained
from pipeline.cams import METHODS, CamMethod, build_methods
from pipeline.errors import first_line
from pipeline.explain.explainer import BATCH_MULTIPLE
from pipeline.explain.explanations import Explanations, explain_evidence, measure, observe
from pipeline.maps.similarity import enlarged, spearman
from pipeline.metrics import METRICS, Parts, Truth, build_metrics
from pipeline.model.arithmetic import multiplying
from pipeline.model.baselines import Normalisation
from pipeline.model.device_failure import is_device_failure
from pipeline.model.probe import Probe
from pipeline.model.trial import LoadedModel
from pipeline.run.matching import with_attention
from pipeline.settings.precision import Precision

_FEW: dict[str, dict[str, object]] = {
    "integrated_gradcam": {"steps": 8}, "rsi_gradcam": {"steps": 8}, "iscam": {"num_steps": 3},
    "smooth_gradcam_pp": {"samples": 4}, "sscam": {"samples": 2}, "rise": {"num_masks": 64, "grid": 12},
    "opti_cam": {"iterations": 5}, "integrated_gradients": {"steps": 8, "grid": 12},
    "smoothgrad": {"samples": 4, "grid": 12}, "fullgrad": {"grid": 12},
    **{name: {"steps": 5} for name in ("insertion", "insertion_curve", "deletion", "deletion_curve")},
    **{name: {"percentiles": [30.0]} for name in ("road", "road_morf", "road_lerf")},
    "infidelity": {"samples": 4}, "max_sensitivity": {"samples": 2}, "occlusion_agreement": {"cells": 3},
}  # fmt: skip
"""Fewer steps than the defaults: each of them computes as the others do."""
_SMALLEST = 1e-3
"""Differences of values smaller than this are relative to it."""

Maps = dict[str, Tensor | str]
"""Maps (B, u, v) on the host by method, or why there is none."""


@dataclass(frozen=True)
class Setting:
    """Where and how maps are computed."""

    device: Device
    precision: Precision = "fp32"
    batch: int = BATCH_MULTIPLE


@dataclass(frozen=True)
class Agreement:
    """How near maps are to those of the CPU.

    Attributes:
        error: the norm of the difference as a share of the norm.
        rank: the smallest rank correlation of an image; NaN if all maps are constant.
    """

    error: float
    rank: float

    @classmethod
    def of(cls, found_Buv: Tensor, expected_Buv: Tensor) -> "Agreement":
        """Compare maps of one method."""
        found, expected = found_Buv.double(), expected_Buv.double()
        ranks_B = spearman(enlarged(found_Buv.numpy()), enlarged(expected_Buv.numpy()))
        known_B = ranks_B[np.isfinite(ranks_B)]
        norm = max(float(expected.norm()), 1e-30)
        return cls(float((found - expected).norm()) / norm, float(known_B.min()) if len(known_B) else float("nan"))


def compared_maps(device: Device, count: int, methods: Collection[str] = tuple(METHODS)) -> dict[str, Any]:
    """Compare the maps of all methods at each precision, of two equal runs, and of passes of two sizes."""
    found: dict[str, Any] = {"precisions": {}, "unequal_runs": [], "unequal_passes": []}
    for network, names in _by_network(methods).items():
        subject = _Subject.of(network, count, names)
        expected = subject.maps(Setting(replace(device, name="cpu")))
        runs: dict[tuple[Precision, int], Maps] = {}
        for precision in device.precisions():
            runs[precision, BATCH_MULTIPLE] = subject.maps(Setting(device, precision))
            each = _agreements(runs[precision, BATCH_MULTIPLE], expected)
            found["precisions"].setdefault(precision, {}).update({f"{name} ({network})": a for name, a in each.items()})
        first = runs["fp32", BATCH_MULTIPLE]
        found["unequal_runs"] += _unequal(first, subject.maps(Setting(device)))
        found["unequal_passes"] += _unequal(first, subject.maps(Setting(device, batch=2 * BATCH_MULTIPLE)))
    return found


def compared_metrics(device: Device, count: int, metrics: Collection[str] = tuple(METRICS)) -> dict[str, Any]:
    """Compute all metrics of the CPU's maps on both devices; return the largest relative difference of each."""
    subject = _Subject.of(NETWORKS[0], count, ("gradcam", "layercam"))
    host = subject.explained(Setting(replace(device, name="cpu")))
    there = subject.explained(Setting(device))
    maps = {label: map_Buv.to(device.name) for label, map_Buv in host.maps.items()}
    there = replace(there, maps=maps)
    found: dict[str, Any] = {}
    for name in metrics:
        values = [_attempt(lambda on=on, name=name: _values(on, name, count)) for on in (host, there)]  # type: ignore[misc]
        wrong = [value for value in values if isinstance(value, str)]
        found[name] = wrong[0] if wrong else _difference(*values)
    return found


def _by_network(names: Collection[str]) -> dict[str, list[str]]:
    """Give the methods that read attention to the transformer, and the others to the network of convolutions."""
    reading = [name for name in names if METHODS[name]().needs.attention]
    others = [name for name in names if name not in reading]
    return {network: each for network, each in zip(NETWORKS, (others, reading), strict=True) if each}


@dataclass(frozen=True)
class _Subject:
    """A network with its images and methods."""

    loaded: LoadedModel
    methods: dict[str, CamMethod]
    pixels_BCHW: Tensor
    targets_B: Tensor

    @classmethod
    def of(cls, network: str, count: int, names: Collection[str]) -> "_Subject":
        loaded = trained(network)
        methods = build_methods([{name: _FEW.get(name, {})} for name in names])
        pixels_BCHW = inputs(loaded, count)
        with torch.no_grad():
            targets_B = loaded.model(pixels_BCHW).argmax(1)
        return cls(with_attention(methods, loaded), methods, pixels_BCHW, targets_B)

    def maps(self, setting: Setting) -> Maps:
        """Compute maps method by method, so that each may fail alone, and reads the layers that it needs alone."""
        probe = self._probe(setting)
        return {
            label: _attempt(lambda m={label: method}: _only(self._explained(probe, setting, m)))  # type: ignore[misc]
            for label, method in self.methods.items()
        }

    def explained(self, setting: Setting) -> Explanations:
        """Compute the maps of all methods."""
        return self._explained(self._probe(setting), setting, self.methods)

    def _explained(self, probe: Probe, setting: Setting, methods: Mapping[str, CamMethod]) -> Explanations:
        keys = [f"image-{i}" for i in range(len(self.pixels_BCHW))]
        with multiplying(setting.precision):
            observation = observe(self.pixels_BCHW.to(setting.device.name), methods, probe, keys)
            return explain_evidence(observation.evidence(self.targets_B.to(setting.device.name)), methods, probe)

    def _probe(self, setting: Setting) -> Probe:
        loaded, preprocess = self.loaded, self.loaded.preprocess
        return Probe(
            loaded.model.to(setting.device.name), loaded.layer, stages=loaded.stages, precision=setting.precision,
            batch=setting.batch, batch_multiple=BATCH_MULTIPLE,
            normalisation=Normalisation(preprocess.mean, preprocess.std), seed=1, outputs=loaded.outputs,
            layout=loaded.layouts,
        )  # fmt: skip


def _only(explanations: Explanations) -> Tensor:
    """Return the only map, on the host."""
    (map_Buv,) = explanations.maps.values()
    return map_Buv.detach().float().cpu()


def _attempt(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - the result of the work, or why there is none
    """Run some work; a failed device ends the measurements, and any other error is a sentence of the report."""
    try:
        return work()
    except Exception as error:
        if is_device_failure(error):
            raise
        return first_line(error)


def _agreements(found: Maps, expected: Maps) -> dict[str, Agreement | str]:
    return {label: _agreement(map_Buv, expected[label]) for label, map_Buv in found.items()}


def _agreement(found: Tensor | str, expected: Tensor | str) -> Agreement | str:
    if isinstance(found, str):
        return found
    return f"on the CPU: {expected}" if isinstance(expected, str) else Agreement.of(found, expected)


def _unequal(one: Maps, other: Maps) -> list[str]:
    """Name the methods whose maps do not have the same bits."""
    return [
        label
        for label, map_Buv in one.items()
        if isinstance(map_Buv, Tensor) and not (isinstance(o := other[label], Tensor) and torch.equal(map_Buv, o))
    ]


def _values(explanations: Explanations, name: str, count: int) -> Tensor:
    metrics = build_metrics([{name: _FEW.get(name, {})}])
    with multiplying("fp32"):
        by_method = measure(explanations, metrics, _truth(explanations, count))[name]
    return torch.stack([values.double().cpu() for values in by_method.values()])


def _truth(explanations: Explanations, count: int) -> Truth:
    """Make a box and parts for every image."""
    height, width = explanations.evidence.pixels_BCHW.shape[-2:]
    box = torch.tensor([[0.2 * width, 0.2 * height, 0.7 * width, 0.8 * height]])
    index_HW = torch.zeros(height, width, dtype=torch.uint8)
    index_HW[: height // 2, : width // 2], index_HW[height // 2 :, width // 3 :] = 1, 2
    values_P = torch.tensor([0.5, -0.25], dtype=torch.float64)
    parts = [Parts(index_HW, values_P, target) for target in explanations.targets.tolist()]
    return Truth([box] * count, [None] * count, parts)


def _difference(found: Tensor, expected: Tensor) -> float | str:
    """Return the largest relative difference, 0 where a value is NaN on both sides; a sentence if NaN on one."""
    if not torch.equal(found.isnan(), expected.isnan()):
        return "NaN on one of both devices"
    relative = (found - expected).abs() / expected.abs().clamp_min(_SMALLEST)
    return float(relative.nan_to_num().max())
