"""Reads a file of checks, and finds all mistakes in it, against the names of a run, before anything is measured.

min_images: 20              # the least images of a slice; the default
checks:
  - accuracy >= 0.7
  - check: insertion(gradcam) >= 0.3
    name: the maps find what the model uses
    by: hospital            # each value of a column of data.metadata, of label_name, predicted_name or shard
  - sql: SELECT count(*) FROM images WHERE confidence < 0.2
    at_most: 10
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from pipeline.audit.checks.grammar import Bound, parse
from pipeline.audit.checks.quantities import Names, Quantity
from pipeline.audit.statistics import RARE
from pipeline.errors import ConfigError, Mistake, Mistakes, nearest, reason
from pipeline.results.query import Run

Number = StrictInt | StrictFloat
Model = TypeVar("Model", bound=BaseModel)
BOUNDS = {"at_least": ">=", "at_most": "<=", "above": ">", "below": "<", "equals": "=="}
"""The keys that bound the number of a query, with their operators."""

_PER_IMAGE = ("shard", "label_name", "predicted_name")
_NUMERIC = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER|\d+)?|FLOAT|DOUBLE|DECIMAL\(.*\)|BIGNUM")
_LONGEST_NAME = 200


class _Entry(BaseModel):
    """One check as written in the file."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    check: str | None = None
    sql: str | None = None
    by: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)
    min_images: int | None = Field(default=None, ge=1)
    at_least: Number | None = Field(default=None, allow_inf_nan=False)
    at_most: Number | None = Field(default=None, allow_inf_nan=False)
    above: Number | None = Field(default=None, allow_inf_nan=False)
    below: Number | None = Field(default=None, allow_inf_nan=False)
    equals: Number | None = Field(default=None, allow_inf_nan=False)

    def bounds(self) -> tuple[Bound, ...]:
        """Return the bounds that the keys state."""
        stated = {key: getattr(self, key) for key in BOUNDS}
        return tuple(Bound(BOUNDS[key], float(value)) for key, value in stated.items() if value is not None)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    min_images: int = Field(default=RARE, ge=1)
    checks: list[Any]


@dataclass(frozen=True)
class Check:
    """A check whose names are those of the run.

    Attributes:
        name: for people; no two checks share it.
        bounds: all of them must hold.
        quantity: what is measured; None for a query.
        sql: the query, which gives one number; empty for a quantity.
        by: the column whose values make slices; empty for none.
        where: the values of columns that images must have.
        min_images: slices with fewer images are not judged.
    """

    name: str
    bounds: tuple[Bound, ...]
    quantity: Quantity | None = None
    sql: str = ""
    by: str = ""
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    min_images: int = RARE


def read_checks(path: Path, run: Run) -> list[Check]:
    """Read the checks of a run.

    Raises:
        ConfigError: the file cannot be read, or has mistakes, all of which are reported at once.
    """
    file = _parsed(path)
    names, mistakes, checks = Names(run), Mistakes(), list[Check]()
    for number, raw in enumerate(file.checks, 1):
        with mistakes.collecting():
            checks.append(_check(raw, f"checks[{number}]", names, run, file.min_images))
    twice = {check.name for check in checks if sum(other.name == check.name for other in checks) > 1}
    mistakes.found += [
        Mistake("checks", f"two checks are called '{name}'", "give them a name") for name in sorted(twice)
    ]
    mistakes.raise_if_any()
    return checks


def metadata_columns(run: Run) -> list[str]:
    """List the columns of `data.metadata`."""
    return list(run.manifest.identity.data.get("metadata") or ())


def _parsed(path: Path) -> _File:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError.one("CHECKS", f"cannot read '{path}': {reason(error)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError.one("CHECKS", f"'{path}' is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("checks"), list) or not raw["checks"]:
        hint = "begin with `checks:`, and then a line such as `- accuracy >= 0.7`"
        raise ConfigError.one("CHECKS", f"'{path}' has no list of checks", hint)
    return _valid(_File, raw, "CHECKS")


def _valid(model: type[Model], raw: object, where: str) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(dict.fromkeys(_mistake(model, where, problem) for problem in error.errors())) from None


def _mistake(model: type[BaseModel], where: str, problem: Any) -> Mistake:  # noqa: ANN401 - pydantic's ErrorDetails
    key = str(problem["loc"][0]) if problem["loc"] else ""
    if problem["type"] == "extra_forbidden":
        return Mistake(where, f"unknown key '{key}'", nearest(key, model.model_fields))
    if key in BOUNDS:
        return Mistake(f"{where}.{key}", f"{problem['input']!r} is not a finite number")
    return Mistake(f"{where}.{key}", problem["msg"][0].lower() + problem["msg"][1:])


def _check(raw: object, where: str, names: Names, run: Run, min_images: int) -> Check:
    mistakes = Mistakes()
    entry = _entry(raw, where, mistakes)
    if (entry.check is None) == (entry.sql is None):
        mistakes.found.append(Mistake(where, "needs either check or sql", "for example check: accuracy >= 0.7"))
        mistakes.raise_if_any()
    mistakes.found += _wrong_slices(entry, where, run)
    with mistakes.collecting():
        found = _query(entry, where, run) if entry.sql is not None else _quantity(entry, where, names)
    mistakes.raise_if_any()
    selected = {column: _values(value) for column, value in entry.where.items()}
    quantity, bounds, words = found
    words += "".join(f" where {column} is {' or '.join(values)}" for column, values in selected.items())
    name = entry.name or (f"{words} by {entry.by}" if entry.by else words)
    least = entry.min_images or min_images
    return Check(name[:_LONGEST_NAME], bounds, quantity, entry.sql or "", entry.by or "", selected, least)


def _entry(raw: object, where: str, mistakes: Mistakes) -> _Entry:
    """Return what is valid of a check, so that all of its mistakes are found at once."""
    if isinstance(raw, str):
        return _Entry(check=raw)
    if not isinstance(raw, dict):
        raise ConfigError.one(where, f"{raw!r} is neither a text nor a mapping", "for example accuracy >= 0.7")
    try:
        return _Entry.model_validate(raw)
    except ValidationError as error:
        problems = error.errors()
    mistakes.found += dict.fromkeys(_mistake(_Entry, where, problem) for problem in problems)
    wrong = {problem["loc"][0] for problem in problems}
    if wrong & {"check", "sql"}:
        mistakes.raise_if_any()
    return _Entry.model_validate({key: value for key, value in raw.items() if key not in wrong})


def _quantity(entry: _Entry, where: str, names: Names) -> tuple[Quantity, tuple[Bound, ...], str]:
    expression = parse(entry.check or "", where)
    if entry.bounds():
        raise ConfigError.one(where, f"{', '.join(BOUNDS)} belong to sql", "state the bound in check")
    quantity = names.quantity(expression, where)
    if quantity.name == "findings" and (entry.by or entry.where):
        raise ConfigError.one(where, "findings are of the whole run", "leave out by and where")
    return quantity, (expression.bound,), " ".join((entry.check or "").split())


def _query(entry: _Entry, where: str, run: Run) -> tuple[None, tuple[Bound, ...], str]:
    mistakes, bounds, sql = Mistakes(), entry.bounds(), entry.sql or ""
    if not bounds:
        mistakes.found.append(Mistake(where, "a query needs a bound", f"one of {', '.join(BOUNDS)}"))
    if entry.by or entry.where:
        mistakes.found.append(Mistake(where, "by and where belong to check", "filter in the query"))
    with mistakes.collecting():
        try:
            columns = run.columns(sql)
        except ConfigError as error:
            raise ConfigError([Mistake(f"{where}.sql", one.what, one.hint) for one in error.mistakes]) from None
        if len(columns) != 1 or not _NUMERIC.fullmatch(next(iter(columns.values()))):
            found = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            raise ConfigError.one(f"{where}.sql", f"gives {found}", "it must give one number")
    mistakes.raise_if_any()
    return None, bounds, f"{' '.join(sql.split())} {' and '.join(map(str, bounds))}"


def _wrong_slices(entry: _Entry, where: str, run: Run) -> Iterator[Mistake]:
    """Find columns that images do not have, and values that no image can have."""
    columns = [*_PER_IMAGE, *metadata_columns(run)]
    for key, column in (("by", entry.by), *(("where", column) for column in entry.where)):
        if column is not None and column not in columns:
            yield Mistake(f"{where}.{key}", f"images have no column '{column}'", nearest(column, columns))
    classes, shards = run.manifest.classes, [shard.name for shard in run.manifest.identity.shards]
    of_run: Mapping[str, Sequence[str]] = {"shard": shards, "label_name": classes, "predicted_name": classes}
    known = {name: of_run[name] for name in of_run if name not in metadata_columns(run)}
    for column, value in entry.where.items():
        if not _values(value):
            yield Mistake(f"{where}.where.{column}", f"{value!r} is not a text or a list of texts", "put it in quotes")
        for word in _values(value):
            if known.get(column) and word not in known[column]:
                yield Mistake(f"{where}.where.{column}", f"there is no '{word}'", nearest(word, known[column]))


def _values(value: object) -> tuple[str, ...]:
    """Return the texts that a key of `where` states; none if it is something else, as `no` is in YAML."""
    values = value if isinstance(value, list) else [value]
    plain = [str(one) for one in values if isinstance(one, (str, int)) and not isinstance(one, bool)]
    return tuple(plain) if len(plain) == len(values) else ()
