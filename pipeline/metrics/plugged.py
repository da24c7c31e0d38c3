"""Metrics of the user's: the base that gives their defaults, and the guarded call of one in a run.

Legend: B rows (image, target), M maps of a row (one a method), S points of a curve.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

from torch import Tensor

from pipeline.cams.base import Paper
from pipeline.cams.plugged import NO_PAPER, common_problems
from pipeline.errors import ConfigError, Mistake, PluginError
from pipeline.metrics import views as our_views
from pipeline.metrics.base import Metric, ReadsMap, Redrawn
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import View
from pipeline.model.guard import guard_of
from pipeline.settings.entry_points import METRIC_GROUP
from pipeline.settings.plugins import PAGE, Plugged, Room

Better = Literal["higher", "lower", "neither"]
Reads = Literal["probability", "logit", "probability or logit", "map"]
Needed = Literal["nothing", "boxes", "parts"]


class BaseMetric(ReadsMap):
    """Defaults of a metric of the user's: one number without a direction, computed from the map alone.

    A metric is a frozen dataclass whose fields are its parameters, with `__call__(self, batch: ScoringBatch)`, which
    returns a tensor of values (B, M), NaN where it does not apply. One that scores changed images lists them in
    `views`, and sets `reads`.
    """

    paper: ClassVar[Paper] = NO_PAPER
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "neither"
    truth: ClassVar[Needed] = "nothing"
    """What images must have for the metric to apply."""


@dataclass(frozen=True)
class PluggedMetric(Plugged):
    """A metric of the user's in a run, called so that it can harm neither the model nor other metrics."""

    @property
    def name(self) -> str:
        """Return its class, `package.module:Class`."""
        return self.origin

    @property
    def paper(self) -> Paper:
        """Return the publication that it comes from."""
        return getattr(self.thing, "paper", NO_PAPER)

    @property
    def unit(self) -> str:
        """Return the unit of its values."""
        return str(self.thing.unit)

    @property
    def better(self) -> Better:
        """Return which direction is better."""
        better: Better = self.thing.better
        return better

    @property
    def reads(self) -> Reads:
        """Return what it reads."""
        reads: Reads = self.thing.reads
        return reads

    @property
    def score(self) -> object:
        """Return the parameter that chooses between probability and logit."""
        return getattr(self.thing, "score", None)

    @property
    def curve(self) -> bool:
        """Return whether a value is a list of numbers."""
        return bool(self.thing.curve)

    @property
    def truth(self) -> Needed:
        """Return what images must have for it to apply."""
        return getattr(self.thing, "truth", "nothing")

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Return its named settings."""
        return getattr(self.thing, "presets", {})

    def facts(self) -> dict[str, Any]:
        """Return what the manifest holds besides the parameters, for readers that cannot import the metric."""
        return {"sha256": self.sha256, "unit": self.unit, "better": self.better, "reads": self.reads}

    def length(self) -> int:
        """Return how many numbers a value has."""
        return int(self.thing.length())

    def views(self) -> tuple[View, ...]:
        """Return the changed images that the model must score."""
        return tuple(self.thing.views())

    def shared_views(self) -> tuple[View, ...]:
        """Return those of them that are ours, which other metrics may share."""
        return tuple(view for view in self.views() if type(view).__module__ == our_views.__name__)

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return the maps of changed images that the methods must compute."""
        return tuple(self.thing.redrawn_maps())

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute one value per row and map, (B, M) float32, or (B, M, S) for a curve; NaN where it does not apply.

        Raises:
            PluginError: the metric raised an exception, gave no such values, or changed the model.
        """
        values_BM, wrong = self.attempt(batch.private())
        if values_BM is None or wrong:
            raise PluginError(Mistake(f"explain.metrics.{self.label}", f"{self.who} {each}") for each in wrong)
        return values_BM

    def attempt(self, own: ScoringBatch) -> tuple[Tensor | None, list[str]]:
        """Call the metric on a batch of its own; return its values, None without any, and what it did wrong."""

        def work() -> Tensor:
            own.run(self.views())
            values: Tensor = self.thing(own)
            return values

        values_BM, wrong = guard_of(own.probe).call(work)
        if wrong and values_BM is None:
            return None, wrong
        problem = self._shape_problem(values_BM, own.heatmaps_BMHW)
        if problem:
            return None, [*wrong, problem]
        assert values_BM is not None
        return values_BM.detach().float(), wrong

    def _shape_problem(self, values: object, heatmaps_BMHW: Tensor) -> str:
        """Say why a result is not one value for each row and map; empty if it is."""
        shape = (*heatmaps_BMHW.shape[:2], *([self.length()] if self.curve else []))
        wanted = f"; a metric returns a float tensor {shape}, one value for each row and map"
        if not isinstance(values, Tensor):
            return f"returned {type(values).__name__}{wanted}"
        if tuple(values.shape) != shape:
            return f"returned a tensor of the shape {tuple(values.shape)}{wanted}"
        if not values.is_floating_point():
            return f"returned a tensor of {values.dtype}{wanted}"
        on, device = values.device, heatmaps_BMHW.device
        return "" if on == device else f"returned a tensor on {on}, but the maps are on {device}"


def wrapped(thing: Any, label: str, origin: str, sha256: str) -> Metric:  # noqa: ANN401 - an object of the user's
    """Make the metric of a run from a user's object.

    Raises:
        ConfigError: everything that it lacks to be a metric.
    """
    mistakes = [Mistake(f"explain.metrics.{label}", f"'{origin}' {problem}", PAGE) for problem in _problems(thing)]
    if mistakes:
        raise ConfigError(mistakes)
    return cast(Metric, PluggedMetric(thing, label, origin, sha256))  # its facts are those of the object


METRIC_PLUGINS: Room[Metric] = Room("metric", METRIC_GROUP, ("batch",), wrapped)

_BASE = "derive it from camatlas.BaseMetric, or set "


def _problems(thing: Any) -> Iterator[str]:  # noqa: ANN401 - an object of the user's
    for name, known in (("better", Better), ("reads", Reads)):
        if getattr(thing, name, None) not in get_args(known):
            given, allowed = getattr(thing, name, "missing"), ", ".join(get_args(known))
            yield f"does not say {_MEANING[name]}: '{name}' is {given!r}; {_BASE}it to one of {allowed}"
    if not isinstance(getattr(thing, "unit", None), str):
        yield f"does not say the unit of its values: {_BASE}unit to a text"
    if not isinstance(getattr(thing, "curve", None), bool):
        yield f"does not say whether its value is a curve: {_BASE}curve to True or False"
    for name in ("length", "views", "redrawn_maps"):
        if not callable(getattr(thing, name, None)):
            yield f"has no function {name}: {_BASE.removesuffix(', or set ')}"
    if getattr(thing, "truth", "nothing") not in get_args(Needed):
        yield f"has truth = {thing.truth!r}: it is one of {', '.join(get_args(Needed))}"
    if getattr(thing, "reads", None) == "probability or logit" and getattr(thing, "score", None) not in _SCORES:
        yield "reads 'probability or logit', so that it needs a parameter 'score', one of probability, logit"
    yield from common_problems(thing)


_MEANING = {"better": "which direction is better", "reads": "what it reads"}
_SCORES = ("probability", "logit")
