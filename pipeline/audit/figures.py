"""Small pictures for the page: thumbnails and tiny grey maps, as data addresses.

A map is shipped at its own grid; the browser enlarges it and an SVG filter colours it.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

THUMBNAIL = 112
"""Side of a thumbnail in pixels."""


def thumbnail(image: Image.Image) -> str:
    """Make a small WebP of what the model saw."""
    return _address(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS), "WEBP", quality=60)


def grey_map(map_uv: Sequence[Sequence[float]]) -> str:
    """Make a PNG of one pixel a cell from a map in [0, 1]."""
    return _address(Image.fromarray(np.rint(np.array(map_uv) * 255).astype(np.uint8)), "PNG", optimize=True)


def _address(image: Image.Image, kind: str, **options: int | bool) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
