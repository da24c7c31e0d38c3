"""The page of tiles: filters, histograms and counts beside the images that are left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from pipeline.errors import ConfigError
from pipeline.viewer.filters import ALL_TARGETS, DEFAULT_SORT, Filters, Span
from pipeline.viewer.index import Ids
from pipeline.viewer.rendering import page
from pipeline.viewer.selection import chips
from pipeline.viewer.statistics import Counts, Histogram, confusions, worst_shards
from pipeline.viewer.visit import Visit, name_of

PAGE, MOST = 60, 240
"""Tiles of a page without scripts, and of one answer."""
MOST_OFFERED = 2000
"""Classes or shards that a form offers; more are typed."""


@dataclass(frozen=True)
class Tile:
    """What a tile says."""

    row: Mapping[str, Any]
    link: str
    picture: str
    title: str
    lines: Sequence[str]
    state: str


@dataclass(frozen=True)
class Range:
    """One number of the sidebar: its histogram, and the range chosen."""

    name: str
    meaning: str
    histogram: Histogram
    span: Span


def show_grid(visit: Visit) -> Response:
    """Render the page; a mistake in the user's condition stands under its box."""
    visit_ids, problem = _selected(visit)
    start = visit.number("at", 0, max(0, len(visit_ids) - 1))
    count = visit.number("count", PAGE, MOST) or PAGE
    counts = visit.opened.arrays.counts(visit_ids)
    return page(
        "grid.html",
        400 if problem else 200,
        **common(visit),
        problem=problem,
        counts=counts,
        summary=_summary(counts),
        chips=[(text, visit.link("/", filters)) for text, filters in chips(visit.filters, visit.index)],
        reset=visit.link("/", visit.filters.without_filters()),
        tiles=list(tiles(visit, visit_ids[start : start + count])),
        start=start,
        end=min(start + count, len(visit_ids)),
        total=len(visit_ids),
        previous=visit.link("/", at=max(0, start - count)) if start else "",
        following=visit.link("/", at=start + count) if start + count < len(visit_ids) else "",
        more=visit.link("/tiles"),
        ranges=list(_ranges(visit, visit_ids, replace(visit.filters, where="") if problem else visit.filters)),
        pairs=_pairs(visit, visit_ids),
        shards=_shards(visit, visit_ids),
        choices=_choices(visit),
        takeaway=visit.link("/takeaway"),
    )


def _selected(visit: Visit) -> tuple[Ids, str]:
    """Return the ids of the selection, or none and what is wrong with the user's condition."""
    try:
        return visit.ids, ""
    except ConfigError as error:
        if any(mistake.where != "WHERE" for mistake in error.mistakes):
            raise
        words = [mistake.what + (f"\n{mistake.hint}" if mistake.hint else "") for mistake in error.mistakes]
        return visit.everything[:0], "\n".join(words)


def show_tiles(visit: Visit) -> Response:
    """Render some tiles alone, for the script that fills the grid while it is scrolled."""
    start, count = visit.number("at", 0, len(visit.ids)), visit.number("count", PAGE, MOST)
    return page("tiles.html", tiles=list(tiles(visit, visit.ids[start : start + count])))


def common(visit: Visit) -> dict[str, Any]:
    """Return what every page of a run shows."""
    index = visit.index
    model = index.manifest.identity.model
    new_chunks, trouble = visit.opened.news()
    return {
        "visit": visit, "index": index, "filters": visit.filters, "model": model.get("name", ""),
        "runs": [(name, visit.link("/", Filters(run=name))) for name in visit.library.names],
        "name": index.name, "new_chunks": new_chunks, "trouble": trouble, "reload": visit.link("/reload"),
        "note": visit.opened.grounds.note, "remark": visit.opened.grounds.remark,
        "compare": visit.link("/compare") if len(visit.library.names) > 1 else "",
    }  # fmt: skip


def tiles(visit: Visit, ids: Ids | Sequence[int]) -> Iterator[Tile]:
    """Yield the tiles of some rows."""
    for row in visit.index.rows(ids):
        visit.opened.shown.put(name_of(row), row)
        yield Tile(
            row, visit.image_link(row), visit.picture_link("/tile", row), _short(row["image_key"]),
            list(_lines(visit, row)), state_of(row),
        )  # fmt: skip


def state_of(row: Mapping[str, Any]) -> str:
    """Say in a word how an image fared."""
    if row["error_code"] is not None:
        return "failed"
    return {True: "right", False: "wrong", None: ""}[row["viewer_correct"]]


def _short(key: str) -> str:
    return key if len(key) <= 16 else f"…{key[-15:]}"


def _lines(visit: Visit, row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what stands under a tile."""
    if row["error_code"] is not None:
        yield f"failed: {row['error_stage']}/{row['error_code']}"
        return
    name = visit.index.class_name
    if row["predicted"] is None:
        yield f"output {row['target']}: {row['target_logit']:.4g}"
    else:
        yield f"{row['confidence']:.2f} {name(row['predicted'])}"
    if row["label"] is not None and row["viewer_correct"] is not True:
        yield f"label {name(row['label']) if row['predicted'] is not None else row['label']}"
    if visit.filters.target and row["target"] != row["predicted"]:
        yield f"map of {name(row['target'])}"
    sort = visit.filters.sort
    if sort in visit.index.columns.metrics or sort in ("target_logit", "target_confidence"):
        value = row[sort]
        yield f"{'–' if value is None else format(value, '.3g')} {sort}"


def _summary(counts: Counts) -> str:
    judged = counts.right + counts.wrong
    words = [f"{100 * counts.right / judged:.1f} % right"] if judged else []
    words += [f"{counts.failed:,} failed"] if counts.failed else []
    words += [f"{counts.rows:,} maps"] if counts.rows != counts.images else []
    return " · ".join(words)


def _ranges(visit: Visit, ids: Ids, filters: Filters) -> Iterator[Range]:
    """Yield each number that varies, with its histogram over the selection without its own range."""
    for name in _offered_numbers(visit):
        span = filters.spans.get(name)
        chosen = ids if span is None else visit.opened.ids(filters.with_span(name, None))
        histogram = visit.opened.arrays.histogram(name, visit.everything, chosen)
        if histogram is not None:
            column = visit.index.columns.known[name]
            unit = f" ({column.unit})" if column.unit else ""
            yield Range(name, column.meaning + unit, histogram, span or Span())


def _offered_numbers(visit: Visit) -> Iterator[str]:
    numbers = visit.index.columns.metrics
    if visit.index.kind.has_confidences:
        yield "confidence"
        if visit.index.rules != ("predicted",) or "target_confidence" in visit.filters.spans:
            yield "target_confidence"
    else:
        yield "target_logit"
    yield from numbers
    for name in ("target_logit", "image_height", "image_width"):
        if name in visit.filters.spans and visit.index.kind.has_confidences:
            yield name


def _pairs(visit: Visit, ids: Ids) -> list[dict[str, Any]]:
    """Return the most frequent confusions of the selection, each with the link that filters it."""
    if not visit.index.kind.has_confidences:
        return []
    name = visit.index.class_name
    return [
        {
            "text": f"{name(pair.label)} → {name(pair.predicted)}", "images": pair.images,
            "link": visit.link("/", replace(visit.filters, label=pair.label, predicted=pair.predicted)),
        }
        for pair in confusions(visit.opened.arrays, ids, 8)
    ]  # fmt: skip


def _shards(visit: Visit, ids: Ids) -> list[dict[str, Any]]:
    """Return the shards with the largest share of wrong predictions, each with the link that filters them."""
    names = visit.index.shards
    if len(names) < 2 or visit.filters.shard:
        return []
    return [
        {
            "text": found.shard, "wrong": found.wrong, "judged": found.judged,
            "link": visit.link("/", replace(visit.filters, shard=found.shard, right="wrong")),
        }
        for found in worst_shards(visit.opened.arrays, ids, names, 8)
    ]  # fmt: skip


def _choices(visit: Visit) -> dict[str, Any]:
    """Return what the form offers."""
    index = visit.index
    classes = index.manifest.classes
    return {
        "methods": index.methods,
        "targets": [("", "first target"), (ALL_TARGETS, "all targets"), *((rule, rule) for rule in index.rules)]
        if not index.has_one_target else [],
        "classes": [f"{number} {name}" for number, name in enumerate(classes)] if len(classes) <= MOST_OFFERED else [],
        "has_classes": index.kind.has_confidences,
        "shards": index.shards if len(index.shards) <= MOST_OFFERED else (),
        "failures": index.failures,
        "metadata": index.metadata,
        "sorts": [DEFAULT_SORT, "image_key", "label", "predicted", "confidence", "target_confidence", "target_logit",
                  *index.columns.metrics, "target", "degenerate", "image_height", "image_width"],
    }  # fmt: skip
