"""Scenes: what they are made of, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.sources.part_values import MOST_PARTS
from pipeline.truth.rules import CLASSES, NOTHING, RULES, label_of
from pipeline.truth.scenes import Part, Scene, make_scene, near
from pipeline.truth.shapes import KINDS, shape_mask


@pytest.mark.parametrize("index", range(14))
def test_parts_stand_apart_even_when_they_are_dilated(index: int) -> None:
    scene = make_scene(index)
    assert 1 <= len(scene.parts) <= MOST_PARTS
    assert np.sum([near(part.mask_HW) for part in scene.parts], axis=0).max() == 1
    assert scene.rule == RULES[index % len(RULES)]
    assert scene.label != NOTHING
    assert scene.own_P.any()


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    one, same, other = make_scene(5), make_scene(5), make_scene(5, seed=1)
    assert np.array_equal(one.drawn(), same.drawn())
    assert not np.array_equal(one.drawn(), other.drawn())


def test_taking_a_part_out_shows_the_background_and_leaves_the_rest() -> None:
    scene = make_scene(3)
    without = scene.drawn([False] + [True] * (len(scene.parts) - 1))
    mask_HW = scene.parts[0].mask_HW
    ground = np.rint(scene.background_HW3 * 255).astype(np.uint8)
    assert np.array_equal(without[mask_HW], ground[mask_HW])
    assert np.array_equal(without[~mask_HW], scene.drawn()[~mask_HW])
    assert (scene.drawn()[mask_HW] != ground[mask_HW]).any(1).mean() > 0.5


def test_the_index_names_every_part_from_1() -> None:
    scene = make_scene(4)
    for number, part in enumerate(scene.parts, 1):
        assert np.array_equal(scene.index_HW == number, part.mask_HW)


@pytest.mark.parametrize(
    ("kinds", "name"),
    [
        (["triangle", "bar"], "triangle"), (["plus"], "nothing"), (["plus", "disc"], "pair"), (["ring"], "either"),
        (["ring", "square"], "either"), (["star", "star"], "star"), (["chevron", "chevron", "half"], "chevrons"),
        (["chevron", "half"], "nothing"), (["half"], "halves"), (["stripes"], "stripes"), (["checks"], "checks"),
        (["ellipse", "watermark"], "nothing"), ([], "nothing"),
    ],
)  # fmt: skip
def test_the_rules_say_the_class(kinds: list[str], name: str) -> None:
    assert CLASSES[label_of(kinds)] == name


@pytest.mark.parametrize("kind", KINDS)
def test_every_shape_is_inside_its_radius_and_large_enough_to_see(kind: str) -> None:
    mask_HW = shape_mask(kind, 48, 48, 10, 0.3)
    rows, columns = np.nonzero(mask_HW)
    assert np.hypot(rows - 48, columns - 48).max() <= 10 * 1.42
    assert mask_HW.sum() > 50


def _part(x: float) -> Part:
    return Part("disc", shape_mask("disc", x, 48, 8, 0), np.ones((96, 96, 3), np.float32))


def test_overlapping_parts_are_refused_with_how_much_they_overlap() -> None:
    with pytest.raises(ValueError, match=r"parts of scene 'x' overlap on \d+ pixels.*move them apart"):
        Scene("x", "one", np.zeros((96, 96, 3), np.float32), (_part(40), _part(44)))


def test_too_many_parts_are_refused_with_the_bound() -> None:
    parts = tuple(replace(_part(0), mask_HW=shape_mask("disc", 5 + 10 * i, 48, 3, 0)) for i in range(9))
    with pytest.raises(ValueError, match=r"scene 'x' has 9 parts; exact values need 1 to 8.*leave some out"):
        Scene("x", "one", np.zeros((96, 96, 3), np.float32), parts)


def test_a_part_outside_of_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="part 2 of scene 'x' has no pixel"):
        Scene("x", "one", np.zeros((96, 96, 3), np.float32), (_part(40), _part(-50)))
