"""Charts of the chapters on the model's outputs: curves of a binary model, average precisions, residuals."""

from collections.abc import Mapping
from typing import Any

from pipeline.audit import charts
from pipeline.audit.charts import BLUE, GREY, ORANGE, Rows, inline, svg_of


def chapter_charts(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Draw the charts of the chapters that a report has."""
    drawn = {}
    if binary := outputs.get("binary"):
        drawn["roc"] = _curve(binary["roc"], "false_positive_rate", "recall", diagonal=True)
        drawn["precision_recall"] = _curve(binary["precision_recall"], "recall", "precision", diagonal=False)
    if multilabel := outputs.get("multilabel"):
        drawn["pairs"] = charts.reliability(multilabel["calibration"]["bins"], "share that are labels")
    if regression := outputs.get("regression"):
        drawn["outputs"] = _against_labels(regression["points"])
        drawn["residuals"] = _residuals(regression["histogram"])
    return drawn


def _curve(rows: Rows, x: str, y: str, *, diagonal: bool) -> str:
    import altair as alt  # costs time to import

    share = alt.Scale(domain=[0, 1])
    line = alt.Chart(inline(rows)).mark_line(color=BLUE).encode(
        x=alt.X(f"{x}:Q", title=x.replace("_", " "), scale=share),
        y=alt.Y(f"{y}:Q", title=y, scale=share),
        order="order:Q",
    )  # fmt: skip
    if not diagonal:
        return svg_of(line, 240, 200)
    chance = alt.Chart(inline([{"a": 0, "b": 0}, {"a": 1, "b": 1}])).mark_line(color=GREY, strokeDash=[4, 4])
    return svg_of(chance.encode(x="a:Q", y="b:Q") + line, 240, 200)


def _against_labels(points: Rows) -> str:
    """Plot outputs against labels, and the line on which they are equal."""
    import altair as alt  # costs time to import

    ends = [point[name] for point in points for name in ("label", "output")] or [0, 1]
    free = alt.Scale(zero=False)
    line = alt.Chart(inline([{"a": end, "b": end} for end in (min(ends), max(ends))]))
    dots = alt.Chart(inline(points)).mark_circle(size=14, opacity=0.6, color=BLUE).encode(
        x=alt.X("label:Q", title="label", scale=free), y=alt.Y("output:Q", title="output", scale=free)
    )  # fmt: skip
    return svg_of(line.mark_line(color=GREY, strokeDash=[4, 4]).encode(x="a:Q", y="b:Q") + dots, 240, 200)


def _residuals(rows: Rows) -> str:
    import altair as alt  # costs time to import

    chart = alt.Chart(inline(rows)).mark_bar(binSpacing=1, color=ORANGE).encode(
        x=alt.X("from:Q", bin="binned", title="output minus label"), x2="to:Q", y=alt.Y("images:Q", title="images")
    )  # fmt: skip
    return svg_of(chart, 240, 200)
