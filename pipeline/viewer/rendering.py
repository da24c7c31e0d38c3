"""Fills the templates: names and texts of the data are escaped, and control characters replaced."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from starlette.responses import HTMLResponse

_FILES = files("pipeline.viewer")
_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x202A, 0x202F),
                           *range(0x2066, 0x206A)], "\ufffd")  # fmt: skip
"""Characters that HTML does not allow, and those that turn the direction of the text around them."""


def page(template: str, status: int = 200, /, **context: object) -> HTMLResponse:
    """Render a template as a response."""
    text = _environment().get_template(template).render(**context)
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)


def static(name: str) -> bytes:
    """Return a file of the folder static."""
    return (_FILES / "static" / name).read_bytes()


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_read),
        finalize=_without_controls,
    )  # fmt: skip
    environment.filters |= {
        "number": number, "percent": percent, "count": count, "images": images, "pretty": pretty, "edge": edge,
    }  # fmt: skip
    return environment


def _read(name: str) -> str:
    return (_FILES / "templates" / name).read_text(encoding="utf-8")


def _without_controls(value: object) -> object:
    return value.translate(_CONTROLS) if type(value) is str else value


def number(value: object) -> str:
    """Format a number of a row."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) and abs(value) < 1000 else _general(value)


def _general(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(value: float | None) -> str:
    """Format a share."""
    return "–" if value is None else f"{100 * value:.1f} %"


def count(value: int) -> str:
    """Format a number of things."""
    return f"{value:,}"


def images(value: int) -> str:
    """Format a number of images."""
    return f"{value:,} image{'' if value == 1 else 's'}"


def edge(value: float) -> str:
    """Format the end of an axis, or of a range."""
    return f"{value:.6g}"


def pretty(value: Mapping[str, Any]) -> str:
    """Format parameters as JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False)
