"""From filters to rows: the condition with its parameters, and the ids of the rows in the order of the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.results.sql_engine import quoted
from pipeline.viewer.conditions import checked
from pipeline.viewer.filters import ALL_TARGETS, DEFAULT_SORT, Filters
from pipeline.viewer.index import Ids, RunIndex
from schemas.explanation import SHARD_STAGE

_FAILED = "error_code IS NOT NULL"


@dataclass
class Where:
    """Conditions joined by AND, and the values of their question marks."""

    conditions: list[str] = field(default_factory=list)
    parameters: list[object] = field(default_factory=list)

    def add(self, condition: str, *parameters: object) -> None:
        """Add one condition."""
        self.conditions.append(condition)
        self.parameters.extend(parameters)

    @property
    def sql(self) -> str:
        """Return the conditions as one."""
        return " AND ".join(self.conditions) or "TRUE"


def where_of(filters: Filters, *, first: str = "viewer_first", correct: str = "{}viewer_correct") -> Where:
    """Return the condition of the filters, without the user's own.

    Args:
        filters: what is shown.
        first: SQL that is true of the rows of an image's first target.
        correct: SQL that is true of right predictions, with a place for NOT.
    """
    where = Where()
    where.add("(method = ? OR method IS NULL)", filters.method)
    where.add("error_stage IS DISTINCT FROM ?", SHARD_STAGE)
    if filters.target == "":
        where.add(first)
    elif filters.target != ALL_TARGETS:
        where.add("target_rule = ?", filters.target)
    for name, value in (("label", filters.label), ("predicted", filters.predicted)):
        if value is not None:
            where.add(f"{name} = ?", value)
    if filters.right:
        where.add(correct.format("" if filters.right == "right" else "NOT "))
    _add_texts(where, filters)
    _add_spans(where, filters)
    return where


def ordering(filters: Filters) -> str:
    """Return the SQL of the order; rows without a value come last."""
    direction = "DESC" if filters.order == "desc" else "ASC"
    if filters.sort == DEFAULT_SORT:
        return f"viewer_id {direction}"
    column = "viewer_correct" if filters.sort == "correct" else quoted(filters.sort)
    return f"{column} {direction} NULLS LAST, viewer_id"


def select(index: RunIndex, filters: Filters, columns: Sequence[str] = ("viewer_id",)) -> pa.Table:
    """Return columns of the rows that the filters leave, in their order.

    Raises:
        ConfigError: the user's condition is invalid, or takes too long.
    """
    where = where_of(filters)
    own = checked(index.engine, filters.where) if filters.where.strip() else None
    source = index.table if own is None else f"explanations_{index.ordinal}"
    query = f"SELECT * FROM {source} WHERE {where.sql}"  # noqa: S608 - constants and quoted names; values are parameters

    def build(cursor: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
        if own is not None:  # a subquery can name the view as `camatlas query` does
            cursor.execute(f"CREATE TEMP VIEW explanations AS SELECT * FROM {source} WHERE method IS NOT NULL")  # noqa: S608
        relation = cursor.sql(query, params=where.parameters)
        if own is not None:
            relation = relation.filter(own)
        return relation.order(ordering(filters)).select(*map(duckdb.ColumnExpression, columns))

    return index.engine.arrow(build)


def ids_of(index: RunIndex, filters: Filters) -> Ids:
    """Return the ids of the rows that the filters leave, in their order."""
    ids: Ids = select(index, filters)["viewer_id"].to_numpy()
    return ids


def _add_texts(where: Where, filters: Filters) -> None:
    if filters.shard:
        where.add("shard = ?", filters.shard)
    if filters.key:
        where.add("contains(lower(image_key), lower(?))", filters.key)
    if filters.failure == "any":
        where.add(_FAILED)
    elif filters.failure:
        where.add("error_stage || '/' || error_code = ?", filters.failure)
    for name, value in filters.metadata.items():
        where.add("metadata[?] = ?", name, value)


def _add_spans(where: Where, filters: Filters) -> None:
    for name, span in filters.spans.items():
        if span.low is not None:
            where.add(f"{quoted(name)} >= ?::FLOAT", span.low)
        if span.high is not None:
            where.add(f"{quoted(name)} <= ?::FLOAT", span.high)


def chips(filters: Filters, index: RunIndex) -> Iterator[tuple[str, Filters]]:
    """Yield each filter in words, and the filters without it."""
    if filters.label is not None:
        yield f"label {index.class_name(filters.label)}", replace(filters, label=None)
    if filters.predicted is not None:
        yield f"predicted {index.class_name(filters.predicted)}", replace(filters, predicted=None)
    if filters.right:
        yield filters.right, replace(filters, right="")
    if filters.shard:
        yield f"shard {filters.shard}", replace(filters, shard="")
    if filters.key:
        yield f"key contains “{filters.key}”", replace(filters, key="")
    if filters.failure:
        yield f"failure {filters.failure}", replace(filters, failure="")
    for name, span in filters.spans.items():
        yield _spoken(name, span.low, span.high), filters.with_span(name, None)
    for name, value in filters.metadata.items():
        yield f"{name} {value}", filters.with_metadata(name, None)
    if filters.where.strip():
        yield "WHERE …", replace(filters, where="")


def _spoken(name: str, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{name} ≥ {low:.4g}" if high is None else f"{name} ≤ {high:.4g}"
    return f"{name} {low:.4g} to {high:.4g}"


def position(ids: Ids, number: int) -> int:
    """Return the place of a row among others.

    Raises:
        ConfigError: it is not among them.
    """
    found = (ids == number).nonzero()[0]
    if not len(found):
        raise ConfigError.one("image", "is not in this selection", "remove a filter")
    return int(found[0])
