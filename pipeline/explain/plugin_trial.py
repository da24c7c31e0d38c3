"""Tries methods and metrics of the user's on random images before a run, so that unsuitable ones are refused at once.

A plug-in must give the same maps or values again, the same for an image alone as among others, finite maps, and leave
the model and the evidence as they are.

Legend: B rows (image, target), M maps of a row, (u, v) grid, (H, W) pixels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.cams import CamMethod, Cost, NetShape, build_methods
from pipeline.cams.plugged import PluggedMethod, private, same_values
from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.explain.explainer import BATCH_MULTIPLE
from pipeline.explain.explanations import observe
from pipeline.explain.trial_batch import TrialMaps, trial_maps
from pipeline.metrics import Metric
from pipeline.metrics.cost import metrics_cost
from pipeline.metrics.plugged import PluggedMetric
from pipeline.model.baselines import Normalisation
from pipeline.model.evidence import Evidence
from pipeline.model.guard import guard_of
from pipeline.model.probe import Probe
from pipeline.model.trial import LoadedModel, random_images
from pipeline.settings.plugins import Plugged
from schemas.manifest import canonical_json

_REPEAT, _ALONE = 1e-5, 1e-3
"""How far equal calls, and calls with other images, may differ, relative to the largest value."""
_KEYS = ("trial 0", "trial 1")


@dataclass(frozen=True)
class _Bench:
    """A probe with the evidence of two random images, each with a class of its own, and what was counted."""

    probe: Probe
    evidence: Evidence

    def rows(self, *rows: int) -> Evidence:
        """Return the evidence of some rows."""
        return self.evidence.select(torch.tensor(rows))


def try_plugins(
    loaded: LoadedModel, net: NetShape, methods: Mapping[str, CamMethod], metrics: Mapping[str, Metric], seed: int = 0
) -> dict[str, CamMethod]:
    """Try the plug-ins among methods and metrics, and return the methods, with costs where these were measured.

    Raises:
        ConfigError: all that any of them does wrong.
    """
    tried, mistakes = dict(methods), Mistakes()
    if not any(isinstance(one, Plugged) for one in (*methods.values(), *metrics.values())):
        return tried
    needs = {label: method for label, method in methods.items() if isinstance(method, PluggedMethod)}
    bench = _bench(loaded, needs, seed, multiple=1)
    exact = _Later(loaded, needs, seed)
    for label, method in methods.items():
        if isinstance(method, PluggedMethod):
            with mistakes.collecting():
                tried[label] = _tried_method(method, bench, exact, net)
    for metric in metrics.values():
        if isinstance(metric, PluggedMetric):
            with mistakes.collecting():
                _try_metric(metric, loaded, seed, net)
    mistakes.raise_if_any()
    return tried


class _Later:
    """A bench whose passes are padded as in a run, so that neighbours change no bit; made only if it is needed."""

    def __init__(self, loaded: LoadedModel, methods: Mapping[str, PluggedMethod], seed: int) -> None:
        self._made: _Bench | None = None
        self._of = loaded, methods, seed

    def bench(self) -> _Bench:
        """Return the bench."""
        self._made = self._made or _bench(*self._of, multiple=BATCH_MULTIPLE)
        return self._made


def _bench(loaded: LoadedModel, methods: Mapping[str, Any], seed: int, *, multiple: int) -> _Bench:
    preprocess = loaded.preprocess
    probe = Probe(
        loaded.model, loaded.layer, stages=loaded.stages, batch_multiple=multiple, seed=seed,
        normalisation=Normalisation(preprocess.mean, preprocess.std), outputs=loaded.outputs, layout=loaded.layouts,
    )  # fmt: skip
    guard_of(probe)
    pixels_2CHW = random_images((preprocess.channels, *preprocess.size))[:2]
    with torch.inference_mode(False):
        observed = observe(pixels_2CHW, methods, probe, _KEYS)
        first = observed.outputs.predicted(observed.logits_IN)[:1]
        return _Bench(probe, observed.evidence(torch.cat([first, (first + 1) % loaded.classes])))


def _tried_method(method: PluggedMethod, bench: _Bench, exact: _Later, net: NetShape) -> CamMethod:
    """Try one method; return it with its measured cost if it declares none."""
    _raise(method, _unrecorded(method))
    with _Forwards(bench.probe) as passes:
        alone_1uv, wrong = _called(method, bench, 0)
    if alone_1uv is None:
        _raise(method, [each + _advice(method, each) for each in wrong])
    assert alone_1uv is not None
    again_1uv, wrong_again = _called(method, bench, 0)
    problems = dict.fromkeys([*wrong, *wrong_again])
    if not alone_1uv.isfinite().all():
        problems["returned a map that contains NaN or infinity"] = None
    if again_1uv is not None and _differ(alone_1uv, again_1uv, _REPEAT):
        problems[_CHANCE.format("map")] = None
    elif _depends_on_batch(method, bench) and _depends_on_batch(method, exact.bench()):
        problems[_BATCH.format("map")] = None
    problems |= dict.fromkeys(_cost_problems(method, passes.cost, net))
    _raise(method, problems)
    return method if method.declares_cost() else replace(method, measured=passes.cost)  # type: ignore[return-value]


_CHANCE = (
    "gives an image another {0} when it is called again: seed random numbers from evidence.keys, and keep nothing from "
    "one call to the next"
)
_BATCH = (
    "gives an image another {0} alone than among others: compute each row by itself, with its own target class, key "
    "and range"
)


def _called(method: PluggedMethod, bench: _Bench, *rows: int) -> tuple[Tensor | None, list[str]]:
    """Call a method on some rows; what it changes of its evidence is wrong, too."""
    given, kept = (private(bench.rows(*rows), method.needs) for _ in range(2))
    with torch.inference_mode(False):
        maps_Buv, wrong = method.attempt(given, bench.probe)
    changed = [name for name, one, other in _tensors(given, kept) if not same_values(one, other)]
    return maps_Buv, wrong + ([f"changed {', '.join(changed)} of the evidence: work on a clone"] if changed else [])


def _tensors(one: Evidence, other: Evidence) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the tensors of two pieces of evidence, by name."""
    for name in ("pixels_BCHW", "logits_BN", "targets_B", "images_B", "raw"):
        yield name, getattr(one, name), getattr(other, name)
    for name, left, right in (("acts", one.acts, other.acts), ("grads", one.grads, other.grads)):
        yield from ((f"{name}['{layer}']", left.get(layer, right[layer] * torch.nan), right[layer]) for layer in right)
    if one.attention is not None and other.attention is not None:
        for name in ("weights", "products"):
            layers = zip(getattr(one.attention, name), getattr(other.attention, name), strict=True)
            yield from ((f"attention.{name}[{layer}]", *pair) for layer, pair in enumerate(layers))


def _depends_on_batch(method: PluggedMethod, bench: _Bench) -> bool:
    """Tell whether a method gives an image another map alone than among others."""
    together_2uv, _ = _called(method, bench, 0, 1)
    alone = [map_1uv for row in range(2) for map_1uv, _ in [_called(method, bench, row)] if map_1uv is not None]
    if together_2uv is None or len(alone) < len(together_2uv):
        return True
    return any(_differ(one_1uv[0], map_uv, _ALONE) for one_1uv, map_uv in zip(alone, together_2uv, strict=True))


def _differ(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Tell whether values differ by more than rounding, relative to the largest one."""
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return True
    left, right = one[one.isfinite()], other[other.isfinite()]
    if not left.numel():
        return False
    scale = max(float(left.abs().max()), float(right.abs().max()), 1e-9)
    return float((left - right).abs().max()) > tolerance * scale


class _Forwards:
    """Counts the passes of some work, also those that run the model directly."""

    def __init__(self, probe: Probe) -> None:
        self._probe, self._direct = probe, 0
        self.cost = Cost()

    def __enter__(self) -> "_Forwards":
        self._before = replace(self._probe.counts)
        self._hook = self._probe.model.register_forward_pre_hook(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        before, now = self._before, self._probe.counts
        self.cost = Cost(
            max(now.forwards - before.forwards, self._direct),
            now.head_passes - before.head_passes,
            now.backwards - before.backwards,
        )

    def _count(self, _: object, inputs: tuple[Any, ...]) -> None:
        self._direct += len(inputs[0]) if inputs and isinstance(inputs[0], Tensor) else 1


def _cost_problems(method: PluggedMethod, counted: Cost, net: NetShape) -> Iterator[str]:
    """Yield why a declared cost is wrong."""
    if not method.declares_cost():
        return
    try:
        declared: object = method.thing.cost(net)
    except Exception as error:  # a user's function may raise anything
        yield f"has a cost that raised {type(error).__name__}: {error}"
        return
    if not isinstance(declared, Cost) or not all(type(n) is int and n >= 0 for n in vars(declared).values()):
        yield f"declares the cost {declared!r}, which is no camatlas.Cost of whole numbers"
        return
    less = {name: passes for name, passes in vars(counted).items() if passes > getattr(declared, name)}
    if less:
        shown = ", ".join(f"{passes} {name.replace('_', ' ')}" for name, passes in less.items())
        yield f"took {shown} for one image, but declares {declared}: correct cost, or leave it out to have it measured"


def _try_metric(metric: PluggedMetric, loaded: LoadedModel, seed: int, net: NetShape) -> None:
    """Try one metric on random maps of two images, each with boxes and parts."""
    _raise(metric, _unrecorded(metric))
    _raise(metric, _declared_wrong(metric))
    probe = _bench(loaded, {}, seed, multiple=1).probe
    maps = trial_maps(probe, loaded)
    before = probe.counts.forwards
    whole_2M, wrong = _measured(metric, maps, (0, 1), (0, 1))
    forwards = probe.counts.forwards - before
    if whole_2M is None:
        _raise(metric, wrong)
    assert whole_2M is not None
    again_2M, wrong_again = _measured(metric, maps, (0, 1), (0, 1))
    problems = dict.fromkeys([*wrong, *wrong_again])
    if bool(whole_2M.isinf().any()):
        problems["returned an infinite value"] = None
    if again_2M is not None and _differ(whole_2M, again_2M, _REPEAT):
        problems[_CHANCE.format("value")] = None
    elif any(
        one is None or _differ(one[0, 0], whole_2M[row, place], _ALONE)
        for row in range(2) for place in range(2) for one in [_measured(metric, maps, (row,), (place,))[0]]
    ):  # fmt: skip
        problems[_BATCH.format("value")] = None
    most = 2 * metrics_cost([cast(Metric, metric)], build_methods(TrialMaps.METHODS), net).forwards
    if forwards > most:
        problems[f"ran the model on {forwards} images where its views allow {most}: list every view in views()"] = None
    _raise(metric, problems)


def _measured(
    metric: PluggedMetric, maps: TrialMaps, rows: tuple[int, ...], places: tuple[int, ...]
) -> tuple[Tensor | None, list[str]]:
    """Call a metric on some rows and maps; what it changes of its batch is wrong, too."""
    given, kept = (maps.batch(rows, places) for _ in range(2))
    with torch.inference_mode(False):
        values, wrong = metric.attempt(given)
    changed = [name for name, one, other in _tensors(given.evidence, kept.evidence) if not same_values(one, other)]
    changed += ["heatmaps_BMHW"] * (not same_values(given.heatmaps_BMHW, kept.heatmaps_BMHW))
    return values, wrong + ([f"changed {', '.join(changed)} of the batch: work on a clone"] if changed else [])


def _declared_wrong(metric: PluggedMetric) -> Iterator[str]:
    """Yield what is wrong with the facts of a metric that its functions give."""
    try:
        views, redrawn, length = metric.views(), metric.redrawn_maps(), metric.length()
    except Exception as error:  # a user's function may raise anything
        yield f"has views, redrawn_maps or length that raised {type(error).__name__}: {error}"
        return
    if views and metric.reads == "map":
        yield "scores images, but reads 'map': set reads to 'probability' or 'logit', so that raw outputs are refused"
    if length < 1 or (length != 1 and not metric.curve):
        yield f"has values of {length} numbers: length() is 1, or that of a curve, with curve = True"
    del redrawn


def _unrecorded(plugin: Plugged) -> Iterator[str]:
    """Yield why the parameters of a plug-in cannot be written to the run's manifest."""
    try:
        canonical_json(plugin.parameters())
    except (TypeError, ValueError) as error:
        yield f"has parameters that run.json cannot hold ({error}): use numbers, texts, lists and dicts of them"


def _advice(method: PluggedMethod, wrong: str) -> str:
    if not method.needs.gradients and ("KeyError" in wrong or "gradients were not captured" in wrong):
        return ": gradients are there if needs = camatlas.Needs(gradients=True)"
    return ""


def _raise(plugin: Plugged, problems: Any) -> None:  # noqa: ANN401 - an iterable of phrases
    where = f"explain.{'methods' if isinstance(plugin, PluggedMethod) else 'metrics'}.{plugin.label}"
    mistakes = [Mistake(where, f"{plugin.who} {problem}") for problem in problems]
    if mistakes:
        raise ConfigError(mistakes)
