"""Pictures with their heat maps for notebooks: as HTML that holds its pictures, or as a figure of matplotlib."""

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.maps.codec import FloatArray
from pipeline.maps.pictures import at_least, overlay

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

MOST_PICTURES = 16
"""Most overlays that are shown by themselves; a page of a notebook should stay small."""
_SIDE = 160
"""Longest side of a picture in HTML, in pixels."""
_LEAST = 96
"""Least width of a picture in HTML, in pixels; smaller ones are enlarged."""


@dataclass(frozen=True)
class Shown:
    """One image with its maps.

    Attributes:
        title: what is explained, such as the name of the class.
        caption: further words.
        picture: the image as the model sees it.
        maps: the map (u, v) of each method.
    """

    title: str
    caption: str
    picture: Image.Image
    maps: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Page:
    """What a notebook shows of a result.

    Attributes:
        heading: one line.
        shown: images with their maps.
        note: what was left out; empty for nothing.
        columns, rows: a table below the pictures.
    """

    heading: str
    shown: Sequence[Shown]
    note: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)


def chosen(images: int, methods: Sequence[str]) -> tuple[int, Sequence[str], str]:
    """Return how many images and which methods are shown, and a note of what is not."""
    shown = methods[: MOST_PICTURES // 2]
    count = max(1, min(images, MOST_PICTURES // max(1, len(shown))))
    parts = [f"{count} of {images:,} images"] * (count < images)
    parts += [f"{len(shown)} of {len(methods)} methods"] * (len(shown) < len(methods))
    return count, shown, f"shown: {', '.join(parts)}" if parts else ""


def html(page: Page) -> str:
    """Return a page as HTML without script; every text is escaped."""
    return _template().render(page=page, images=[_embedded(one) for one in page.shown])


def _embedded(one: Shown) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Return the texts of an image, its address, and those of its overlays by method."""
    large = at_least(one.picture, _LEAST, None)[0]
    overlays = [(name, _data(overlay(large, map_uv))) for name, map_uv in one.maps.items()]
    return one.title, one.caption, _data(large), overlays


def figure(shown: Sequence[Shown]) -> "Figure":
    """Draw images with their maps, one row each; matplotlib must be installed."""
    from matplotlib import pyplot

    names = list(dict.fromkeys(name for one in shown for name in one.maps))
    drawn, axes = pyplot.subplots(
        len(shown),
        1 + len(names),
        squeeze=False,
        figsize=(2.2 * (1 + len(names)), 2.5 * len(shown)),
        layout="constrained",
    )
    for row, one in zip(axes, shown, strict=True):
        _draw(row[0], one.picture, f"{one.title}\n{one.caption}".strip())
        for axis, name in zip(row[1:], names, strict=True):
            _draw(axis, overlay(one.picture, one.maps[name]) if name in one.maps else None, name)
    pyplot.close(drawn)  # else a notebook shows it twice: as an open figure, and as the result
    return drawn


def _draw(axis: Any, image: Image.Image | None, title: str) -> None:  # noqa: ANN401 - an Axes; matplotlib is optional
    axis.set_axis_off()
    printable = "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in title)
    axis.set_title(printable, fontsize=8, parse_math=False)
    if image is not None:
        axis.imshow(image)


def _data(image: Image.Image) -> str:
    """Return a picture as the address of an inline WebP file."""
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


@functools.cache
def _template() -> "Template":
    from jinja2 import Environment

    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)


_PAGE = """
<div class="camatlas">
<p><b>{{ page.heading }}</b></p>
{% if images %}
<div style="overflow-x: auto"><table style="text-align: center">
{% for title, caption, picture, maps in images %}
<tr>
<td style="text-align: center"><img alt="{{ title }}" src="{{ picture }}">
<br>{{ title }}<br><small>{{ caption }}</small></td>
{% for name, map in maps %}
<td style="text-align: center; vertical-align: top"><img alt="{{ name }} of {{ title }}" src="{{ map }}">
<br>{{ name }}</td>
{% endfor %}
</tr>
{% endfor %}
</table></div>
{% endif %}
{% if page.note %}<p><small>{{ page.note }}</small></p>
{% endif %}
{% if page.rows %}
<table>
<thead><tr>{% for name in page.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in page.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% endif %}
</div>
"""
