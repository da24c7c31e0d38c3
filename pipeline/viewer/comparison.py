"""Two runs: the same images side by side, sorted by how much they changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from pipeline.errors import ConfigError
from pipeline.results.sql_engine import quoted
from pipeline.viewer.grid import Tile, common, tiles
from pipeline.viewer.rendering import page
from pipeline.viewer.selection import where_of
from pipeline.viewer.visit import Visit

_PAGE = 24
PREDICTION = "prediction"


@dataclass(frozen=True)
class Pair:
    """One image in two runs."""

    one: Tile
    other: Tile
    change: str


def show_comparison(visit: Visit) -> Response:
    """Render the images that both runs have, those with the largest change first."""
    names = visit.library.names
    if len(names) < 2:
        raise ConfigError.one(
            "with", "there is one run only", "start `camatlas view RUN RUN2`, or with a folder of runs"
        )
    other_name = visit.filters.other or next(name for name in names if name != visit.index.name)
    other = Visit(
        visit.library, visit.library.get(other_name), (("run", other_name), ("method", _method(visit, other_name)))
    )
    shared = ["confidence", *[name for name in visit.index.columns.metrics if name in other.index.columns.metrics]]
    if not (visit.index.kind.has_confidences and other.index.kind.has_confidences):
        shared[0] = "target_logit"
    by = visit.field("by") or shared[0]
    if by not in (*shared, PREDICTION):
        raise ConfigError.one("by", f"the runs do not share a number '{by[:80]}'", ", ".join((*shared, PREDICTION)))
    rows = _pairs(visit, other, by)
    start = visit.number("at", 0, max(0, len(rows) - 1))
    shown = rows[start : start + _PAGE]
    left = {tile.row["viewer_id"]: tile for tile in tiles(visit, [row["one"] for row in shown])}
    right = {tile.row["viewer_id"]: tile for tile in tiles(other, [row["other"] for row in shown])}
    pairs = [Pair(left[row["one"]], right[row["other"]], _change(row, by)) for row in shown]
    return page(
        "compare.html",
        **common(visit),
        other=other,
        others=[name for name in names if name != visit.index.name],
        pairs=pairs,
        total=len(rows),
        changed=sum(bool(row["changed"]) for row in rows),
        start=start,
        by=by,
        numbers=[*shared, PREDICTION],
        previous=visit.link("/compare", by=by, at=max(0, start - _PAGE)) if start else "",
        following=visit.link("/compare", by=by, at=start + _PAGE) if start + _PAGE < len(rows) else "",
    )


def _method(visit: Visit, name: str) -> str:
    """Return the chosen method if the other run has it, or "" for that run's first one."""
    method = visit.filters.method
    return method if method in visit.library.get(name).index.methods else ""


def _pairs(visit: Visit, other: Visit, by: str) -> list[dict[str, Any]]:
    """Return the ids of each shared image in both runs, with the change of a number, the largest first."""
    one, two = visit.index, other.index
    where = where_of(other.filters)
    change = "NULL::FLOAT" if by == PREDICTION else f"two.{quoted(by)} - one.{quoted(by)}"
    same_shards = bool(set(one.shards) & set(two.shards))
    query = (
        f"SELECT one.viewer_id AS one, two.viewer_id AS other, {change} AS change, "  # noqa: S608
        "one.predicted IS DISTINCT FROM two.predicted AS changed "
        f"FROM {one.table} AS one JOIN (SELECT * FROM {two.table} WHERE {where.sql}) AS two "
        f"ON one.image_key = two.image_key {'AND one.shard = two.shard' if same_shards else ''} "
        "WHERE one.viewer_id IN (SELECT unnest(?::BIGINT[])) "
        "ORDER BY changed AND ? DESC, abs(change) DESC NULLS LAST, one.viewer_id"
    )
    rows: list[dict[str, Any]] = one.engine.sql(query, [*where.parameters, visit.ids, by == PREDICTION]).to_pylist()
    return rows


def _change(row: Mapping[str, Any], by: str) -> str:
    words = ["prediction changed"] if row["changed"] else []
    if by != PREDICTION:
        words.insert(0, f"{by} –" if row["change"] is None else f"{by} {row['change']:+.3f}")
    return " · ".join(words) or "same prediction"
