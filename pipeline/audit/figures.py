"""Images of the page as data URLs: thumbnails, and grey maps of one pixel per cell.

A map is embedded at its own grid. The browser upsamples it, and an SVG filter applies the colour map.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

THUMBNAIL = 160
"""Longer side of a thumbnail in pixels."""


def thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """Return the (width, height) of the thumbnail of an image."""
    longer = max(height, width)
    return max(1, round(THUMBNAIL * width / longer)), max(1, round(THUMBNAIL * height / longer))


def thumbnail(image: Image.Image) -> str:
    """Encode the preprocessed image as a small WebP."""
    size = thumbnail_size(image.height, image.width)
    return _data_url(image.resize(size, Image.Resampling.LANCZOS), "WEBP", quality=60)


def grey_map(map_uv: Sequence[Sequence[float]]) -> str:
    """Encode a map in [0, 1] as a grey PNG of one pixel per cell."""
    return _data_url(Image.fromarray(np.rint(np.array(map_uv) * 255).astype(np.uint8)), "PNG", optimize=True)


def outline(cells: Sequence[Sequence[float]], size: Sequence[int]) -> str:
    """Return the path of the border of a region in SVG: each edge between a cell of the region and one outside.

    Args:
        cells: 1 in the region, 0 outside.
        size: width and height of the picture.
    """
    inside_uv = np.pad(np.array(cells) > 0, 1)
    rows, columns = (side - 2 for side in inside_uv.shape)
    across, down = size[0] / columns, size[1] / rows
    vertical = zip(*np.nonzero(inside_uv[:, 1:] != inside_uv[:, :-1]), strict=True)
    horizontal = zip(*np.nonzero(inside_uv[1:] != inside_uv[:-1]), strict=True)
    lines = [f"M{column * across:.1f} {(row - 1) * down:.1f}v{down:.1f}" for row, column in vertical]
    lines += [f"M{(column - 1) * across:.1f} {row * down:.1f}h{across:.1f}" for row, column in horizontal]
    return "".join(lines)


def _data_url(image: Image.Image, kind: str, **options: int | bool) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
