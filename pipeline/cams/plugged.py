"""Methods of the user's: the base that gives their defaults, and the guarded call of one in a run.

Legend: B rows (image, target), (u, v) grid.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from pipeline.cams.base import CamMethod, Cost, Needs, NetShape, Paper
from pipeline.errors import ConfigError, Mistake, PluginError
from pipeline.model.attention_evidence import AttentionEvidence
from pipeline.model.evidence import Evidence
from pipeline.model.guard import guard_of
from pipeline.model.probe import Probe
from pipeline.settings.entry_points import METHOD_GROUP
from pipeline.settings.plugins import PAGE, Plugged, Room

NO_PAPER = Paper("the author of the plug-in", "defined by its source", "a plug-in", 0, "no publication")


class BaseMethod:
    """Defaults of a method of the user's: it needs the activations of the target layer, and its cost is measured.

    A method is a frozen dataclass whose fields are its parameters, with
    `__call__(self, evidence: Evidence, probe: Probe) -> Tensor`, which returns maps (B, u, v). It may declare
    `cost(self, net: NetShape) -> Cost`, the passes per image beyond the shared one; otherwise they are counted on a
    trial image.
    """

    needs: ClassVar[Needs] = Needs()
    paper: ClassVar[Paper] = NO_PAPER
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}


@dataclass(frozen=True)
class PluggedMethod(Plugged):
    """A method of the user's in a run, called so that it can harm neither the model nor other methods.

    Attributes:
        measured: passes per image that were counted on a trial image; None before the trial.
    """

    measured: Cost | None = None

    @property
    def name(self) -> str:
        """Return its class, `package.module:Class`."""
        return self.origin

    @property
    def needs(self) -> Needs:
        """Return what it requires when it is called."""
        needs: Needs = self.thing.needs
        return needs

    @property
    def paper(self) -> Paper:
        """Return the publication that it comes from."""
        return getattr(self.thing, "paper", NO_PAPER)

    @property
    def interpretation(self) -> bool:
        """Return whether its paper leaves the formula open."""
        return getattr(self.thing, "interpretation", False)

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Return its named settings."""
        return getattr(self.thing, "presets", {})

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), float32.

        Raises:
            PluginError: the method raised an exception, gave no such maps, or changed the model.
        """
        maps_Buv, wrong = self.attempt(private(evidence, self.needs), probe)
        if maps_Buv is None or wrong:
            raise PluginError(Mistake(f"explain.methods.{self.label}", f"{self.who} {each}") for each in wrong)
        return maps_Buv

    def attempt(self, own: Evidence, probe: Probe) -> tuple[Tensor | None, list[str]]:
        """Call the method on evidence of its own; return its maps, None without any, and what it did wrong."""
        with probe.scorer.caching(own):
            maps_Buv, wrong = guard_of(probe).call(lambda: self.thing(own, probe))
        if wrong and maps_Buv is None:
            return None, wrong
        problem = _shape_problem(maps_Buv, own)
        if problem:
            return None, [*wrong, problem]
        assert maps_Buv is not None
        return maps_Buv.detach().float(), wrong

    def declares_cost(self) -> bool:
        """Tell whether the class declares its cost."""
        return callable(getattr(self.thing, "cost", None))

    def cost(self, net: NetShape) -> Cost:
        """Return the passes per image: as declared, or as measured in the trial; none before it."""
        if self.declares_cost():
            declared: Cost = self.thing.cost(net)
            return declared
        return self.measured or Cost()


def private(evidence: Evidence, needs: Needs) -> Evidence:
    """Copy what a method declares that it needs of the evidence, so that no change of it reaches other methods."""
    layers = evidence.layers if needs.stages else evidence.layers[-1:]
    return replace(
        evidence,
        pixels_BCHW=evidence.pixels_BCHW.clone(),
        layers=layers,
        acts={layer: evidence.acts[layer].clone() for layer in layers},
        grads={layer: evidence.grads[layer].clone() for layer in layers} if needs.gradients else {},
        logits_BN=evidence.logits_BN.clone(),
        targets_B=evidence.targets_B.clone(),
        images_B=evidence.images_B.clone(),
        raw=evidence.raw.clone(),
        head=evidence.head if needs.gradients else None,
        attention=_private_attention(evidence, needs),
    )


def _private_attention(evidence: Evidence, needs: Needs) -> AttentionEvidence | None:
    """Copy what a method declares that it needs of the attention."""
    if evidence.attention is None or not (needs.attention or needs.attention_gradients or needs.readouts):
        return None
    own = evidence.attention.private()
    products = own.products if needs.attention_gradients else ()
    return replace(own, products=products, by_layer=own.by_layer if needs.readouts else None)


def wrapped(thing: Any, label: str, origin: str, sha256: str) -> CamMethod:  # noqa: ANN401 - an object of the user's
    """Make the method of a run from a user's object.

    Raises:
        ConfigError: everything that it lacks to be a method.
    """
    mistakes = [Mistake(f"explain.methods.{label}", f"'{origin}' {problem}", PAGE) for problem in _problems(thing)]
    if mistakes:
        raise ConfigError(mistakes)
    return cast(CamMethod, PluggedMethod(thing, label, origin, sha256))  # its facts are those of the object


METHOD_PLUGINS: Room[CamMethod] = Room("method", METHOD_GROUP, ("evidence", "probe"), wrapped)


def _problems(thing: Any) -> Iterator[str]:  # noqa: ANN401 - an object of the user's
    needs = getattr(thing, "needs", None)
    if needs is None:
        yield "does not say what it needs: derive it from camatlas.BaseMethod, or set needs = camatlas.Needs(...)"
    elif not isinstance(needs, Needs):
        yield f"has needs of the type {type(needs).__name__}: set needs = camatlas.Needs(...)"
    yield from common_problems(thing)
    if getattr(thing, "cost", None) is not None and not callable(thing.cost):
        yield "has a cost that is no function: write def cost(self, net) -> camatlas.Cost, or leave it out"


def common_problems(thing: Any) -> Iterator[str]:  # noqa: ANN401 - an object of the user's
    """Yield what is wrong with the facts that methods and metrics share."""
    if not isinstance(getattr(thing, "paper", NO_PAPER), Paper):
        yield "has a paper that is no camatlas.Paper"
    presets = getattr(thing, "presets", {})
    if not isinstance(presets, dict) or not all(isinstance(preset, dict) for preset in presets.values()):
        yield "has presets that are no dict of dicts"


def _shape_problem(maps: object, own: Evidence) -> str:
    """Say why a result is not one map for each row; empty if it is."""
    rows, device = len(own.keys), own.acts_BKuv.device
    wanted = f"; a method returns a float tensor ({rows}, u, v), one map for each row of the evidence"
    if not isinstance(maps, Tensor):
        return f"returned {_article(type(maps).__name__)}{wanted}"
    if maps.ndim != 3 or len(maps) != rows or not maps.numel():
        return f"returned a tensor of the shape {tuple(maps.shape)}{wanted}"
    if not maps.is_floating_point():
        return f"returned a tensor of {maps.dtype}{wanted}"
    return "" if maps.device == device else f"returned a tensor on {maps.device}, but the evidence is on {device}"


def _article(noun: str) -> str:
    return f"{'an' if re.match('[AEIOUaeiou]', noun) else 'a'} {noun}"


def same_values(one: Tensor, other: Tensor) -> bool:
    """Tell whether tensors are equal, with NaN equal to itself."""
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
