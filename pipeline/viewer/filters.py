"""What a page shows: filters that combine, a method, and an order; written as the query of an address."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from pipeline.errors import ConfigError, Mistake, Mistakes, nearest
from pipeline.viewer.index import RunIndex

Query = Sequence[tuple[str, str]]
ALL_TARGETS = "all"
DEFAULT_SORT = "shard"
_TEXTS = ("shard", "key", "failure", "where")
_OTHERS = ("run", "with", "method", "target", "label", "predicted", "right", "sort", "order", "by")
_RANGES, _METADATA = ("min.", "max."), "meta."
PAGE_FIELDS = frozenset({"at", "count", "image", "in", "pick", "class", "q", "format", "row"})
"""Fields of an address that belong to one page, and are no filter."""


@dataclass(frozen=True)
class Span:
    """A range of a number, with both ends; None for an open end."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Filters:
    """Everything that narrows and orders what is shown.

    Attributes:
        run: name of the run.
        other: name of the run to compare with.
        method: whose maps are shown; a number of a map is that of this method.
        target: "" for the first target of each image, "all", or a target rule.
        label, predicted: numbers of classes.
        right: "right", "wrong" or "".
        spans: ranges by the name of the column.
        metadata: value by the name of a further column.
        shard, key, failure, where: other filters, "" for none.
        sort, order: a column, and "asc" or "desc".
    """

    run: str = ""
    other: str = ""
    method: str = ""
    target: str = ""
    label: int | None = None
    predicted: int | None = None
    right: str = ""
    spans: Mapping[str, Span] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    shard: str = ""
    key: str = ""
    failure: str = ""
    where: str = ""
    sort: str = DEFAULT_SORT
    order: str = "asc"

    def __hash__(self) -> int:
        return hash((self.run, self.where, self.sort, self.order, self.label, self.predicted, self.key))

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is filtered."""
        return self.without_filters() == self

    def without_filters(self) -> "Filters":
        """Keep the method, the targets and the order."""
        return Filters(self.run, self.other, self.method, self.target, sort=self.sort, order=self.order)

    def with_span(self, column: str, span: Span | None) -> "Filters":
        """Change or remove one range."""
        spans = {name: old for name, old in self.spans.items() if name != column}
        return replace(self, spans=spans if span is None else spans | {column: span})

    def with_metadata(self, name: str, value: str | None) -> "Filters":
        """Change or remove the value of one further column."""
        others = {other: old for other, old in self.metadata.items() if other != name}
        return replace(self, metadata=others if value is None else others | {name: value})


def parse(query: Query, index: RunIndex) -> Filters:
    """Read filters from the fields of an address; fields without a value are ignored.

    Raises:
        ConfigError: all mistakes, with the nearest valid names.
    """
    fields = [(name, value) for name, value in query if value and name not in PAGE_FIELDS]
    reader = _Reader(dict(fields), index)
    mistakes = Mistakes()
    with mistakes.collecting():
        raise_all(reader.unknown())
    found: dict[str, object] = {}
    for name, read in reader.readers().items():
        with mistakes.collecting():
            found[name] = read()
    mistakes.raise_if_any()
    return Filters(**found)  # type: ignore[arg-type]


def raise_all(mistakes: Iterator[Mistake]) -> None:
    """Raise all mistakes at once, if there are any."""
    if found := list(mistakes):
        raise ConfigError(found)


def to_query(filters: Filters, index: RunIndex, **more: object) -> str:
    """Write filters, and further fields, as the query of an address; what is as usual is left out."""
    fields: dict[str, object] = {
        "run": filters.run, "with": filters.other, "method": filters.method, "target": filters.target,
        "label": "" if filters.label is None else index.class_address(filters.label),
        "predicted": "" if filters.predicted is None else index.class_address(filters.predicted),
        "right": filters.right, "shard": filters.shard, "key": filters.key, "failure": filters.failure,
    }  # fmt: skip
    for name, span in filters.spans.items():
        fields |= {f"min.{name}": _written(span.low), f"max.{name}": _written(span.high)}
    fields |= {f"{_METADATA}{name}": value for name, value in filters.metadata.items()}
    fields |= {"where": filters.where, "sort": "" if filters.sort == DEFAULT_SORT else filters.sort}
    fields |= {"order": "" if filters.order == "asc" else filters.order, **more}
    kept = [(name, str(value)) for name, value in fields.items() if value not in ("", None)]
    return urlencode(kept, errors="replace")


def number(text: str, where: str) -> float:
    """Parse a number of an address."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError.one(where, f"'{text[:80]}' is no number", "write one such as 0.25")
    return value


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


@dataclass(frozen=True)
class _Reader:
    """Reads each filter from the fields of an address."""

    fields: Mapping[str, str]
    index: RunIndex

    def readers(self) -> Mapping[str, Callable[[], object]]:
        """Return what reads each attribute of `Filters`."""
        text = {name: (lambda name=name: self.fields.get(name, "")) for name in ("key", "where")}
        return {
            "run": lambda: self.fields.get("run", ""), "other": lambda: self.fields.get("with", ""),
            "method": self._method, "target": lambda: self._one_of("target", (ALL_TARGETS, *self.index.rules)),
            "label": lambda: self._class("label"), "predicted": lambda: self._class("predicted"),
            "right": lambda: self._one_of("right", ("right", "wrong")), "spans": self._spans,
            "metadata": self._metadata, "shard": lambda: self._one_of("shard", self.index.shards),
            "failure": lambda: self._one_of("failure", ("any", *self.index.failures)),
            "sort": self._sort, "order": lambda: self._one_of("order", ("asc", "desc")) or "asc", **text,
        }  # fmt: skip

    def unknown(self) -> Iterator[Mistake]:
        """Yield the fields that are no filter."""
        known = (*_TEXTS, *_OTHERS)
        for name in self.fields:
            column = name.partition(".")[2]
            if name.startswith(_RANGES):
                if column not in self.index.columns.numbers:
                    hint = self.index.columns.hint(column, self.index.columns.numbers)
                    yield Mistake(name, f"there is no number '{column[:80]}'", hint)
            elif name.startswith(_METADATA):
                if column not in self.index.metadata:
                    yield Mistake(name, f"there is no metadata '{column[:80]}'", nearest(column, self.index.metadata))
            elif name not in known:
                yield Mistake(name[:80], "is no filter", nearest(name, known))

    def _method(self) -> str:
        return self._one_of("method", self.index.methods) or self.index.methods[0]

    def _one_of(self, name: str, known: Sequence[str]) -> str:
        value = self.fields.get(name, "")
        if value and value not in known:
            raise ConfigError.one(name, f"there is no '{value[:80]}'", nearest(value, known))
        return value

    def _sort(self) -> str:
        known = (DEFAULT_SORT, *self.index.columns.known)
        return self._one_of("sort", known) or DEFAULT_SORT

    def _class(self, name: str) -> int | None:
        text = self.fields.get(name, "").strip()
        if not text:
            return None
        head = text.partition(" ")[0]
        if head.isascii() and head.isdigit() and len(head) < 10 and (head == text or self._is_named(int(head), text)):
            return self._numbered(name, int(head))
        return self._class_by_name(name, text)

    def _numbered(self, name: str, number: int) -> int:
        classes = len(self.index.manifest.classes)
        if classes and number >= classes:
            raise ConfigError.one(name, f"there is no class {number}", f"classes are numbered from 0 to {classes - 1}")
        return number

    def _is_named(self, index: int, text: str) -> bool:
        return text == f"{index} {self.index.class_name(index)}"

    def _class_by_name(self, name: str, text: str) -> int:
        classes = self.index.manifest.classes
        found = [index for index, known in enumerate(classes) if known == text]
        found = found or [index for index, known in enumerate(classes) if known.lower() == text.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            numbers = ", ".join(map(str, found[:10]))
            raise ConfigError.one(name, f"{len(found)} classes are called '{text[:80]}'", f"write a number: {numbers}")
        hint = nearest(text, classes) if classes else "the run has no names of classes: write a number"
        raise ConfigError.one(name, f"there is no class '{text[:80]}'", hint)

    def _spans(self) -> Mapping[str, Span]:
        mistakes, spans = Mistakes(), {}
        for column in self.index.columns.numbers:
            with mistakes.collecting():
                ends = [self._end(f"{end}{column}") for end in _RANGES]
                if ends != [None, None]:
                    spans[column] = Span(*ends)
        mistakes.raise_if_any()
        return spans

    def _end(self, name: str) -> float | None:
        return number(self.fields[name], name) if name in self.fields else None

    def _metadata(self) -> Mapping[str, str]:
        names = [name for name in self.index.metadata if f"{_METADATA}{name}" in self.fields]
        return {name: self.fields[f"{_METADATA}{name}"] for name in names}
