"""Tries the methods and metrics of users on a few images before a run, and measures what they cost.

Legend: B images, (u, v) grid.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.cams import CamMethod, Cost, PluginMethod, build_methods
from pipeline.errors import ConfigError, Mistakes, first_line
from pipeline.explain.explanations import explain_evidence, measure, observe
from pipeline.metrics import Metric, PluginMetric, Truth
from pipeline.model.baselines import Normalisation
from pipeline.model.batching import is_out_of_memory
from pipeline.model.counts import Counts
from pipeline.model.probe import Probe
from pipeline.model.trial import LoadedModel, random_images

_SAME = 1e-3
"""Largest difference between maps of one image alone and beside others, relative to the range of the map."""
_KEYS = ("trial 0", "trial 1", "trial 2", "trial 3")


def tried_plugins(
    loaded: LoadedModel, methods: Mapping[str, CamMethod], metrics: Mapping[str, Metric], seed: int
) -> dict[str, CamMethod]:
    """Try the plug-ins among methods and metrics, and return the methods with their measured costs.

    Raises:
        ConfigError: a plug-in raises, returns something else than maps or values, changes the model, or gives maps that
            are not finite, that differ when it is called again, or that depend on other images of the batch.
    """
    if not any(isinstance(each, PluginMethod | PluginMetric) for each in (*methods.values(), *metrics.values())):
        return dict(methods)
    trial, found, tried = _Trial(loaded, seed), Mistakes(), dict(methods)
    for label, method in methods.items():
        if isinstance(method, PluginMethod):
            with found.collecting(), _exceptions_told(f"explain.methods.{label}"):
                tried[label] = trial.method(label, method)
    for label, metric in metrics.items():
        if isinstance(metric, PluginMetric):
            with found.collecting(), _exceptions_told(f"explain.metrics.{label}"):
                trial.metric(label, metrics[label])
    found.raise_if_any()
    return tried


class _Trial:
    """Random images and a probe on which plug-ins are called."""

    def __init__(self, loaded: LoadedModel, seed: int) -> None:
        preprocess = loaded.preprocess
        self._pixels_BCHW = random_images((preprocess.channels, *preprocess.size))
        self._probe = Probe(
            loaded.model, loaded.layer, stages=loaded.stages, outputs=loaded.outputs, layout=loaded.layouts, seed=seed,
            normalisation=Normalisation(preprocess.mean, preprocess.std), batch=4,
        )  # fmt: skip

    def method(self, label: str, method: PluginMethod) -> PluginMethod:
        """Call a method twice, and once on a single image; return it with its measured cost."""
        maps_Buv = self._maps(label, method, slice(None))
        before = replace(self._probe.counts)
        again_Buv = self._maps(label, method, slice(None))
        cost = _cost(before, self._probe.counts, len(maps_Buv), gradients=method.needs.gradients)
        alone_1uv = self._maps(label, method, slice(0, 1))
        if not maps_Buv.isfinite().all():
            raise _wrong(label, "gives maps with NaN or infinity", "look at its values on an image of noise")
        if not torch.equal(maps_Buv, again_Buv):
            raise _wrong(label, "gives other maps when it is called again", "seed it, for example with evidence.keys")
        if alone_1uv.shape[1:] != maps_Buv.shape[1:] or _differs(alone_1uv[0], maps_Buv[0]):
            raise _wrong(
                label, "gives an image other maps beside other images", "compute each row from its own image alone"
            )
        return replace(method, measured=cost)

    def metric(self, label: str, metric: Metric) -> None:
        """Score the maps of Grad-CAM with a metric, twice."""
        methods = build_methods(["gradcam"])
        evidence = observe(self._pixels_BCHW, methods, self._probe, _KEYS).evidence()
        explanations = explain_evidence(evidence, methods, self._probe)
        truth = Truth([None] * len(self._pixels_BCHW))
        (one,), (other,) = (measure(explanations, {label: metric}, truth)[label].values() for _ in range(2))
        if not torch.equal(one.nan_to_num(), other.nan_to_num()):
            raise ConfigError.one(f"explain.metrics.{label}", "gives other values when it is called again", "seed it")

    def _maps(self, label: str, method: PluginMethod, rows: slice) -> Tensor:
        methods = {label: method}
        evidence = observe(self._pixels_BCHW[rows], methods, self._probe, _KEYS[rows]).evidence()
        return explain_evidence(evidence, methods, self._probe).maps[label]


@contextmanager
def _exceptions_told(where: str) -> Iterator[None]:
    """Turn any exception of a trial into a mistake."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # a plug-in may raise anything
        if is_out_of_memory(error):
            raise
        raise ConfigError.one(
            where, f"on images of noise: {first_line(error)}", "call it in Python to see the whole error"
        ) from error


def _cost(before: Counts, now: Counts, images: int, *, gradients: bool) -> Cost:
    """Return the passes per image of a method without the shared pass, rounded up."""
    shared = int(gradients) * images
    return Cost(
        -(-(now.forwards - before.forwards - images) // images),
        -(-(now.head_passes - before.head_passes) // images),
        -(-(now.backwards - before.backwards - shared) // images),
    )


def _differs(one_uv: Tensor, other_uv: Tensor) -> bool:
    scale = float(other_uv.max() - other_uv.min()) or float(other_uv.abs().max()) or 1.0
    return float((one_uv - other_uv).abs().max()) > _SAME * scale


def _wrong(label: str, what: str, advice: str) -> ConfigError:
    return ConfigError.one(f"explain.methods.{label}", what, advice)
