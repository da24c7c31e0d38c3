"""The line about slices in the table of what was checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.audit.checked import Checked, Verdict, not_checked
from pipeline.audit.findings import Effect, Finding, percent
from pipeline.audit.slices import LEAST, MIN_EXCESS

NAME = "Slices with more errors"


def check_slices(chapter: Mapping[str, Any] | None, found: Sequence[Finding]) -> Checked:
    """Return the line about slices; it shows the one whose accuracy may be the furthest below that of the rest."""
    if chapter is None:
        why = "the run has no metadata"
        return not_checked("slices", NAME, "provenance", why, "name columns in data.metadata and explain again")
    accuracies = [(row, row["model"].get("accuracy")) for row in chapter["slices"]]
    judged = [(row, one) for row, one in accuracies if one and one["low"] is not None]
    if not judged:
        why = f"no slice has {LEAST} images with a label, beside other images"
        return not_checked("slices", NAME, "slices", why)
    row, worst = min(judged, key=lambda pair: (pair[1]["low"], pair[0]["name"], pair[0]["value"]))
    verdict: Verdict = "found" if found else "undecided" if worst["low"] < -MIN_EXCESS else "not found"
    title = f"{row['name']} = {row['value']}"
    measured = Effect(f"accuracy where {title}, minus that of the rest", worst["difference"], worst["low"],
                      worst["high"], row["judged"])  # fmt: skip
    return Checked(
        "slices", NAME, verdict, "slices", max(column["images"] for column in chapter["columns"]),
        found[0].effect if found else measured, found[0].control if found else None,
        f"limit: {percent(MIN_EXCESS)} more errors than the same classes elsewhere",
        f"{sum(column['judged'] for column in chapter['columns'])} slices judged",
        "explain more images of the slice" if verdict == "undecided" else "",
    )  # fmt: skip
