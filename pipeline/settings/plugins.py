"""Finds the methods and metrics of the user's, checks their classes, and builds them with checked parameters.

A plug-in is a class that a run file names as `package.module:Class`, or that an installed package declares as an entry
point; in Python, also an object. Plug-ins are called through a `Plugged` object, which knows their name and source.
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from pipeline.errors import ConfigError, Mistake, Mistakes, first_line, nearest
from pipeline.settings.entry_points import entries, find_entry
from pipeline.settings.functions import found, place_of
from pipeline.settings.sources import source_digest

Thing = TypeVar("Thing")
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
PAGE = "docs/plug-ins.md shows one"
_RESERVED = ("name", "plugin", "as", "preset")
_EXACT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Plugged:
    """A plug-in in a run.

    Attributes:
        thing: the user's object.
        label: its name in the run.
        origin: its class, `package.module:Class`.
        sha256: digest of its source; empty for an object that was made in Python.
    """

    thing: Any
    label: str
    origin: str
    sha256: str = ""

    @property
    def who(self) -> str:
        """Name the plug-in in a sentence."""
        return f"plug-in {self.origin}"

    def facts(self) -> dict[str, Any]:
        """Return what the manifest holds besides the parameters, for readers that cannot import the plug-in."""
        return {"sha256": self.sha256}

    def parameters(self) -> dict[str, Any]:
        """Return its class, the digest of its source and its parameters, as the run's identity records them."""
        facts = {"plugin": self.facts()} if self.sha256 else {}
        return {"name": self.origin, **facts, **dataclasses.asdict(self.thing)}


@dataclass(frozen=True)
class Room(Generic[Thing]):
    """What plug-ins of one kind must be.

    Attributes:
        noun: method or metric.
        group: the entry points of such plug-ins.
        arguments: names of what `__call__` takes.
        wrap: makes the `Plugged` object from a user's object, label, origin and digest; raises ConfigError.
    """

    noun: str
    group: str
    arguments: tuple[str, ...]
    wrap: Callable[[Any, str, str, str], Thing]


@dataclass(frozen=True)
class Found:
    """A plug-in's class, its name `package.module:Class`, and the name that rows have by default."""

    kind: type[Any]
    origin: str
    default: str


def find(name: str, room: Room[Thing], registry: Mapping[str, type], where: str) -> Found | None:
    """Find the class that a name means: `package.module:Class`, or an entry point; None for a name of neither kind.

    Raises:
        ConfigError: it cannot be imported, is no class of a plug-in, or several packages, or ours, have that name.
    """
    if ":" in name:
        kind = checked_class(found(where, name), name, room, where)
        return Found(kind, name, default_label(kind, registry))
    entry = find_entry(name, room.group, room.noun, registry, where)
    if entry is None:
        return None
    origin = f"{entry.module}:{entry.attr}"
    try:
        kind = entry.load()
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ConfigError.one(
            where, f"the entry point '{name}' ({origin}) cannot be loaded: {first_line(error)}{place_of(error)}"
        ) from error
    return Found(checked_class(kind, origin, room, where), origin, name)


def built(plugin: Found, label: str, options: Mapping[str, Any], *, room: Room[Thing], where: str) -> Thing:
    """Build a plug-in from its parameters.

    Raises:
        ConfigError: every unknown, missing or wrong parameter, or what it lacks to be a method or metric.
    """
    values = _values(plugin.kind, options, where)
    try:
        thing = plugin.kind(**values)
    except ValidationError:
        raise  # of a pydantic dataclass
    except (Exception, SystemExit) as error:
        raise ConfigError.one(where, f"making it raised {first_line(error)}{place_of(error)}") from error
    return room.wrap(thing, label, plugin.origin, source_digest(where, plugin.origin, plugin.kind))


def given(thing: object, room: Room[Thing], registry: Mapping[str, type], where: str) -> tuple[str, Thing]:
    """Take an object that was made in Python; return its name in the run and the plug-in.

    Raises:
        ConfigError: what it lacks to be a method or metric.
    """
    kind = type(thing)
    origin = f"{kind.__module__}:{kind.__qualname__}"
    label = default_label(checked_class(kind, origin, room, where), registry)
    return label, room.wrap(thing, label, origin, "")


def classes_of(specs: Iterable[object], group: str) -> list[str]:
    """Return the classes of plug-ins, `package.module:Class`, that a list in a run file names."""
    names = [next(iter(spec), None) if isinstance(spec, Mapping) else spec for spec in specs]
    declared = entries(group)
    return [
        f"{declared[name][0].module}:{declared[name][0].attr}" if name in declared else name
        for name in names
        if isinstance(name, str) and (":" in name or name in declared)
    ]


def checked_class(kind: object, name: str, room: Room[Thing], where: str) -> type[Any]:
    """Check what can be seen of a plug-in's class without making an object.

    Raises:
        ConfigError: every reason why it is no class of a plug-in.
    """
    takes = f"takes ({', '.join(room.arguments)})"
    if not isinstance(kind, type):
        what = "a function" if inspect.isroutine(kind) else f"an object of {type(kind).__name__}"
        raise ConfigError.one(
            where, f"'{name}' is {what}; a {room.noun} is a class, a frozen dataclass whose __call__ {takes}", PAGE
        )
    mistakes = [Mistake(where, f"'{name}' {problem}", PAGE) for problem in _class_problems(kind, room, takes)]
    if mistakes:
        raise ConfigError(mistakes)
    return kind


def default_label(kind: type, registry: Mapping[str, type]) -> str:
    """Return the name that a class gives itself (not the one it inherits from ours), else its class name as a_b_c."""
    for base in kind.__mro__:
        if base in registry.values():
            break
        if isinstance(name := vars(base).get("name"), str):
            return name
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.__name__)
    return parted.lower().strip("_")


def _class_problems(kind: type, room: Room[Thing], takes: str) -> Iterator[str]:
    own = vars(kind)
    if "__dataclass_fields__" not in own:
        yield "is no dataclass: write @dataclass(frozen=True) above the class"
    elif not own["__dataclass_params__"].frozen:
        yield "can be changed after it was made: write @dataclass(frozen=True) above the class"
    call = next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)
    if call is None:
        yield f"cannot be called: a {room.noun} has a function __call__ that {takes}"
    elif not _can_take(call, len(room.arguments)):
        yield f"has a __call__ with the signature {inspect.signature(call)}, but that of a {room.noun} {takes}"
    fields = own.get("__dataclass_fields__", {}) if "__dataclass_fields__" in own else {}
    for name in _RESERVED:
        if name in fields and fields[name]._field_type is not dataclasses._FIELD_CLASSVAR:  # type: ignore[attr-defined]
            yield f"has a parameter '{name}', which means something else here: rename it, or make it a ClassVar"


def _can_take(call: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(call).bind(None, *[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # a function in C may have no signature
        return True
    return True


def _values(kind: type, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check parameters by the signature and the annotations of a class, and return their values.

    Raises:
        ConfigError: every unknown, missing or wrong parameter.
    """
    signature, mistakes = inspect.signature(kind).parameters, Mistakes()
    hints, values = _hints(kind), dict[str, Any]()
    for name, value in options.items():
        with mistakes.collecting():
            if name not in signature:
                raise ConfigError.one(where, f"unknown parameter '{name}'", nearest(name, signature))
            values[name] = _value(hints.get(name, Any), value, f"{where}.{name}")
    for name, parameter in signature.items():
        if parameter.default is parameter.empty and name not in options:
            mistakes.found.append(Mistake(f"{where}.{name}", "is required", "it has no default"))
    mistakes.raise_if_any()
    return values


def _hints(kind: type) -> dict[str, Any]:
    """Return the types of a class's fields; none where they cannot be found out."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # an annotation may be any text
        return {}


def _value(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type, which has no type of its own
    """Return a value of a type; a list, as YAML has it, may stand for a tuple."""
    try:
        adapter = TypeAdapter[Any](hint, config=_EXACT)
    except PydanticUserError:
        adapter = TypeAdapter[Any](hint)  # a type with settings of its own
    except Exception:  # not a type that can be checked
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        wrong = error
    try:
        if isinstance(value, list):
            return adapter.validate_python(tuple(value))
    except ValidationError as error:
        wrong = error if any(problem["loc"] for problem in error.errors()) else wrong
    wanted = " or ".join(dict.fromkeys(problem["msg"].replace("tuple", "list") for problem in wrong.errors()))
    raise ConfigError.one(where, f"{wanted}, got {short(value)}")


def short(value: object) -> str:
    """Format a value on one line of at most 120 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
