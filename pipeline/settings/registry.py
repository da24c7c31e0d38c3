"""Builds methods and metrics from the run file: ours by name, preset and parameters, and those of users."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.dataclasses import is_pydantic_dataclass

from pipeline.errors import ConfigError, Mistake, Mistakes, first_line, nearest
from pipeline.settings.plugins import Named, entries, label_of, named_class, origin_of, source_digest

Made = TypeVar("Made")
Spec = str | Mapping[str, Any] | object
"""A name, {name: {parameter: value}}, or an object made by the caller."""


@dataclasses.dataclass(frozen=True)
class Kind(Generic[Made]):
    """What methods have in common, or metrics: ours by name, and how those of users become one of them.

    Attributes:
        where: their list in the run file.
        group: their group of entry points.
        ours: the classes of ours by name.
        problem: says why a user's object is not one of them, and what to do; empty if it is one.
        adapted: makes one of them of a user's object, its origin and the digest of its source.
    """

    where: str
    group: str
    ours: Mapping[str, type[Made]]
    problem: Callable[[object], tuple[str, str]]
    adapted: Callable[[object, str, str], Made]


def build_all(specs: Iterable[Spec], kind: Kind[Made]) -> dict[str, Made]:
    """Build methods or metrics, keyed by their name in the run.

    `{iscam: {schedule: linear, as: iscam_linear}}` gives a second variant its own name; `preset: NAME` starts from
    a named setting. `package.module:Class` and the names of entry points are plug-ins.

    Raises:
        ConfigError: names every unknown name, preset, parameter and value, and every name used twice.
    """
    where = kind.where
    if isinstance(specs, (str, Mapping)):
        raise ConfigError.one(where, f"{specs!r} is not a list", "write it in brackets: [...]")
    mistakes, built = Mistakes(), dict[str, Made]()
    for spec in specs:
        with mistakes.collecting():
            label, thing = _build(spec, kind)
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


def _build(spec: Spec, kind: Kind[Made]) -> tuple[str, Made]:
    for name, ours in kind.ours.items():
        if type(spec) is ours:
            return _label(spec, name), spec
    if not isinstance(spec, (str, Mapping)):
        if isinstance(spec, type) or not dataclasses.is_dataclass(spec):
            raise ConfigError.one(
                kind.where,
                f"{_short(spec)} is neither a name nor {{name: {{parameter: value}}}}",
                "from Python, also an object: MyClass()",
            )
        return label_of(type(spec)), _adapted(spec, kind)
    name, options = _split(spec, kind.where)
    chosen = kind.ours.get(name) or named_class(name, kind.group, kind.where)
    if chosen is None:
        raise ConfigError.one(kind.where, f"unknown name '{name}'", nearest(name, [*kind.ours, *entries(kind.group)]))
    is_named = "as" in options
    label = options.pop("as", name if name in kind.ours else label_of(chosen))
    if not isinstance(label, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", label):
        raise ConfigError.one(
            f"{kind.where}.{name}", f"'{label}' is not a name", "at most 63 letters a-z, digits and _, no digit first"
        )
    if name not in kind.ours and label in kind.ours:
        raise ConfigError.one(
            f"{kind.where}.{name}", f"'{label}' is one of camatlas", "give it another name: {as: ...}"
        )
    options = _preset(chosen, options.pop("preset", None), f"{kind.where}.{name}") | options
    made = _made(chosen, options, f"{kind.where}.{name}")
    if name not in kind.ours:
        return label, _adapted(made, kind)
    return label if is_named else _label(made, name), made


def _made(chosen: type[Any], options: dict[str, Any], where: str) -> Any:  # noqa: ANN401 - an object of that class
    """Make an object with the parameters of a run file; those of plain dataclasses are checked by their annotations."""
    checks_itself = is_pydantic_dataclass(chosen)
    known = [field.name for field in dataclasses.fields(chosen) if field.init]
    unknown = [] if checks_itself else [name for name in options if name not in known]
    if unknown:
        raise ConfigError(Mistake(where, f"unknown parameter '{name}'", nearest(name, known)) for name in unknown)
    try:
        return chosen(**options) if checks_itself else _validated(chosen, options)
    except ValidationError as error:
        raise ConfigError(_mistakes(error, chosen, where)) from None
    except Exception as error:  # a user's class may raise anything
        raise ConfigError.one(where, f"it cannot be made: {first_line(error)}") from error


def _validated(chosen: type[Any], options: dict[str, Any]) -> Any:  # noqa: ANN401 - an object of that class
    try:
        adapter = TypeAdapter(chosen)
    except PydanticSchemaGenerationError:  # an annotation that pydantic does not know
        return chosen(**options)
    return adapter.validate_python(options)


def _adapted(given: Any, kind: Kind[Made]) -> Made:  # noqa: ANN401 - a user's object
    origin = origin_of(type(given))
    problem, advice = kind.problem(given)
    if problem:
        raise ConfigError.one(kind.where, f"'{origin}' {problem}", advice)
    return kind.adapted(given, origin, source_digest(type(given)))


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
    presets: dict[str, dict[str, Any]] = getattr(kind, "presets", {})
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
