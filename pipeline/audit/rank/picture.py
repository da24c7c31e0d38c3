"""The picture of a ranking: mean rank of every method by every metric, as a heat map with its numbers.

Ranks are one hue from dark to pale, which is readable without colour vision and in black and white.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.audit.charts import inline
from pipeline.audit.rank.draws import MeanRank
from pipeline.audit.rank.ranking import RELIABLE, Method, Ranking
from pipeline.audit.rank.tables import headline

CELL, ROW = 50, 25
"""Width and height of a cell, in pixels."""

_INK, _GREY = "#1b1f24", "#5c646d"
_DARK = 0.45
"""Share of the ranks, from the best on, whose colour is so dark that numbers on it are white."""

_PNG_SCALE = 2.0
_FONT = "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
_BOLD = "Bold numbers: best of the column. Bold metrics: known to rank methods, from scenes with exact truth."


def picture(ranking: Ranking, suffix: str) -> bytes:
    """Draw the picture as `.svg` or `.png`."""
    import vl_convert  # costs time to import

    spec = chart(ranking).to_dict()
    if suffix == ".png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=_PNG_SCALE))
    return str(vl_convert.vegalite_to_svg(spec)).encode()


def chart(ranking: Ranking) -> Any:  # noqa: ANN401 - Altair has no precise types
    """Return the chart: a block of columns for the mean ranks over groups, and one for the metrics of each family."""
    import altair as alt  # costs time to import

    families = list(dict.fromkeys(metric.about.family for metric in ranking.metrics))
    wide = {name: name.removesuffix(" metrics") for name in ranking.groups if name not in families}
    blocks = [_block(ranking, "mean rank", wide, is_first=True)] if wide else []
    for family in families:
        labels = [metric.about.label for metric in ranking.metrics if metric.about.family == family]
        blocks.append(_block(ranking, family, {label: label for label in labels}, is_first=not blocks))
    title = alt.Title(
        headline(ranking),
        subtitle=[_subtitle(ranking), _BOLD],
        anchor="start",
        offset=14,
        fontSize=15,
        subtitleFontSize=11,
    )
    return (
        alt.hconcat(*blocks, spacing=10)
        .properties(title=title, padding=12)
        .resolve_scale(color="shared", y="shared")
        .configure(font=_FONT, background="white")
        .configure_title(color=_INK, subtitleColor=_GREY)
        .configure_axis(labelColor=_INK, titleColor=_INK, domain=False, ticks=False, labelLimit=260, labelPadding=6)
        .configure_view(stroke=None)
    )


def _subtitle(ranking: Ranking) -> str:
    models = ", ".join(dict.fromkeys(member.model for member in ranking.members))
    if len(ranking.members) == 1:
        return f"{models}: ranks, 1 = best"
    return f"{models}: mean rank over the runs, 1 = best; below it, smallest and largest of the runs"


def _block(ranking: Ranking, title: str, columns: Mapping[str, str], *, is_first: bool) -> Any:  # noqa: ANN401
    """Draw the columns of one block, from their names to their heads; only the first block names the methods."""
    import altair as alt  # costs time to import

    count, spread = len(ranking.methods), len(ranking.members) > 1
    cells = [
        _cell(_name(method), head, _found(method, name)) for method in ranking.methods for name, head in columns.items()
    ]
    bold = [head for name, head in columns.items() if name in _reliable(ranking)]
    weight = alt.condition(f"indexof({json.dumps(bold)}, datum.value) >= 0", alt.value("bold"), alt.value("normal"))
    x_axis = alt.Axis(orient="top", labelAngle=-40, labelFontSize=11, labelFontWeight=weight, title=None)
    y_axis = alt.Axis(labelFontSize=12, title=None) if is_first else None
    base = alt.Chart(inline(cells)).encode(
        x=alt.X("column:N", sort=list(columns.values()), axis=x_axis),
        y=alt.Y("method:N", sort=[_name(method) for method in ranking.methods], axis=y_axis),
    )
    scale = alt.Scale(domain=[1, count], scheme="blues", reverse=True)
    legend = alt.Legend(title="rank", gradientLength=ROW * min(count, 8), format="d", tickCount=4)
    squares = base.mark_rect(stroke="white", strokeWidth=1.5)
    ink = alt.condition(f"datum.rank < {1 + _DARK * (count - 1)}", alt.value("white"), alt.value(_INK))
    weight_of_best = alt.ExprRef("datum.best ? 'bold' : 'normal'")
    numbers = base.mark_text(fontSize=11, fontWeight=weight_of_best, dy=-4 if spread else 0)
    ranges = base.mark_text(fontSize=8, dy=7)
    layers = [
        squares.encode(color=alt.Color("rank:Q", scale=scale, legend=legend)),
        numbers.encode(text="shown:N", color=ink),
        *([ranges.encode(text="range:N", color=ink)] if spread else []),
    ]
    head = alt.Title(title, anchor="middle", fontSize=12, orient="bottom")
    return alt.layer(*layers).properties(width=CELL * len(columns), height=ROW * count, title=head)


def _found(method: Method, name: str) -> MeanRank:
    return method.metrics[name] if name in method.metrics else method.groups[name]


def _cell(method: str, column: str, one: MeanRank) -> dict[str, Any]:
    low, high = _short(min(one.by_run)), _short(max(one.by_run))
    return {
        "method": method, "column": column, "rank": one.value, "shown": _short(one.value), "best": one.is_best,
        "range": f"{low}–{high}" if low != high else "",
    }  # fmt: skip


def _short(rank: float) -> str:
    return f"{rank:.1f}".removesuffix(".0")


def _name(method: Method) -> str:
    return f"{method.name} (control)" if method.is_control else method.name


def _reliable(ranking: Ranking) -> set[str]:
    """Return the names of the metrics that can carry a conclusion, and of the group of them."""
    return {metric.about.label for metric in ranking.metrics if metric.known.carries()} | {RELIABLE}
