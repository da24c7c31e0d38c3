"""The page of one image: every method and target side by side, its numbers, and its neighbours in the selection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from pipeline.errors import ConfigError
from pipeline.viewer.grid import common
from pipeline.viewer.rendering import page
from pipeline.viewer.selection import position
from pipeline.viewer.visit import Visit


@dataclass(frozen=True)
class TargetMaps:
    """The maps of one target class."""

    title: str
    rule: str
    confidence: float | None
    logit: float | None
    rows: Sequence[Mapping[str, Any]]


def show_image(visit: Visit) -> Response:
    """Render the page of the image that the address names."""
    rows = visit.rows_of_image()
    first = rows[0]
    ground = visit.opened.grounds.ground(first)
    explained = [row for row in rows if row["method"] is not None and row["error_code"] is None]
    failures = [row for row in rows if row["error_code"] is not None]
    return page(
        "image.html",
        **common(visit) | {"note": ""},
        first=first,
        ground=visit.picture_link("/ground", first),
        sheet=visit.picture_link("/sheet", {**first, "target": None, "method": None}),
        picture_note=ground.note,
        is_original=ground.is_original,
        has_boxes=bool(ground.boxes),
        width=ground.image.width,
        height=ground.image.height,
        groups=_groups(visit, explained),
        failures=failures,
        metadata=dict(first.get("metadata") or ()),
        **_neighbours(visit, first),
    )


def _groups(visit: Visit, rows: Sequence[Mapping[str, Any]]) -> list[TargetMaps]:
    """Group the maps by target, the most confident first; the chosen method comes first."""
    targets = dict.fromkeys(row["target"] for row in rows)
    return [_group(visit, [row for row in rows if row["target"] == target]) for target in targets]


def _group(visit: Visit, rows: Sequence[Mapping[str, Any]]) -> TargetMaps:
    order = {method: place for place, method in enumerate(visit.index.methods)}
    first = rows[0]
    return TargetMaps(
        visit.index.class_name(first["target"]) if visit.index.kind.has_confidences else f"output {first['target']}",
        first["target_rule"], first["target_confidence"], first["target_logit"],
        sorted(rows, key=lambda row: (row["method"] != visit.filters.method, order.get(row["method"], 0))),
    )  # fmt: skip


def _neighbours(visit: Visit, first: Mapping[str, Any]) -> dict[str, Any]:
    """Return the links to the images before and after this one; none if it is not in the selection."""
    empty = {"previous": "", "following": "", "place": 0, "total": 0, "back": visit.link("/")}
    try:
        ids = visit.ids
        own = {row["viewer_id"] for row in visit.index.image_rows(first["shard"], first["image_key"])}
        places = [position(ids, number) for number in own if number in ids]
    except ConfigError:  # the image can be looked at, whatever its selection says
        return empty
    if not places:
        return empty
    place = min(places)
    last = max(places)
    found = visit.index.rows([*ids[max(place - 1, 0) : place], *ids[last + 1 : last + 2]])
    before = found[0] if place else None
    after = found[-1] if last + 1 < len(ids) else None
    return {
        "previous": visit.image_link(before) if before else "", "following": visit.image_link(after) if after else "",
        "place": place + 1, "total": len(ids), "back": visit.link("/", at=place - place % 60),
    }  # fmt: skip
