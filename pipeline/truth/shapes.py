"""Shapes and surfaces of parts.

Legend: (H, W) pixels of a scene, C colours.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

SIDE = 96
"""Height and width of a scene in pixels."""

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.float32]
_ROWS, _COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


def shape_mask(kind: str, x: float, y: float, radius: float, turn: float) -> Mask:
    """Return the pixels of a shape, (H, W), around a centre (x, y) in pixels, rotated by `turn` radians."""
    right, down = _COLUMNS - x, _ROWS - y
    along = (np.cos(turn) * right + np.sin(turn) * down) / radius
    across = (-np.sin(turn) * right + np.cos(turn) * down) / radius
    return np.asarray(_SHAPES[kind](along, across), np.bool_)


def _star(u: Image, v: Image) -> Mask:
    angle, distance = np.arctan2(v, u), np.hypot(u, v)
    fifth = np.pi / 5
    away = np.abs((angle + fifth) % (2 * fifth) - fifth)  # from the nearest point of the star
    inner = 0.42
    return np.asarray(distance * (np.cos(away) + (1 / inner - np.cos(fifth)) / np.sin(fifth) * np.sin(away)) < 1)


_SHAPES: dict[str, Callable[[Image, Image], Mask]] = {
    "triangle": lambda u, v: (v > -0.6) & (v < 1 - 1.7 * np.abs(u)),
    "plus": lambda u, v: ((np.abs(u) < 0.32) & (np.abs(v) < 1)) | ((np.abs(v) < 0.32) & (np.abs(u) < 1)),
    "disc": lambda u, v: np.hypot(u, v) < 0.85,
    "ring": lambda u, v: (np.hypot(u, v) < 1) & (np.hypot(u, v) > 0.58),
    "square": lambda u, v: (np.abs(u) < 0.78) & (np.abs(v) < 0.78),
    "star": _star,
    "chevron": lambda u, v: (v > np.abs(u) * 1.1 - 0.7) & (v < np.abs(u) * 1.1 - 0.05) & (np.abs(u) < 0.9),
    "half": lambda u, v: (np.hypot(u, v + 0.4) < 1) & (v > -0.4),
    "stripes": lambda u, v: np.hypot(u, v / 0.5) < 1,
    "checks": lambda u, v: np.hypot(u, v / 0.5) < 1,
    "bar": lambda u, v: (np.abs(u) < 1) & (np.abs(v) < 0.25),
    "ellipse": lambda u, v: np.hypot(u, v / 0.5) < 1,
    "watermark": lambda u, v: (np.abs(u) < 1) & (np.abs(v) < 0.45),
}
KINDS = tuple(_SHAPES)


def surface(kind: str, colours_23: Image, turn: float) -> Image:
    """Return the colours of a part over the whole scene, (H, W, C): plain, striped, chequered, or lettered."""
    along = np.cos(turn) * _COLUMNS + np.sin(turn) * _ROWS
    across = -np.sin(turn) * _COLUMNS + np.cos(turn) * _ROWS
    if kind == "stripes":
        second = np.sin(2 * np.pi * along / 6) > 0
    elif kind == "checks":
        second = np.sin(2 * np.pi * along / 8) * np.sin(2 * np.pi * across / 8) > 0
    elif kind == "watermark":
        second = np.sin(2 * np.pi * along / 3) > 0.2
    else:
        second = np.zeros((SIDE, SIDE), np.bool_)
    colours_HW3: Image = np.where(second[..., None], colours_23[1], colours_23[0]).astype(np.float32)
    return colours_HW3


def background(random: np.random.Generator) -> Image:
    """Draw slowly changing colours with a little noise, (H, W, C) in [0, 1]."""
    waves_62, phases_6 = random.uniform(-0.15, 0.15, (6, 2)), random.uniform(0, 2 * np.pi, 6)
    strengths_63 = random.normal(0, 0.07, (6, 3))
    ground = 0.5 + random.normal(0, 0.02, (SIDE, SIDE, 3))
    for wave, phase, strength in zip(waves_62, phases_6, strengths_63, strict=True):
        ground += np.cos(wave[0] * _COLUMNS + wave[1] * _ROWS + phase)[..., None] * strength
    return ground.clip(0, 1).astype(np.float32)
