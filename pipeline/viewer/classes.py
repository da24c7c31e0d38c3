"""The pages of classes: which are confused, how each fares, and the mean map, the best and the worst of one."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from pipeline.errors import ConfigError
from pipeline.viewer.filters import Filters
from pipeline.viewer.grid import common, tiles
from pipeline.viewer.rendering import page
from pipeline.viewer.statistics import Confusion, by_class, confusions, pairs
from pipeline.viewer.visit import Visit

_MATRIX, _ROWS, _STRIP = 12, 200, 8


def show_classes(visit: Visit) -> Response:
    """Render the confusion matrix of the most confused classes, and the table of all classes."""
    if not visit.index.kind.has_confidences:
        raise ConfigError.one("classes", "the outputs of this model are numbers, so its images have no classes")
    found = pairs(visit.opened.arrays, visit.ids)
    wrong = [pair for pair in found if pair.label != pair.predicted][:200]
    chosen = _most_confused(wrong)
    cells = {(pair.label, pair.predicted): pair.images for pair in found}
    rows = _sorted(visit, by_class(visit.opened.arrays, visit.ids, ("confidence", *visit.index.columns.metrics)))
    return page(
        "classes.html",
        **common(visit),
        names=[visit.index.class_name(number) for number in chosen],
        lines=[_line(visit, label, chosen, cells) for label in chosen],
        pairs=[
            {"text": f"{visit.index.class_name(pair.label)} → {visit.index.class_name(pair.predicted)}",
             "images": pair.images,
             "link": visit.link("/", replace(visit.filters, label=pair.label, predicted=pair.predicted))}
            for pair in wrong[:40]
        ],
        rows=rows[:_ROWS],
        total=len(rows),
        headings=["images", "accuracy", "confidence", *visit.index.columns.metrics],
        by=visit.field("by"),
        sort_link=lambda name: visit.link("/classes", by=name if visit.field("by") != name else f"-{name}"),
        class_link=lambda label: visit.link("/class", Filters(visit.filters.run, method=visit.filters.method),
                                            **{"class": visit.index.class_address(label)}),
    )  # fmt: skip


def show_class(visit: Visit) -> Response:
    """Render the mean map of each method over one class, and its best and worst images."""
    number = _class_of(visit)
    own = replace(visit.filters, label=number)
    ids = visit.opened.ids(own)
    metrics = ["confidence", *visit.index.columns.metrics]
    by = visit.field("by") or (metrics[1] if len(metrics) > 1 else metrics[0])
    if by not in metrics:
        raise ConfigError.one("by", f"there is no number '{by[:80]}'", visit.index.columns.hint(by, metrics))
    highest, lowest = (visit.opened.ids(replace(own, sort=by, order=order)) for order in ("desc", "asc"))
    valid = visit.opened.arrays.column(by)
    return page(
        "class.html",
        **common(visit),
        title=visit.index.class_name(number),
        number=number,
        counts=visit.opened.arrays.counts(ids),
        means=[
            {"method": method, "picture": visit.link("/mean", Filters(visit.filters.run, method=method, label=number))}
            for method in visit.index.methods
        ],
        mean_of=min(len(ids), 200),
        metrics=metrics,
        by=by,
        highest=list(tiles(visit, [one for one in highest if valid[one] == valid[one]][:_STRIP])),
        lowest=list(tiles(visit, [one for one in lowest if valid[one] == valid[one]][:_STRIP])),
        grid=visit.link("/", own),
        confused=_confused(visit, number),
        by_link=lambda name: visit.link("/class", **{"class": visit.index.class_address(number), "by": name}),
    )  # fmt: skip


def _class_of(visit: Visit) -> int:
    from pipeline.viewer.filters import parse

    text = visit.field("class")
    try:
        number = parse([("label", text)], visit.index).label if text else None
    except ConfigError as error:
        raise ConfigError([replace(mistake, where="class") for mistake in error.mistakes]) from None
    if number is None:
        raise ConfigError.one("class", "is missing", "choose one on the page of classes")
    return number


def _confused(visit: Visit, number: int) -> list[dict[str, Any]]:
    """Return what images of the class were taken for, and what was taken for it."""
    base = Filters(visit.filters.run, method=visit.filters.method)
    found = []
    for filters in (replace(base, label=number), replace(base, predicted=number)):
        for pair in confusions(visit.opened.arrays, visit.opened.ids(filters), 6):
            text = f"{visit.index.class_name(pair.label)} → {visit.index.class_name(pair.predicted)}"
            link = visit.link("/", replace(base, label=pair.label, predicted=pair.predicted))
            found.append({"text": text, "images": pair.images, "link": link})
    return found


def _most_confused(wrong: Sequence[Confusion]) -> list[int]:
    """Return the classes that occur in most confusions."""
    weight: Counter[int] = Counter()
    for pair in wrong:
        weight[pair.label] += pair.images
        weight[pair.predicted] += pair.images
    return sorted(number for number, _ in weight.most_common(_MATRIX))


def _line(visit: Visit, label: int, chosen: Sequence[int], cells: Any) -> dict[str, Any]:  # noqa: ANN401 - counts
    """Return one line of the matrix."""
    most = max((cells.get((one, other), 0) for one in chosen for other in chosen if one != other), default=0) or 1
    return {
        "name": visit.index.class_name(label),
        "cells": [
            {
                "images": cells.get((label, other), 0), "other": visit.index.class_name(other),
                "right": other == label, "shade": math.ceil(4 * cells.get((label, other), 0) / most) * (other != label),
                "link": visit.link("/", replace(visit.filters, label=label, predicted=other)),
            }
            for other in chosen
        ],
    }  # fmt: skip


def _sorted(visit: Visit, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by = visit.field("by") or "-accuracy"
    name = by.removeprefix("-")
    if rows and name not in rows[0]:
        known = ["label", "images", "accuracy", "confidence", *visit.index.columns.metrics]
        raise ConfigError.one("by", f"there is no column '{name[:80]}'", visit.index.columns.hint(name, known))
    known_rows = [row for row in rows if row[name] is not None]
    return sorted(known_rows, key=lambda row: row[name], reverse=not by.startswith("-")) + [
        row for row in rows if row[name] is None
    ]
