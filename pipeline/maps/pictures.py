"""Draws pictures: images of any number of channels, coloured heat maps, overlays, and the contact sheet of one image.

Legend: (H, W) pixels, C channels, 3 colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.maps.codec import FloatArray

Boxes = Sequence[tuple[float, float, float, float]]
"""Boxes (x0, y0, x1, y1) in pixels."""

VIRIDIS = (
    "440154", "481a6c", "472f7d", "414487", "39568c", "31688e", "2a788e", "23888e",
    "1f988b", "22a884", "35b779", "54c568", "7ad151", "a5db36", "d2e21b", "fde725",
)  # fmt: skip
"""Sixteen stops of viridis (Smith and van der Walt, 2015): perceptually uniform, safe for colour-blind readers."""

_STOPS = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in VIRIDIS], dtype=np.float64)
_INK, _PAPER, _BOX = "#1a1a1a", "#ffffff", "#ff2d78"
_STRONGEST = 0.75
"""Opacity of the overlay where the heat map is 1; it is 0.25 where the heat map is 0."""


@dataclass(frozen=True)
class Panel:
    """One cell of a contact sheet."""

    title: str
    caption: str
    image: Image.Image


def unit_range(pixels: npt.NDArray[Any]) -> FloatArray:
    """Return pixels, uint8 or already floats in [0, 1], as floats in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def as_picture(pixels_HWC: npt.NDArray[Any]) -> Image.Image:
    """Draw an image as RGB: one channel as grey, three as they are, of others those that `picture_note` names."""
    channels = pixels_HWC.shape[2]
    if channels in (1, 3):
        shown_HWC = pixels_HWC if pixels_HWC.dtype == np.uint8 else np.rint(255 * pixels_HWC.astype(np.float64))
    else:
        shown_HWC = np.rint(255 * _stretched(pixels_HWC[:, :, : 3 if channels > 3 else 1]))
    return Image.fromarray(np.broadcast_to(shown_HWC, (*pixels_HWC.shape[:2], 3)).astype(np.uint8))


def picture_note(channels: int) -> str:
    """Say what the picture of an image shows; empty for 1 and 3 channels, which are shown as they are."""
    if channels in (1, 3):
        return ""
    return f"channels 1 to 3 of {channels}, each scaled" if channels > 3 else f"channel 1 of {channels}, scaled"


def _stretched(pixels_HWC: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Scale each channel to [0, 1] by its own range; a constant channel becomes zero."""
    low_C, high_C = (edge((0, 1)).astype(np.float64) for edge in (pixels_HWC.min, pixels_HWC.max))
    stretched_HWC: npt.NDArray[np.float64] = (pixels_HWC - low_C) / np.where(high_C > low_C, high_C - low_C, 1.0)
    return stretched_HWC


def heatmap_of(map_uv: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Turn one raw map into a heat map (H, W) in [0, 1] for a picture: bilinear interpolation, then min-max.

    By Pillow, since pictures are also drawn where torch is not installed. A constant map, or one that is not finite,
    becomes zero. A map that is larger than the picture is averaged.
    """
    height, width = size
    low, high = float(np.min(map_uv)), float(np.max(map_uv))
    if not 0 < high - low < np.inf:
        return np.zeros(size, np.float32)
    values = Image.fromarray(np.asarray(map_uv, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    large_HW = np.asarray(values)
    span = float(large_HW.max() - large_HW.min())
    heatmap_HW: FloatArray = (large_HW - large_HW.min()) / np.float32(span or 1.0)
    return heatmap_HW


def coloured(heatmap_HW: FloatArray) -> npt.NDArray[np.float64]:
    """Colour a heat map in [0, 1] with viridis, (H, W, 3) in [0, 255]."""
    positions = np.linspace(0, 1, len(_STOPS))
    return np.stack([np.interp(heatmap_HW, positions, _STOPS[:, channel]) for channel in range(3)], axis=-1)


def overlay(image: Image.Image, map_uv: FloatArray) -> Image.Image:
    """Blend a coloured map over the image it explains; salient regions are more opaque."""
    heatmap_HW = heatmap_of(map_uv, (image.height, image.width))
    opacity_HW1 = 0.25 + (_STRONGEST - 0.25) * heatmap_HW[..., None]
    blended = (1 - opacity_HW1) * np.asarray(image.convert("RGB")) + opacity_HW1 * coloured(heatmap_HW)
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def boxed(image: Image.Image, boxes: Boxes | None) -> Image.Image:
    """Draw boxes on a copy of an image."""
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    for box in boxes or ():
        pen.rectangle(box, outline=_BOX, width=2)
    return drawn


def at_least(image: Image.Image, side: int, boxes: Boxes | None) -> tuple[Image.Image, Boxes]:
    """Enlarge a small image, and its boxes, until its width is at least `side` pixels."""
    factor = max(1.0, side / image.width)
    large = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    return large, tuple((x0 * factor, y0 * factor, x1 * factor, y1 * factor) for x0, y0, x1, y1 in boxes or ())


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Stack pictures vertically."""
    whole = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), _PAPER)
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def contact_sheet(heading: str, panels: Sequence[Panel]) -> Image.Image:
    """Arrange panels in a grid under a heading, row by row."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    width = max(panel.image.width for panel in panels)
    height = max(panel.image.height for panel in panels)
    columns = min(len(panels), 3 if len(panels) in (5, 6, 9) else 4 if len(panels) <= 16 else 8)
    rows = -(-len(panels) // columns)
    gap, top = 12, 40
    foot = 30 + 15 * max(1 + panel.caption.count("\n") for panel in panels)
    sheet = Image.new("RGB", (gap + columns * (width + gap), top + rows * (height + foot + gap)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((gap, gap), heading, _INK, font=font)
    for index, panel in enumerate(panels):
        left = gap + index % columns * (width + gap)
        upper = top + index // columns * (height + foot + gap)
        sheet.paste(panel.image, (left, upper))
        pen.text((left, upper + height + 4), panel.title, _INK, font=font)
        pen.multiline_text((left, upper + height + 24), panel.caption, _INK, font=small, spacing=2)
    return sheet
