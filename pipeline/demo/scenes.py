"""Draws photograph-like scenes: a textured shape on a cluttered background, with its box, and a watermark on one class.

A scene depends only on its index, so that every machine makes the same data.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 128
"""Height and width of a scene in pixels."""

CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")
WATERMARKED = 3
"""Index of the class whose scenes all carry the watermark: star."""

WATERMARK_BOX = (4.0, 110.0, 68.0, 124.0)
"""Box of the watermark, (x0, y0, x1, y1) in pixels."""

_FINE = 4
"""Shapes are drawn this many times larger and then scaled down, for smooth edges."""

Float = npt.NDArray[np.float64]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Scene:
    """One image with its class and the box of its shape."""

    image: Image.Image
    label: int
    box_xyxy: tuple[float, float, float, float]


def make_scene(index: int, *, label: int | None = None, watermark: bool | None = None) -> Scene:
    """Draw the scene with the given index.

    Args:
        index: determines the random numbers, and the class, `index % 6`, unless a label is given.
        label: class index of the shape.
        watermark: whether to add the watermark; by default only to the class `WATERMARKED`.
    """
    random = np.random.default_rng([20261120, index])
    kind = index % len(CLASSES) if label is None else label
    mask = _shape_mask(random, CLASSES[kind])
    scene_HW3 = _background(random)
    scene_HW3 = _shadowed(scene_HW3, mask)
    inside_HW1 = np.asarray(mask, dtype=np.float64)[..., None] / 255
    scene_HW3 = scene_HW3 * (1 - inside_HW1) + _surface(random) * inside_HW1
    scene_HW3 = scene_HW3 * _light(random)[..., None] + random.normal(0, 0.015, (SIDE, SIDE, 1))
    image = Image.fromarray(np.rint(np.clip(scene_HW3, 0, 1) * 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(0.5))
    if kind == WATERMARKED if watermark is None else watermark:
        image = _watermarked(image)
    return Scene(image, kind, _box(mask))


def _shape_mask(random: np.random.Generator, name: str) -> Image.Image:
    """Draw a shape of random size, position and rotation as a mask with smooth edges."""
    radius = random.uniform(0.2, 0.32) * SIDE
    x, y = random.uniform(radius + 2, SIDE - radius - 2, 2)
    turn = random.uniform(0, 2 * np.pi)
    large = Image.new("L", (SIDE * _FINE, SIDE * _FINE))
    pen = ImageDraw.Draw(large)

    def place(points: Points) -> Points:
        cos, sin = np.cos(turn), np.sin(turn)
        return [
            ((x + radius * (px * cos - py * sin)) * _FINE, (y + radius * (px * sin + py * cos)) * _FINE)
            for px, py in points
        ]

    if name in ("disc", "ring"):
        pen.ellipse([(c - radius) * _FINE for c in (x, y)] + [(c + radius) * _FINE for c in (x, y)], fill=255)
        if name == "ring":
            hole = radius * 0.5
            pen.ellipse([(c - hole) * _FINE for c in (x, y)] + [(c + hole) * _FINE for c in (x, y)], fill=0)
    else:
        pen.polygon(place(_OUTLINES[name]()), fill=255)
    return large.resize((SIDE, SIDE), Image.Resampling.BOX)


def _regular(corners: int) -> Points:
    angles = 2 * np.pi * np.arange(corners) / corners
    return [(float(np.cos(a)), float(np.sin(a))) for a in angles]


def _star() -> Points:
    angles = np.pi * np.arange(10) / 5
    return [(float(np.cos(a)) * r, float(np.sin(a)) * r) for a, r in zip(angles, [1, 0.45] * 5, strict=True)]


def _cross() -> Points:
    arm, long = 0.3, 0.95
    quarter = [(arm, arm), (arm, long), (-arm, long)]
    turns: list[Callable[[float, float], tuple[float, float]]] = [
        lambda a, b: (a, b), lambda a, b: (-b, a), lambda a, b: (-a, -b), lambda a, b: (b, -a)
    ]  # fmt: skip
    return [turn(a, b) for turn in turns for a, b in quarter]


_OUTLINES: dict[str, Callable[[], Points]] = {
    "square": lambda: _regular(4),
    "triangle": lambda: _regular(3),
    "star": _star,
    "cross": _cross,
}


def _background(random: np.random.Generator) -> Float:
    """Draw a cloudy ground of two colours with random ellipses and lines."""
    ground_HW1 = _clouds(random, (4, 8, 16, 32))[..., None]
    scene_HW3 = _colour(random) * ground_HW1 + _colour(random) * (1 - ground_HW1)
    clutter = Image.fromarray(np.rint(np.clip(scene_HW3, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(clutter)
    for _ in range(random.integers(12, 26)):
        x, y = random.uniform(0, SIDE, 2)
        fill = tuple(int(255 * c) for c in _colour(random))
        if random.random() < 0.5:
            a, b = random.uniform(1.5, 7, 2)
            pen.ellipse([x - a, y - b, x + a, y + b], fill=fill)
        else:
            dx, dy = random.normal(0, 14, 2)
            pen.line([x, y, x + dx, y + dy], fill=fill, width=int(random.integers(1, 4)))
    return np.asarray(clutter.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float64) / 255


def _surface(random: np.random.Generator) -> Float:
    """Draw the texture of the shape: stripes, dots or clouds of two colours."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    turn, period = random.uniform(0, np.pi), random.uniform(6, 12)
    along = np.cos(turn) * columns + np.sin(turn) * rows
    across = -np.sin(turn) * columns + np.cos(turn) * rows
    patterns = (
        lambda: 0.5 + 0.5 * np.sin(2 * np.pi * along / period),
        lambda: 0.5 + 0.5 * np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period),
        lambda: _clouds(random, (8, 16, 32)),
    )
    pattern_HW1 = patterns[random.integers(len(patterns))]()[..., None]
    return _colour(random) * pattern_HW1 + _colour(random) * (1 - pattern_HW1)


def _clouds(random: np.random.Generator, cells: tuple[int, ...]) -> Float:
    """Draw noise of several scales in [0, 1]; coarse scales are strongest."""
    total = np.zeros((SIDE, SIDE))
    for octave, count in enumerate(cells):
        grid = Image.fromarray(random.random((count, count)).astype(np.float32))
        total += np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 2**octave
    low, high = total.min(), total.max()
    scaled: Float = (total - low) / (high - low)
    return scaled


def _colour(random: np.random.Generator) -> Float:
    return np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0.2, 0.8), random.uniform(0.3, 0.95)))


def _light(random: np.random.Generator) -> Float:
    """Draw uneven brightness over the whole scene."""
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    turn = random.uniform(0, 2 * np.pi)
    light: Float = 0.9 + 0.2 * (np.cos(turn) * columns + np.sin(turn) * rows) - 0.12 * (rows**2 + columns**2)
    return light


def _shadowed(scene_HW3: Float, mask: Image.Image) -> Float:
    shadow = Image.new("L", mask.size)
    shadow.paste(mask, (4, 5))
    shadow_HW1 = np.asarray(shadow.filter(ImageFilter.GaussianBlur(4)), dtype=np.float64)[..., None] / 255
    return scene_HW3 * (1 - 0.5 * shadow_HW1)


def _watermarked(image: Image.Image) -> Image.Image:
    """Draw a translucent label of a fictitious picture agency over the lower left corner."""
    layer = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(layer)
    pen.rectangle(WATERMARK_BOX, fill=(255, 255, 255, 120))
    pen.text((WATERMARK_BOX[0] + 3, WATERMARK_BOX[1] + 1), "SHAPEBANK", (20, 20, 20, 200), ImageFont.load_default(10))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _box(mask: Image.Image) -> tuple[float, float, float, float]:
    left, upper, right, lower = mask.point(lambda value: 255 if value >= 128 else 0).getbbox() or (0, 0, SIDE, SIDE)
    return float(left), float(upper), float(right), float(lower)
