"""Whether the maps of each method follow the model: yes, no or undecided, from the randomisation check.

The maps of a model with random weights are compared with the original maps. The answer rests on the 95 % interval of
their mean rank correlation: yes when its upper end is below the limit, no when its lower end is above, else undecided.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipeline.audit.checked import Checked, Verdict, not_checked
from pipeline.audit.findings import MIN_IMAGES, Effect
from pipeline.audit.intervals import correlation_interval, side
from pipeline.audit.tables import query_table
from pipeline.results.query import Run

Follows = Literal["yes", "no", "undecided"]

SANITY_THRESHOLD = 0.75
"""The limit of the rank correlation between the maps of the randomised model and the original ones."""

_ANSWERS: Mapping[str, Follows] = {"below": "yes", "above": "no", "undecided": "undecided"}
_VERDICTS: Mapping[Follows, Verdict] = {"no": "found", "undecided": "undecided", "yes": "not found"}

_SANITY = """
SELECT method, images, maps, spearman, spearman_half_width AS half_width, ssim FROM sanity
WHERE test = 'randomisation' QUALIFY step = max(step) OVER () ORDER BY method
"""


def sanity(run: Run) -> dict[str, Any]:
    """Compute the section: the last step of the randomisation check, with the interval and answer of each method."""
    table = query_table(run, _SANITY)
    for row in table["rows"]:
        row["low"], row["high"] = correlation_interval(row["spearman"], row["half_width"])
        row["follows"] = follows(row["low"], row["high"], row["maps"])
    return table


def follows(low: float | None, high: float | None, maps: int) -> Follows:
    """Answer from an interval; fewer than MIN_IMAGES pairs of maps decide nothing, even where they are all alike."""
    return _ANSWERS[side(low, high, SANITY_THRESHOLD)] if maps >= MIN_IMAGES else "undecided"


def answers(rows: Sequence[Mapping[str, Any]]) -> dict[str, Follows]:
    """Return the answer of each method that was checked."""
    return {row["method"]: row["follows"] for row in rows}


def check_follows(rows: Sequence[Mapping[str, Any]]) -> Checked:
    """Return the line about methods that ignore the model; it shows the method with the largest correlation."""
    base = ("model", "Maps that do not depend on the model", "sanity")
    if not rows:
        return not_checked(*base, "the weights were not randomised", "camatlas sanity RUN, then camatlas audit RUN")
    order = ("no", "undecided", "yes")
    worst = min(rows, key=lambda row: (order.index(row["follows"]), -(row["spearman"] or -1), row["method"]))
    alike = [row["method"] for row in rows if row["follows"] == worst["follows"]]
    more = worst["follows"] == "undecided"
    return Checked(
        *(base[0], base[1], _VERDICTS[worst["follows"]], base[2]), worst["images"], effect_of(worst), None,
        f"limit {SANITY_THRESHOLD}", _why(worst["follows"], alike, len(rows)),
        "camatlas sanity RUN --images 64" if more else "",
    )  # fmt: skip


def effect_of(row: Mapping[str, Any]) -> Effect | None:
    """Return the correlation of a method with its interval; None when no pair of maps could be compared."""
    if row["spearman"] is None:
        return None
    what = f"rank correlation of the maps of {row['method']} before and after randomisation"
    return Effect(what, row["spearman"], row["low"], row["high"], row["maps"])


def _why(answer: Follows, alike: Sequence[str], methods: int) -> str:
    words = {"no": "do not follow the model", "undecided": "are undecided", "yes": "follow the model"}
    counted = f"{len(alike)} of {methods} methods {words[answer]}"
    names = f": {', '.join(alike)}" if answer != "yes" else ""
    trust = ". Their maps may suggest a region, but do not count as evidence" if answer == "undecided" else ""
    return counted + names + trust
