"""Parses the short form of a check, such as `accuracy >= 0.7` or `energy_in_box(gradcam, label) > 0`.

    check  =  name [ "(" method [ "," target rule ] ")" ] operator number

Nothing is evaluated: a text is one of these forms, or a mistake.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.errors import ConfigError

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FORM = re.compile(
    rf"\s*(?P<name>[^\s()<>=!]+)\s*(?:\((?P<of>.*)\))?\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<number>{_NUMBER})\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Bound:
    """What a number must meet."""

    operator: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.operator} {self.threshold:g}"

    def holds(self, value: float) -> bool:
        """Tell whether a number meets it."""
        return OPERATORS[self.operator](value, self.threshold)


@dataclass(frozen=True)
class Expression:
    """A parsed check.

    Attributes:
        name: of the quantity or metric.
        of: what is in the brackets: a method, or a method and a target rule; None without brackets.
        bound: what the quantity must meet.
    """

    name: str
    of: str | None
    bound: Bound


def parse(text: str, where: str) -> Expression:
    """Parse a check; `where` names its place in messages.

    Raises:
        ConfigError: the text has another form.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        hint = "for example accuracy >= 0.7, or insertion(gradcam) >= 0.3; the operators are >= <= > < == !="
        raise ConfigError.one(where, f"'{text}' is not NAME OPERATOR NUMBER", hint)
    of = found["of"]
    return Expression(
        found["name"], None if of is None else of.strip(), Bound(found["operator"], float(found["number"]))
    )
