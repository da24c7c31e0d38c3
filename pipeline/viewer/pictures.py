"""Draws what the pages show: tiles with their overlay, an overlay alone, and a mean map.

An overlay is clear where the heat map is 0, and becomes more opaque towards 1, so that a photograph keeps its colours
where a map says nothing.

Legend: (H, W) pixels.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.maps.codec import FloatArray
from pipeline.maps.pictures import Boxes, boxed, coloured, heatmap_of

TILE = 224
PANEL = 448
_STRONGEST, _KNEE = 0.85, 0.45
"""Opacity where the heat map is 1, and the value of the heat map from where on it is reached half."""


def tile(image: Image.Image, map_uv: FloatArray | None) -> bytes:
    """Draw an image with its map over it, as a JPEG of at most 224 pixels."""
    small = fitted(image, TILE)
    return jpeg(small if map_uv is None else blended(small, map_uv))


def blended(image: Image.Image, map_uv: FloatArray) -> Image.Image:
    """Lay a map over an image."""
    layer = overlay_layer(map_uv, (image.height, image.width))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def overlay_layer(map_uv: FloatArray, size: tuple[int, int]) -> Image.Image:
    """Draw a map as a picture (H, W) with an alpha channel."""
    heat_HW = heatmap_of(map_uv, size)
    colours_HWC = np.rint(_table()[np.rint(heat_HW * 255).astype(np.uint8)]).astype(np.uint8)
    return Image.fromarray(colours_HWC, "RGBA")


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Scale an image so that its longer side has `side` pixels."""
    factor = side / max(image.size)
    size = tuple(max(1, round(edge * factor)) for edge in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX)


def panel(image: Image.Image, boxes: Boxes) -> Image.Image:
    """Enlarge an image for its own page, and draw its boxes."""
    large = fitted(image, PANEL)
    factor = large.width / image.width
    return boxed(large, [(x0 * factor, y0 * factor, x1 * factor, y1 * factor) for x0, y0, x1, y1 in boxes])


def jpeg(image: Image.Image) -> bytes:
    """Encode a picture as JPEG."""
    return _encoded(image.convert("RGB"), "JPEG", quality=84)


def png(image: Image.Image) -> bytes:
    """Encode a picture as PNG."""
    return _encoded(image, "PNG", compress_level=3)


def _encoded(image: Image.Image, format_name: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


_TABLES: list[npt.NDArray[np.float64]] = []


def _table() -> npt.NDArray[np.float64]:
    """Return red, green, blue and alpha for each of 256 values of a heat map."""
    if not _TABLES:
        heat_V = np.linspace(0, 1, 256, dtype=np.float32)
        opacity_V = heat_V**1.5 / (heat_V**1.5 + _KNEE**1.5 * (1 - heat_V))
        _TABLES.append(np.column_stack([coloured(heat_V[None])[0], 255 * _STRONGEST * opacity_V]))
    return _TABLES[0]
