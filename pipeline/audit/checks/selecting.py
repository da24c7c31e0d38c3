"""The SQL of slices and conditions: with parameters to run it, or with literals for a reader to copy it.

Names of columns are constants, or quoted; values are parameters wherever a query is run.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.audit.checks.file import Check, metadata_columns
from pipeline.audit.checks.quantities import DEGENERATE, Quantity
from pipeline.results.query import Run
from pipeline.results.sql_engine import quoted

Write = Callable[[str], str]
"""Writes a value into SQL."""


class Parameters(dict[str, str]):
    """The parameters of a query, collected while its SQL is written."""

    def write(self, value: str) -> str:
        """Return the placeholder of a value."""
        name = f"p{len(self)}"
        self[name] = value
        return f"${name}"


def literal(value: str) -> str:
    """Write a value as a literal, for a reader."""
    return "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True)
class Selection:
    """The SQL of what a check is about.

    Attributes:
        slice: the column that makes slices; NULL without one.
        where: the condition on images.
        maps: the condition on maps, for a metric.
        value: the value of a map, for a metric.
    """

    slice: str
    where: str
    maps: str
    value: str


def selection(run: Run, check: Check, quantity: Quantity, write: Write) -> Selection:
    """Write the SQL of a check."""
    columns = metadata_columns(run)

    def column(name: str) -> str:
        return f"metadata[{write(name)}]" if name in columns else quoted(name)

    conditions = [f"{column(name)} IN ({', '.join(map(write, values))})" for name, values in check.where.items()]
    stated = {"method": quantity.method, "target_rule": quantity.rule}
    maps = [f"{name} = {write(value)}" for name, value in stated.items() if value is not None]
    return Selection(
        slice=column(check.by) if check.by else "NULL::VARCHAR",
        where=" AND ".join(conditions) or "true",
        maps=" AND ".join(maps) or "true",
        value="degenerate::INT::DOUBLE" if quantity.name == DEGENERATE else f"{quoted(quantity.name)}::DOUBLE",
    )
