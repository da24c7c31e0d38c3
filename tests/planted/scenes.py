"""Synthetic scenes of 64 x 64 pixels: one shape on a cluttered ground, with its exact box.

A scene depends on its seed and index alone. The attributes that a defect may correlate with the class (texture of the
ground, tint of the image) are drawn independently of the class. So all datasets contain the same attributes, and differ
only in their correlation. Pass `labels`, `grounds` or `tints` to replace one attribute of the same scenes.

Legend: N scenes, (H, W) pixels, 3 colours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

SIDE = 64
CLASSES = ("disc", "triangle", "cross", "ring")
GROUNDS = ("clouds", "stripes", "checks", "blots")
TINTS = np.array([[1.45, 0.8, 0.75], [0.8, 1.35, 0.85], [0.75, 0.9, 1.35], [1.2, 1.1, 0.7]], np.float32)
"""Gain of each colour channel, by tint."""

FREE_FROM = 54
"""First row below all shapes: a mark planted from here on is never in a box."""

_TINTED = 0.7
"""Weight of the tinted grey image in the final colours."""
_CLUTTER, _PEBBLE = 6, 4
_CELLS = (4, 8, 16)
_PATTERN_NUMBERS = 2 + sum(cells**2 for cells in _CELLS)
_NUMBERS = 2 * (6 + _PATTERN_NUMBERS) + 7 * _CLUTTER + 10
"""Random numbers per scene: two textures, the clutter, and light, shape and tint."""
_ROWS_HW, _COLUMNS_HW = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
_AT_ONCE = 64


@dataclass(frozen=True)
class Scenes:
    """Images with their ground truth.

    Attributes:
        pixels_NHW3: uint8.
        boxes_N4: (x0, y0, x1, y1) around all pixels of the shape; x1 and y1 are exclusive.
        labels_N, grounds_N, tints_N: class of the shape, texture of the ground, and tint of the whole image.
    """

    pixels_NHW3: Pixels
    boxes_N4: Int
    labels_N: Int
    grounds_N: Int
    tints_N: Int

    def __len__(self) -> int:
        return len(self.labels_N)


def make_scenes(
    seed: int,
    indices: Sequence[int] | Int,
    *,
    labels: Int | None = None,
    grounds: Int | None = None,
    tints: Int | None = None,
) -> Scenes:
    """Make the scenes of some indices; attributes that are not given are drawn at random."""
    generators = [_SceneRandom(seed, indices[start : start + _AT_ONCE]) for start in range(0, len(indices), _AT_ONCE)]
    kinds = np.concatenate([random.kinds_N3 for random in generators])
    given = (labels, grounds, tints)
    chosen = [kinds[:, column] if values is None else np.asarray(values) for column, values in enumerate(given)]
    pixels, boxes = [], []
    for number, random in enumerate(generators):
        rows = slice(number * _AT_ONCE, (number + 1) * _AT_ONCE)
        scene_NHW3, box_N4 = _drawn(random, *(kind[rows] for kind in chosen))
        pixels.append(scene_NHW3)
        boxes.append(box_N4)
    return Scenes(np.concatenate(pixels), np.concatenate(boxes), *chosen)


def labels_of(seed: int, indices: Sequence[int] | Int) -> Int:
    """Return the classes that `make_scenes` draws, without making the scenes."""
    return _SceneRandom(seed, indices).kinds_N3[:, 0]


class _SceneRandom:
    """Random numbers of some scenes, one generator per scene; callers must take them in a fixed order."""

    def __init__(self, seed: int, indices: Sequence[int] | Int) -> None:
        generators = [np.random.default_rng([seed, int(index)]) for index in indices]
        self.kinds_N3: Int = np.stack([generator.integers(0, len(CLASSES), 3) for generator in generators])
        self._numbers = np.stack([generator.random(_NUMBERS, np.float32) for generator in generators])
        self._taken = 0

    def uniform(self, low: float | Float, high: float | Float, count: int = 1) -> Float:
        """Return the next uniform numbers between two bounds, (N, count)."""
        taken = self._numbers[:, self._taken : self._taken + count]
        self._taken += count
        return low + (high - low) * taken


def _drawn(random: _SceneRandom, labels_N: Int, grounds_N: Int, tints_N: Int) -> tuple[Pixels, Int]:
    """Render scenes: ground, clutter, shape, tint."""
    light_N1 = random.uniform(0.3, 0.7)
    scene_NHW3 = _textured(random, grounds_N, light_N1, 0.07)
    _add_pebbles(random, scene_NHW3, light_N1)
    contrast_sign_N1 = np.where(light_N1 > 0.5, -1, 1).astype(np.float32)
    kinds_N = (len(GROUNDS) * random.uniform(0, 1)[:, 0]).astype(np.int64)
    surface_NHW3 = _textured(random, kinds_N, light_N1 + contrast_sign_N1 * random.uniform(0.3, 0.4), 0.04)
    mask_NHW = _shapes(random, labels_N)
    scene_NHW3 += (surface_NHW3 - scene_NHW3) * mask_NHW[..., None]
    tinted_NHW3 = _tinted(scene_NHW3, TINTS[tints_N] * random.uniform(0.97, 1.03, 3))
    return np.rint(np.clip(tinted_NHW3, 0, 1) * 255).astype(np.uint8), _boxes(mask_NHW > 0)


def _colours(random: _SceneRandom, light_N1: Float, strength: float = 0.35) -> Float:
    """Draw colours of a given lightness, (N, 3)."""
    hue_N3 = random.uniform(-strength, strength, 3)
    return light_N1 + hue_N3 - hue_N3.mean(1, keepdims=True)


def _textured(random: _SceneRandom, kinds_N: Int, light_N1: Float, contrast: float) -> Float:
    """Render two-coloured patterns, (N, H, W, 3)."""
    one_N3, other_N3 = _colours(random, light_N1 - contrast), _colours(random, light_N1 + contrast)
    numbers = random.uniform(0, 1, _PATTERN_NUMBERS)
    pattern_NHW1 = np.empty((len(kinds_N), SIDE, SIDE, 1), np.float32)
    for kind, name in enumerate(GROUNDS):
        rows = kinds_N == kind
        pattern_NHW1[rows, ..., 0] = _PATTERNS[name](numbers[rows])
    return one_N3[:, None, None] + (other_N3 - one_N3)[:, None, None] * pattern_NHW1


def _clouds(numbers: Float) -> Float:
    """Return noise of several scales, about [0, 1]; coarse scales are strongest."""
    total_NHW = np.full((len(numbers), SIDE, SIDE), 0.5, np.float32)
    start = 2
    for octave, cells in enumerate(_CELLS):
        grid = numbers[:, start : start + cells**2].reshape(-1, cells, cells) - 0.5
        start += cells**2
        total_NHW += (_ENLARGE[cells] @ grid @ _ENLARGE[cells].T) / 2**octave
    return total_NHW


def _waves(numbers: Float) -> tuple[Float, Float]:
    """Return sine waves along and across a random direction, in [-1, 1]."""
    turn_N11, period_N11 = np.pi * numbers[:, 0, None, None], 5 + 3 * numbers[:, 1, None, None]
    cos, sin, frequency = np.cos(turn_N11), np.sin(turn_N11), 2 * np.pi / period_N11
    return np.sin((cos * _COLUMNS_HW + sin * _ROWS_HW) * frequency), np.sin(
        (cos * _ROWS_HW - sin * _COLUMNS_HW) * frequency
    )


def _checks(numbers: Float) -> Float:
    along_NHW, across_NHW = _waves(numbers)
    return 0.5 + 0.5 * np.tanh(4 * along_NHW * across_NHW)


def _blots(numbers: Float) -> Float:
    """Return blots of about four pixels with sharp edges."""
    grid = numbers[:, -(_CELLS[-1] ** 2) :].reshape(-1, _CELLS[-1], _CELLS[-1]) - 0.5
    return 0.5 + 0.5 * np.tanh(12 * (_ENLARGE[_CELLS[-1]] @ grid @ _ENLARGE[_CELLS[-1]].T))


_PATTERNS: dict[str, Callable[[Float], Float]] = {
    "clouds": _clouds,
    "stripes": lambda numbers: 0.5 + 0.5 * _waves(numbers)[0],
    "checks": _checks,
    "blots": _blots,
}


def _enlarging(cells: int) -> Float:
    """Return weights (SIDE, cells) that upsample a grid linearly along one axis."""
    places = np.linspace(0, cells - 1, SIDE)[:, None]
    return np.maximum(0, 1 - np.abs(places - np.arange(cells))).astype(np.float32)


_ENLARGE = {cells: _enlarging(cells) for cells in _CELLS}


def _add_pebbles(random: _SceneRandom, scene_NHW3: Float, light_N1: Float) -> None:
    """Draw random discs onto the scenes in place; only the pixels near each disc change."""
    row_N = np.arange(len(scene_NHW3))[:, None, None]
    near = np.arange(2 * _PEBBLE)
    for _ in range(_CLUTTER):
        x_N11, y_N11 = (random.uniform(_PEBBLE, SIDE - _PEBBLE)[..., None] for _ in "xy")
        half_N11 = random.uniform(1, _PEBBLE - 0.5)[..., None]
        colour_N3 = _colours(random, light_N1 + random.uniform(-0.3, 0.3))
        rows_NP1 = y_N11.astype(np.int64) - _PEBBLE + near[:, None]
        columns_N1P = x_N11.astype(np.int64) - _PEBBLE + near
        inside_NPP = np.clip(half_N11 - np.hypot(columns_N1P - x_N11, rows_NP1 - y_N11), 0, 1)
        ground_NPP3 = scene_NHW3[row_N, rows_NP1, columns_N1P]
        ground_NPP3 += (colour_N3[:, None, None] - ground_NPP3) * inside_NPP[..., None].astype(np.float32)
        scene_NHW3[row_N, rows_NP1, columns_N1P] = ground_NPP3


def _shapes(random: _SceneRandom, labels_N: Int) -> Float:
    """Return shapes of random size, position and rotation as soft masks, (N, H, W) in [0, 1]."""
    radius_N1 = random.uniform(11, 15)
    x_N1 = random.uniform(radius_N1 + 1, SIDE - radius_N1 - 1)
    y_N1 = random.uniform(radius_N1 + 1, FREE_FROM - radius_N1 - 1)
    turn_N11 = random.uniform(0, 2 * np.pi)[..., None]
    cos, sin = np.cos(turn_N11), np.sin(turn_N11)
    across_NHW = (_COLUMNS_HW - x_N1[..., None]) / radius_N1[..., None]
    down_NHW = (_ROWS_HW - y_N1[..., None]) / radius_N1[..., None]
    x_NHW, y_NHW = across_NHW * cos - down_NHW * sin, across_NHW * sin + down_NHW * cos
    outside_NHW = np.empty_like(x_NHW)
    for label, name in enumerate(CLASSES):
        rows = labels_N == label
        outside_NHW[rows] = _OUTLINES[name](x_NHW[rows], y_NHW[rows])
    return np.clip(0.5 - outside_NHW * radius_N1[..., None], 0, 1)


def _triangle(x: Float, y: Float) -> Float:
    return np.maximum.reduce([x * np.cos(a) + y * np.sin(a) for a in 2 * np.pi * np.arange(3) / 3]) - 0.5


def _cross(x: Float, y: Float) -> Float:
    wide, high = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(wide - 0.3, high - 0.95), np.maximum(wide - 0.95, high - 0.3))


def _ring(x: Float, y: Float) -> Float:
    distance = np.hypot(x, y)
    return np.maximum(distance - 0.95, 0.5 - distance)


_OUTLINES: dict[str, Callable[[Float, Float], Float]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.85,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}
"""Signed distance to the outline in radii, positive outside; approximate inside."""


def _tinted(scene_NHW3: Float, gains_N3: Float) -> Float:
    """Apply a colour filter to scenes."""
    grey_NHW1 = scene_NHW3 @ np.full((3, 1), 1 / 3, np.float32)
    return (1 - _TINTED) * scene_NHW3 + _TINTED * grey_NHW1 * gains_N3[:, None, None]


def _boxes(touched_NHW: Flags) -> Int:
    """Return the bounding boxes of masks, (N, 4)."""
    edges = []
    for axis in (1, 2):
        touched_NL = touched_NHW.any(axis)
        edges.append((touched_NL.argmax(1), SIDE - touched_NL[:, ::-1].argmax(1)))
    (x0, x1), (y0, y1) = edges
    return np.stack([x0, y0, x1, y1], 1)
