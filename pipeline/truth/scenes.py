"""Scenes that can be drawn again without any of their parts.

A scene is a background and at most `MOST_PARTS` parts, drawn from a seed and an index. Taking a part out means drawing
the scene without it, so that nothing has to be imputed.

Legend: (H, W) pixels, C colours, P parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.data.sources.part_values import MOST_PARTS
from pipeline.truth.rules import RULES, is_own, kinds_of, label_of
from pipeline.truth.shapes import SIDE, Image, Mask, background, shape_mask, surface

REACH = 4
"""Pixels by which a part is dilated where a map is compared with it, since maps are coarse."""

_TRIES = 80
_CONTRAST = 0.3


@dataclass(frozen=True)
class Part:
    """One part of a scene.

    Attributes:
        kind: its shape or texture, of `shapes.KINDS`.
        mask_HW: its pixels.
        surface_HW3: colours in [0, 1], used on its pixels.
    """

    kind: str
    mask_HW: Mask
    surface_HW3: Image


@dataclass(frozen=True)
class Scene:
    """A background with parts that do not overlap.

    Attributes:
        key: its name.
        rule: the rule that its parts follow.
        background_HW3: colours in [0, 1].
        parts: the parts.

    Raises:
        ValueError: it has no part, more than `MOST_PARTS`, an empty part, or parts that overlap.
    """

    key: str
    rule: str
    background_HW3: Image
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        count = len(self.parts)
        if not 1 <= count <= MOST_PARTS:
            raise ValueError(
                f"scene '{self.key}' has {count} parts; exact values need 1 to {MOST_PARTS}, since they take 2^P "
                "drawings: leave some out"
            )
        covered_HW = np.sum([part.mask_HW for part in self.parts], axis=0)
        if covered_HW.max() > 1:
            raise ValueError(
                f"parts of scene '{self.key}' overlap on {int((covered_HW > 1).sum())} pixels; a part that hides "
                "another cannot be taken out alone: move them apart"
            )
        empty = [i for i, part in enumerate(self.parts, 1) if not part.mask_HW.any()]
        if empty:
            raise ValueError(f"part {empty[0]} of scene '{self.key}' has no pixel")

    @property
    def label(self) -> int:
        """Class of the whole scene."""
        return label_of(part.kind for part in self.parts)

    @property
    def own_P(self) -> npt.NDArray[np.bool_]:
        """Whether the rule of the class reads each part, (P,); the others are distractors or shortcuts."""
        return np.array([is_own(part.kind, self.label) for part in self.parts])

    @property
    def index_HW(self) -> npt.NDArray[np.uint8]:
        """The part at each pixel, counted from 1; 0 for the background."""
        index_HW = np.zeros(self.background_HW3.shape[:2], np.uint8)
        for number, part in enumerate(self.parts, 1):
            index_HW[part.mask_HW] = number
        return index_HW

    def drawn(self, keep_P: Sequence[bool] | None = None) -> npt.NDArray[np.uint8]:
        """Draw the scene with the parts to keep, all by default, (H, W, C) in 0 .. 255."""
        image_HW3 = self.background_HW3.copy()
        for part, keep in zip(self.parts, keep_P or [True] * len(self.parts), strict=True):
            if keep:
                image_HW3[part.mask_HW] = part.surface_HW3[part.mask_HW]
        return np.rint(image_HW3 * 255).astype(np.uint8)


def make_scene(index: int, seed: int = 0, rule: str | None = None) -> Scene:
    """Draw the scene with the given index; without a rule, the rules take turns."""
    random = np.random.default_rng([20261130, seed, index])
    chosen = RULES[index % len(RULES)] if rule is None else rule
    ground_HW3 = background(random)
    while True:
        parts = _placed(kinds_of(chosen, random), ground_HW3, random)
        if parts:
            return Scene(f"scene_{index:06d}", chosen, ground_HW3, parts)


def near(mask_HW: Mask, reach: float = REACH) -> Mask:
    """Mark the pixels at a Euclidean distance of at most `reach` from a marked one."""
    near_HW: Mask = ndimage.distance_transform_edt(~mask_HW) <= reach
    return near_HW


def _placed(kinds: Sequence[str], ground_HW3: Image, random: np.random.Generator) -> tuple[Part, ...]:
    """Place parts of these kinds so far apart that dilated parts do not meet; nothing if one finds no place."""
    parts: list[Part] = []
    taken_HW = np.zeros((SIDE, SIDE), np.bool_)
    for kind in kinds:
        for _ in range(_TRIES):
            part = _part(kind, ground_HW3, random)
            if not (part.mask_HW & taken_HW).any():
                break
        else:
            return ()
        parts.append(part)
        taken_HW |= near(part.mask_HW, 2 * REACH + 1)
    return tuple(parts)


def _part(kind: str, ground_HW3: Image, random: np.random.Generator) -> Part:
    radius = random.uniform(8.5, 12.5)
    x, y = random.uniform(radius + 1, SIDE - radius - 1, 2)
    turn = random.uniform(0, 2 * np.pi)
    mask_HW = shape_mask(kind, x, y, radius, turn)
    here_3 = ground_HW3[mask_HW].mean(0)
    return Part(kind, mask_HW, surface(kind, _colours(here_3, random), turn))


def _colours(here_3: Image, random: np.random.Generator) -> Image:
    """Draw two colours that differ from the background's and from each other."""
    while True:
        colours_23 = random.uniform(0, 1, (2, 3)).astype(np.float32)
        apart = [np.abs(colours_23[0] - here_3).max(), np.abs(colours_23[1] - here_3).max()]
        if min(*apart, np.abs(colours_23[0] - colours_23[1]).max()) > _CONTRAST:
            return colours_23
