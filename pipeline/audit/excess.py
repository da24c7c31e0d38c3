"""Error rates of groups of images, such as shards, against those of the same classes in the other groups.

They are computed over all images of a run by one query, whatever the size of the run.
"""

import math
from dataclasses import dataclass
from typing import Any

from pipeline.audit.findings import MIN_IMAGES, Effect
from pipeline.audit.statistics import holm
from pipeline.audit.values import HELD_OUT, group_sql
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run

SHARDS = f"""
judged AS (SELECT '' AS family, shard AS unit, {HELD_OUT} AS held_out, {{group}} AS class, correct FROM images
  WHERE maps > 0 AND correct IS NOT NULL)
"""  # noqa: S608 - constants only
"""The groups: for each judged image its group, and the family of groups that are compared with each other."""

_EXCESSES = """
WITH {groups}, counts AS (
  SELECT family, unit, held_out, class, count(*) AS images, count(*) FILTER (NOT correct) AS wrong
  FROM judged GROUP BY ALL),
compared AS (
  SELECT *, sum(images) OVER same - images AS outside, sum(wrong) OVER same - wrong AS wrong_outside
  FROM counts WINDOW same AS (PARTITION BY family, held_out, class)),
expected AS (SELECT *, (wrong_outside + 0.5) / (outside + 1) AS rate FROM compared WHERE outside > 0)
SELECT family, unit, held_out, sum(images)::DOUBLE AS images, sum(wrong)::DOUBLE AS wrong,
  sum(images * rate) AS expected, sum(images * rate * (1 - rate)) AS variance,
  sum(images * images * rate * (1 - rate) / outside) AS variance_outside, sum(outside)::BIGINT AS outside
FROM expected GROUP BY family, unit, held_out HAVING sum(images) >= {least} ORDER BY family, unit, held_out
"""

Group = tuple[str, str]
"""Family and name of a group."""


@dataclass(frozen=True)
class Excess:
    """Error rate of a group on one half of the images, and the rate expected from the same classes elsewhere.

    Attributes:
        errors, elsewhere: the two rates.
        p: one-sided, adjusted for the number of groups (Holm).
        images: number of images of the group whose class occurs elsewhere.
        spread: standard error of `elsewhere`, and `others` the number of images it rests on.
    """

    errors: float
    elsewhere: float
    p: float
    images: int
    spread: float = 0.0
    others: int = 0

    def control(self, what: str) -> Effect:
        """Return the rate elsewhere with its 95 % interval."""
        low, high = (min(1.0, max(0.0, self.elsewhere + sign * 1.96 * self.spread)) for sign in (-1, 1))
        return Effect(what, self.elsewhere, low, high, self.others)


def excesses(run: Run, groups: str = SHARDS) -> tuple[dict[Group, Excess], dict[Group, Excess]]:
    """Test every group on each half of the images: the half that is searched, and the held-out half.

    The number of errors is a sum of Bernoulli trials, each with the error rate of its class elsewhere; its p is that of
    the normal approximation.

    Args:
        run: the run.
        groups: SQL of `judged`, as `SHARDS`.
    """
    group = group_sql(OutputKind.of(run.manifest))
    rows = run.arrow(_EXCESSES.format(groups=groups.format(group=group), least=MIN_IMAGES)).to_pylist()
    searched, held_out = (_adjusted([row for row in rows if row["held_out"] is half]) for half in (False, True))
    return searched, held_out


def _adjusted(rows: list[dict[str, Any]]) -> dict[Group, Excess]:
    p_values = holm([_p(row["wrong"], row["expected"], row["variance"]) for row in rows])
    return {
        (row["family"], row["unit"]): Excess(
            row["wrong"] / row["images"],
            row["expected"] / row["images"],
            p,
            int(row["images"]),
            math.sqrt(row["variance_outside"]) / row["images"],
            int(row["outside"]),
        )
        for row, p in zip(rows, p_values, strict=True)
    }


def _p(wrong: float, expected: float, variance: float) -> float:
    from scipy.stats import norm  # costs time to import

    return float(norm.sf((wrong - 0.5 - expected) / variance**0.5)) if variance > 0 else 1.0
