"""Builds methods and metrics from the run file: by name, preset and parameters."""

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.errors import ConfigError, Mistake, Mistakes, nearest

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


def build_all(specs: Iterable[Spec], registry: Mapping[str, type[Thing]], where: str) -> dict[str, Thing]:
    """Build methods or metrics, keyed by their name in the run.

    `{iscam: {schedule: linear, as: iscam_linear}}` gives a second variant its own name; `preset: NAME` starts from
    a named setting.

    Raises:
        ConfigError: names every unknown name, preset, parameter and value, and every name used twice.
    """
    if isinstance(specs, (str, Mapping)):
        raise ConfigError.one(where, f"{specs!r} is not a list", "write it in brackets: [...]")
    mistakes, built = Mistakes(), dict[str, Thing]()
    for spec in specs:
        with mistakes.collecting():
            label, thing = _build(spec, registry, where)
            if label in built:
                raise ConfigError.one(where, f"'{label}' is listed twice", "give the second one a name: {as: ...}")
            built[label] = thing
    mistakes.raise_if_any()
    return built


def parameters(thing: object) -> dict[str, Any]:
    """Return the parameters of a method or metric as the run's identity records them."""
    if isinstance(thing, Named):
        return thing.identity()
    if not dataclasses.is_dataclass(thing) or isinstance(thing, type):
        raise TypeError(f"{thing!r} is not a method or metric")
    return {"name": getattr(type(thing), "name"), **dataclasses.asdict(thing)}  # noqa: B009 - a ClassVar


def _build(spec: Spec, registry: Mapping[str, type[Thing]], where: str) -> tuple[str, Thing]:
    for name, kind in registry.items():
        if type(spec) is kind:
            return _label(spec, name), spec
    name, options = _split(spec, where)
    if name not in registry:
        raise ConfigError.one(where, f"unknown name '{name}'", nearest(name, registry))
    kind = registry[name]
    given = options.pop("as", None)
    label = name if given is None else given
    if not isinstance(label, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", label):
        raise ConfigError.one(
            f"{where}.{name}", f"'{label}' is not a name", "at most 63 letters a-z, digits and _, no digit first"
        )
    options = _preset(kind, options.pop("preset", None), f"{where}.{name}") | options
    try:
        thing = kind(**options)
        return label if given is not None else _label(thing, name), thing
    except ValidationError as error:
        raise ConfigError(_mistakes(error, kind, f"{where}.{name}")) from None


def _label(thing: object, name: str) -> str:
    return thing.label if isinstance(thing, Named) else name


def _split(spec: Spec, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, options),) = spec.items()
        if options is None or isinstance(options, Mapping):
            return str(name), {str(parameter): value for parameter, value in (options or {}).items()}
    raise ConfigError.one(where, f"{spec!r} is neither a name nor {{name: {{parameter: value}}}}")


def _preset(kind: type[Any], preset: object, where: str) -> dict[str, Any]:
    if preset is None:
        return {}
    presets: dict[str, dict[str, Any]] = kind.presets
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
        problems.setdefault(str(problem["loc"][0]), []).append(problem)
    mistakes = []
    for name, found in problems.items():
        if found[0]["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            mistakes.append(Mistake(where, f"unknown parameter '{name}'", nearest(name, known)))
        else:
            inside_list = len(found[0]["loc"]) > 1 and isinstance(found[0]["loc"][1], int)
            shown = found[:1] if inside_list else found  # the first mistake in a list, every alternative of a union
            wanted = " or ".join(dict.fromkeys(problem["msg"].replace("tuple", "list") for problem in shown))
            mistakes.append(Mistake(f"{where}.{name}", f"{wanted}, got {_short(found[0]['input'])}"))
    return mistakes


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
