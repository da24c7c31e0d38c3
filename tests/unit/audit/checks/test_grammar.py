"""The short form of a check is parsed, never evaluated."""

import pytest

from pipeline.audit.checks.grammar import Bound, Expression, parse
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy >= 0.7", Expression("accuracy", None, Bound(">=", 0.7))),
        ("  failures==0 ", Expression("failures", None, Bound("==", 0))),
        ("insertion(gradcam) >= .3", Expression("insertion", "gradcam", Bound(">=", 0.3))),
        ("drop( iscam (50), label ) < -1e-3", Expression("drop", "iscam (50), label", Bound("<", -0.001))),
        ("été != 2.", Expression("été", None, Bound("!=", 2))),
        ("a(x >= 1) <= 2", Expression("a", "x >= 1", Bound("<=", 2))),
    ],
)
def test_forms(text: str, expected: Expression) -> None:
    assert parse(text, "here") == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "accuracy", "accuracy >= ", ">= 0.7", "accuracy = 0.7", "accuracy >= nan", "accuracy >= inf",
        "0.7 <= accuracy",
        "accuracy >= 0.7 or true", "accuracy >= 1 >= 0", "a b >= 1", "accuracy => 1",
        "accuracy >= 0x10", "accuracy >= 1_0", "accuracy >= 1; DROP VIEW images",
    ],
)  # fmt: skip
def test_other_texts_are_mistakes(text: str) -> None:
    with pytest.raises(ConfigError, match=r"here: '.*' is not NAME OPERATOR NUMBER"):
        parse(text, "here")


@pytest.mark.parametrize(
    ("operator", "below", "equal", "above"),
    [
        (">=", False, True, True), ("<=", True, True, False), (">", False, False, True), ("<", True, False, False),
        ("==", False, True, False), ("!=", True, False, True),
    ],
)  # fmt: skip
def test_bounds(operator: str, below: bool, equal: bool, above: bool) -> None:
    bound = Bound(operator, 0.5)
    assert (bound.holds(0.25), bound.holds(0.5), bound.holds(0.75)) == (below, equal, above)
    assert not Bound(">=", 0.5).holds(float("nan"))
