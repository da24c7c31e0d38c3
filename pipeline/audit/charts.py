"""Charts of the report: Altair specifications rendered to static SVG. The renderer escapes their texts.

The numbers of every chart are also in a table or in audit.json. Colours follow the page (`currentColor`) or are safe
for colour-blind readers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

BLUE, ORANGE = "#3b7dd8", "#d9822b"
GREY = "#8a919a"
_OUTCOMES = {"correct": BLUE, "incorrect": ORANGE, "unlabelled": GREY}
_PADDING = {"left": 30, "right": 10, "top": 5, "bottom": 25}
"""Leaves room for text, which a browser draws wider than the renderer measures it."""


def reliability(rows: Rows, share: str = "accuracy") -> str:
    """Draw the accuracy, or another share, of each confidence bin with its interval, and the ideal diagonal."""
    import altair as alt  # costs time to import

    base = alt.Chart(inline(rows)).encode(
        x=alt.X("mean_confidence:Q", title="confidence", scale=alt.Scale(domain=[0, 1]))
    )
    diagonal = alt.Chart(inline([{"a": 0, "b": 0}, {"a": 1, "b": 1}])).mark_line(color=GREY, strokeDash=[4, 4])
    diagonal = diagonal.encode(x="a:Q", y="b:Q")
    whiskers = base.mark_rule(color=BLUE).encode(
        y=alt.Y("low:Q", title=share, scale=alt.Scale(domain=[0, 1])), y2="high:Q"
    )
    points = base.mark_point(color=BLUE, filled=True, size=45, opacity=1).encode(y="accuracy:Q")
    return svg_of(diagonal + whiskers + points, 260, 200)


def histogram(rows: Rows, bins: int = 20) -> str:
    """Draw the number of correct, incorrect and unlabelled predictions in each confidence bin."""
    import altair as alt  # costs time to import

    parts = [
        {"from": row["bin"] / bins, "to": (row["bin"] + 1) / bins, "outcome": outcome, "images": count}
        for row in rows
        for outcome, count in _outcomes(row).items()
        if count
    ]
    present = {part["outcome"] for part in parts}
    known = {name: colour for name, colour in _OUTCOMES.items() if name in present}
    scale = alt.Scale(domain=list(known), range=list(known.values()))
    chart = alt.Chart(inline(parts)).mark_bar(binSpacing=1).encode(
        x=alt.X("from:Q", bin="binned", title="confidence", scale=alt.Scale(domain=[0, 1])),
        x2="to:Q",
        y=alt.Y("images:Q", stack="zero", title="images"),
        color=alt.Color("outcome:N", scale=scale, legend=alt.Legend(title=None, orient="top", columnPadding=40)),
    )  # fmt: skip
    return svg_of(chart, 260, 180)


def _outcomes(row: Mapping[str, Any]) -> dict[str, int]:
    unlabelled = row["images"] - row["right"] - row["wrong"]
    return {"correct": row["right"], "incorrect": row["wrong"], "unlabelled": unlabelled}


def whiskers(rows: Rows, metric: str) -> str:
    """Draw the mean of one metric of each method with its interval; blue diamonds are the best of a rule and ties."""
    import altair as alt  # costs time to import

    marks = ["best or tied", "other"]
    several = len({row["target_rule"] for row in rows}) > 1
    points = [
        {"method": f"{row['method']} ({row['target_rule']})" if several else row["method"], "value": row[metric],
         "low": interval["low"], "high": interval["high"],
         "mark": marks[not (interval["best"] or interval["tied"])]}
        for row in rows
        if (interval := row["intervals"].get(metric)) and row[metric] is not None
    ]  # fmt: skip
    base = alt.Chart(inline(points)).encode(y=alt.Y("method:N", title=None, sort=None))
    lines = base.mark_rule(color=GREY).encode(
        x=alt.X("low:Q", title=_printable(metric), scale=alt.Scale(zero=False)), x2="high:Q"
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(
        x="value:Q",
        color=alt.Color("mark:N", legend=None, scale=alt.Scale(domain=marks, range=[BLUE, GREY])),
        shape=alt.Shape("mark:N", legend=None, scale=alt.Scale(domain=marks, range=["diamond", "circle"])),
    )  # fmt: skip
    return svg_of(lines + dots, 200, 18 * max(2, len(points)))


def agreement(rows: Rows) -> str:
    """Draw the mean rank correlation of each pair of methods, with its value in each cell."""
    import altair as alt  # costs time to import

    methods = list(dict.fromkeys(_printable(name) for row in rows for name in (row["method"], row["other"])))
    cells = [{"a": one, "b": other, "r": row["spearman"]} for row in rows if row["spearman"] is not None
             for one, other in ((row["method"], row["other"]), (row["other"], row["method"]))]  # fmt: skip
    x = alt.X("a:N", title=None, sort=methods, axis=alt.Axis(labelAngle=-45))
    base = alt.Chart(inline(cells)).encode(x=x, y=alt.Y("b:N", title=None, sort=methods))
    scale = alt.Scale(domain=[-1, 1], scheme="purpleorange", reverse=True)
    squares = base.mark_rect().encode(color=alt.Color("r:Q", scale=scale, legend=None))
    ink = alt.condition("abs(datum.r) > 0.5", alt.value("#ffffff"), alt.value("#1b1f24"))
    numbers = base.mark_text(fontSize=10).encode(text=alt.Text("r:Q", format=".2f"), color=ink)
    return svg_of(squares + numbers, 36 * len(methods), 26 * len(methods))


def reliance(points: Rows) -> str:
    """Plot the confidence without the object against that with the object alone, and shade the corner of reliance."""
    import altair as alt  # costs time to import

    share = alt.Scale(domain=[0, 1])
    corner = alt.Chart(inline([{"x": 0.5, "x2": 1, "y": 0, "y2": 0.5}])).mark_rect(color=ORANGE, opacity=0.15)
    corner = corner.encode(x=alt.X("x:Q", scale=share), x2="x2:Q", y=alt.Y("y:Q", scale=share), y2="y2:Q")
    dots = alt.Chart(inline(points)).mark_circle(size=14, opacity=0.6, color=BLUE).encode(
        x=alt.X("removed:Q", title="confidence without the object"), y=alt.Y("alone:Q", title="with the object alone")
    )  # fmt: skip
    return svg_of(corner + dots, 240, 240)


def inline(rows: Rows) -> Any:  # noqa: ANN401 - Altair has no precise types
    """Embed the rows of a chart in its specification."""
    import altair as alt  # costs time to import

    plain = [{name: _printable(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows]
    return alt.InlineData(values=plain)


def _printable(text: str) -> str:
    """Replace unprintable characters: NUL aborts the renderer, and line separators end its expressions."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def svg_of(chart: Any, width: int, height: int) -> str:  # noqa: ANN401 - Altair has no precise types
    """Render a chart as SVG in the colours of the page."""
    import vl_convert  # costs time to import

    ink = {f"{part}Color": "currentColor" for part in ("label", "title", "domain", "tick")}
    whole = (
        chart.properties(width=width, height=height, padding=_PADDING)
        .configure(font="system-ui, sans-serif", background="transparent", aria=False)  # the page has its own labels
        .configure_axis(**ink, gridColor="currentColor", gridOpacity=0.15)
        .configure_legend(labelColor="currentColor", titleColor="currentColor")
        .configure_view(stroke=None)
    )
    svg = str(vl_convert.vegalite_to_svg(whole.to_dict()))
    return svg.replace("<svg ", '<svg aria-hidden="true" ', 1)  # the enclosing figure has a text alternative
