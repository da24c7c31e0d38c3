"""The pictures of the pages, each with an ETag, so that a browser asks for the same picture once."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from pipeline.errors import DamagedRunError
from pipeline.maps.codec import FloatArray
from pipeline.maps.pictures import Panel, at_least, boxed, contact_sheet
from pipeline.viewer.bounded import Bounded
from pipeline.viewer.images import Ground
from pipeline.viewer.pictures import PANEL, blended, fitted, jpeg, overlay_layer, panel, png, tile
from pipeline.viewer.visit import NotFoundError, Visit

_CACHE_BYTES = 30_000_000
_MEAN_OF = 200
"""Maps that a mean map is made of, at most."""


class Drawings:
    """Draws pictures, and remembers the last ones."""

    def __init__(self) -> None:
        self._drawn: Bounded[bytes] = Bounded(_CACHE_BYTES, len)

    def tile(self, visit: Visit, request: Request) -> Response:
        """Draw an image with one map over it, small."""
        row, ground = _looked_up(visit)

        def draw() -> bytes:
            return tile(ground.image, visit.opened.maps.map_of(row))

        return self._answer(visit, request, ("tile", row["viewer_id"], ground.is_original), draw, "image/jpeg")

    def ground(self, visit: Visit, request: Request) -> Response:
        """Draw an image with its boxes."""
        row, ground = _looked_up(visit)

        def draw() -> bytes:
            return jpeg(panel(ground.image, ground.boxes))

        return self._answer(visit, request, ("ground", row["viewer_id"], ground.is_original), draw, "image/jpeg")

    def overlay(self, visit: Visit, request: Request) -> Response:
        """Draw a map alone, clear where it is 0."""
        row, ground = _looked_up(visit)

        def draw() -> bytes:
            large = fitted(ground.image, PANEL)
            return png(overlay_layer(_map(visit, row), (large.height, large.width)))

        return self._answer(visit, request, ("overlay", row["viewer_id"], ground.image.size), draw, "image/png")

    def mean(self, visit: Visit, request: Request) -> Response:
        """Draw the mean of the heat maps of a selection's first maps."""
        ids = visit.ids[: visit.number("count", _MEAN_OF, _MEAN_OF)]

        def draw() -> bytes:
            maps = [visit.opened.maps.map_of(row) for row in visit.index.rows(ids)]
            known = [map_uv for map_uv in maps if map_uv is not None]
            if not known:
                raise NotFoundError.one("picture", "no image of this selection has a map")
            return png(_mean_picture(known))

        return self._answer(visit, request, ("mean", visit.filters, len(ids)), draw, "image/png")

    def _answer(
        self, visit: Visit, request: Request, key: tuple[object, ...], draw: Callable[[], bytes], kind: str
    ) -> Response:
        """Answer with a picture, or that the browser's copy is still right."""
        whole = (visit.index.manifest.run_id, visit.index.ordinal, *key)
        etag = f'"{hashlib.sha256(repr(whole).encode("utf-8", "replace")).hexdigest()[:24]}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(self._drawn.get(whole, draw), media_type=kind, headers=headers)


def show_sheet(visit: Visit) -> Response:
    """Draw an image with every map, to be saved."""
    rows = visit.rows_of_image()
    picture = png(_sheet(visit, rows))
    name = re.sub(r"[^\w.-]+", "_", rows[0]["image_key"])[-100:].strip("._") or "image"
    disposition = f"attachment; filename*=UTF-8''{quote(name)}.png"
    return Response(picture, media_type="image/png", headers={"Content-Disposition": disposition})


def _looked_up(visit: Visit) -> tuple[Mapping[str, Any], Ground]:
    """Return the row that the address names, and what its map is laid over."""
    row = visit.row()
    return row, visit.opened.grounds.ground(row)


def _map(visit: Visit, row: Mapping[str, Any]) -> FloatArray:
    map_uv = visit.opened.maps.map_of(row)
    if map_uv is None:
        raise NotFoundError.one("picture", "this image has no map of that class and method")
    return map_uv


def _mean_picture(maps: list[FloatArray]) -> Any:  # noqa: ANN401 - a picture
    """Draw the mean of maps, each scaled to [0, 1] first, on grey."""
    from PIL import Image

    from pipeline.maps.pictures import heatmap_of

    side = 112
    mean_HW: FloatArray = np.mean([heatmap_of(map_uv, (side, side)) for map_uv in maps], axis=0, dtype=np.float32)
    return blended(Image.new("RGB", (2 * side, 2 * side), "#8a8f95"), mean_HW)


def _sheet(visit: Visit, rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - a picture
    first = rows[0]
    ground = visit.opened.grounds.ground(first)
    large, boxes = at_least(ground.image, 224, ground.boxes)
    name = visit.index.class_name
    panels = [Panel("image", "" if ground.is_original else "not available any more", boxed(large, boxes))]
    for row in rows:
        if row["error_code"] is None and row["method"] is not None:
            values = [
                f"{metric} {row[metric]:.2f}" for metric in visit.index.columns.metrics if row[metric] is not None
            ]
            title = f"{row['method']}: {name(row['target'])}"
            try:
                panels.append(Panel(title, "\n".join(values), blended(large, _map(visit, row))))
            except DamagedRunError:
                panels.append(Panel(title, "its part cannot be read", large))
    heading = f"{first['image_key']}: predicted {name(first['predicted'])}, label {name(first['label'])}"
    return contact_sheet("".join(char if char.isprintable() else "?" for char in heading), panels)
