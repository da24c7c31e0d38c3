"""Rendering the report: one HTML file that opens anywhere, from the facts and the pictures alone."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from pipeline.audit.figures import THUMBNAIL, grey_map, thumbnail
from pipeline.originals import Original
from pipeline.pictures import VIRIDIS

_TEMPLATES = files("pipeline.audit") / "templates"


def render(facts: Mapping[str, Any], pictures: Mapping[tuple[str, str], Original]) -> str:
    """Render the page.

    Args:
        facts: what `facts.collect` gave.
        pictures: the originals of the gallery, by (shard, image key); missing ones are shown as maps alone.
    """
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": _number, "percent": _percent, "pretty": _pretty, "grey_map": grey_map}
    template = environment.from_string((_TEMPLATES / "report.html").read_text(encoding="utf-8"))
    return template.render(
        **facts,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        channels=[_channel(index) for index in (0, 2, 4)],
        side=THUMBNAIL,
        shown={key: _shown(original) for key, original in pictures.items()},
    )


def _shown(original: Original) -> dict[str, Any]:
    scale = THUMBNAIL / original.image.width
    boxes = [[round(edge * scale, 2) for edge in box] for box in original.boxes_xyxy or ()]
    return {"address": thumbnail(original.image), "boxes": boxes}


def _channel(index: int) -> str:
    """Table of one colour channel of the heat filter."""
    return " ".join(f"{int(stop[index : index + 2], 16) / 255:.4f}" for stop in VIRIDIS)


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _pretty(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
