"""Builds methods and metrics from the run file: by name, preset and parameters."""

import dataclasses
import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.errors import ConfigError, Mistake, Mistakes, nearest
from pipeline.settings import plugins
from pipeline.settings.entry_points import entries
from pipeline.settings.plugins import LABEL, Plugged, Room, short

Thing = TypeVar("Thing")
Spec = str | Mapping[str, Any] | object
"""A name, {name: {parameter: value}}, or an object made by the caller."""


class Named(ABC):
    """A method whose name in the run and whose identity depend on its parameters."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name in a run that gives it none."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what determines its results, as the run's identity records it."""


def build_all(
    specs: Iterable[Spec], registry: Mapping[str, type[Thing]], where: str, room: Room[Thing]
) -> dict[str, Thing]:
    """Build methods or metrics, keyed by their name in the run.

    `{iscam: {schedule: linear, as: iscam_linear}}` gives a second variant its own name; `preset: NAME` starts from
    a named setting. Other names are those of plug-ins: `package.module:Class`, or an entry point.

    Args:
        specs: what is to be built.
        registry: our own classes by name.
        where: key of the run file.
        room: what plug-ins must be.

    Raises:
        ConfigError: names every unknown name, preset, parameter and value, and every name used twice.
    """
    if isinstance(specs, (str, Mapping)):
        raise ConfigError.one(where, f"{specs!r} is not a list", "write it in brackets: [...]")
    mistakes, built = Mistakes(), dict[str, Thing]()
    for spec in specs:
        with mistakes.collecting():
            label, thing = _build(spec, registry, where, room)
            if label in built:
                raise ConfigError.one(where, f"'{label}' is listed twice", "give the second one a name: {as: ...}")
            built[label] = thing
    mistakes.raise_if_any()
    return built


def unknown_name(where: str, name: str, known: Iterable[str]) -> Mistake:
    """Describe a name that no method or metric has."""
    by_letters = {_letters(one): one for one in sorted(known)}
    close = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=0.5)
    hint = f"did you mean '{by_letters[close[0]]}'?" if close else nearest(name, by_letters.values())
    return Mistake(where, f"unknown name '{name}'", hint)


def _letters(name: str) -> str:
    """Reduce a name to what its spellings share: `Grad-CAM++`, `GradCAM++` and `gradcam_pp` are one."""
    return "".join(char for char in name.lower().replace("++", "pp") if char.isalnum())


def parameters(thing: object) -> dict[str, Any]:
    """Return the parameters of a method or metric as the run's identity records them."""
    if isinstance(thing, Named):
        return thing.identity()
    if isinstance(thing, Plugged):
        return thing.parameters()
    if not dataclasses.is_dataclass(thing) or isinstance(thing, type):
        raise TypeError(f"{thing!r} is not a method or metric")
    return {"name": getattr(type(thing), "name"), **dataclasses.asdict(thing)}  # noqa: B009 - a ClassVar


def _build(spec: Spec, registry: Mapping[str, type[Thing]], where: str, room: Room[Thing]) -> tuple[str, Thing]:
    for name, kind in registry.items():
        if type(spec) is kind:
            return _label(spec, name), spec
    if isinstance(spec, Plugged):  # such as a method of earlier explanations
        return spec.label, spec  # type: ignore[return-value]
    if _is_object(spec):
        label, thing = plugins.given(spec, room, registry, where)
        return _not_ours(_checked(label, where), registry, where, room), thing
    name, options = _split(spec, where)
    place, plugin = f"{where}.{name}", plugins.find(name, room, registry, where)
    named = {kind: ours for ours, kind in registry.items()}
    if plugin is not None and plugin.kind not in named:
        label = _not_ours(_checked(options.pop("as", plugin.default), place), registry, place, room)
        return label, _told(
            plugin.kind, options, place, lambda chosen: plugins.built(plugin, label, chosen, room=room, where=place)
        )
    name = name if plugin is None else named[plugin.kind]
    if name not in registry:
        raise ConfigError([unknown_name(where, name, [*registry, *entries(room.group)])])
    kind = registry[name]
    given = [_checked(options.pop("as"), place)] if "as" in options else []
    thing = _told(kind, options, place, lambda chosen: kind(**chosen))
    return given[0] if given else _label(thing, name), thing


def _is_object(spec: Spec) -> bool:
    """Tell whether something may be a method or metric that was made in Python."""
    if isinstance(spec, type) or inspect.isroutine(spec):
        return False
    return callable(spec) or dataclasses.is_dataclass(spec)


def _checked(label: object, where: str) -> str:
    """Check that a name in the run is a plain name."""
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        raise ConfigError.one(where, f"'{label}' is not a name", "at most 63 letters a-z, digits and _, no digit first")
    return label


def _not_ours(label: str, registry: Mapping[str, object], where: str, room: Room[Thing]) -> str:
    """Check that a plug-in does not take a name of ours, which readers of the rows would take for ours."""
    if label in registry:
        hint = "give yours another name: {as: ...}, or name: ClassVar[str] in its class"
        raise ConfigError.one(where, f"'{label}' is the name of a {room.noun} of camatlas", hint)
    return label


def _told(kind: type[Any], options: dict[str, Any], where: str, make: Callable[[dict[str, Any]], Thing]) -> Thing:
    """Make an object of a class from a preset and parameters; what pydantic refuses are mistakes of the run file."""
    chosen = _preset(kind, options.pop("preset", None), where) | options
    try:
        return make(chosen)
    except ValidationError as error:
        raise ConfigError(_mistakes(error, kind, where)) from None


def _label(thing: object, name: str) -> str:
    return thing.label if isinstance(thing, Named) else name


def _split(spec: Spec, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, options),) = spec.items()
        if options is None or isinstance(options, Mapping):
            return str(name), {str(parameter): value for parameter, value in (options or {}).items()}
    hint = f"or an object: {spec.__name__}()" if isinstance(spec, type) else ""
    raise ConfigError.one(where, f"{spec!r} is neither a name nor {{name: {{parameter: value}}}}", hint)


def _preset(kind: type[Any], preset: object, where: str) -> dict[str, Any]:
    if preset is None:
        return {}
    presets: Mapping[str, Mapping[str, Any]] = getattr(kind, "presets", {})
    name = str(preset)
    if name not in presets:
        raise ConfigError.one(
            where, f"unknown preset '{name}'", nearest(name, presets) if presets else "it has no presets"
        )
    return dict(presets[name])


def _mistakes(error: ValidationError, kind: type[Any], where: str) -> list[Mistake]:
    known = [field.name for field in dataclasses.fields(kind)]
    problems: dict[str, list[Any]] = {}
    for problem in error.errors():  # after the parameter, pydantic's `loc` names places inside it and union members
        problems.setdefault(str(problem["loc"][0]) if problem["loc"] else "", []).append(problem)
    mistakes = []
    for name, found in problems.items():
        if found[0]["type"] in ("missing", "missing_argument"):
            mistakes.append(Mistake(f"{where}.{name}", "is required"))
        elif found[0]["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            mistakes.append(Mistake(where, f"unknown parameter '{name}'", nearest(name, known)))
        else:
            inside_list = len(found[0]["loc"]) > 1 and isinstance(found[0]["loc"][1], int)
            shown = found[:1] if inside_list else found  # the first mistake in a list, every alternative of a union
            wanted = " or ".join(dict.fromkeys(problem["msg"].replace("tuple", "list") for problem in shown))
            mistakes.append(Mistake(f"{where}.{name}".rstrip("."), f"{wanted}, got {short(found[0]['input'])}"))
    return mistakes
