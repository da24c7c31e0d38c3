"""The control of findings about surroundings: what the model says of other pictures without their objects."""

import numpy as np
import pytest
from PIL import Image

from pipeline.audit.background import apart_from_others, emptied
from pipeline.audit.findings import Effect, Finding
from pipeline.results.source_images import Original

FOUND = Finding(
    "background", "1", "disc", "background", "intervened", "The surroundings alone ...",
    Effect("right answers", 0.9, 0.7, 1.0, 20), "Boxes were removed.", "Collect images.",
)  # fmt: skip
ANSWERS_B = np.array([1] * 8 + [0] * 16)


@pytest.mark.parametrize(("said", "kept"), [(0, True), (3, True), (8, False), (16, False)])
def test_a_class_that_is_said_of_others_emptied_pictures_too_is_no_finding(said: int, kept: bool) -> None:
    confidences_BN = np.full((24, 2), 0.9, np.float32)
    confidences_BN[8 + said :, 1] = 0.1
    found = apart_from_others(FOUND, confidences_BN, ANSWERS_B)
    assert (found is not None) == kept
    if found:
        assert f"the model says it in {100 * said / 16:.0f} %" in found.proof


def test_few_others_are_no_control() -> None:
    assert apart_from_others(FOUND, np.full((15, 2), 0.9, np.float32), ANSWERS_B[:15]) is FOUND


def test_objects_are_overwritten_and_nothing_else() -> None:
    white = Image.new("RGB", (6, 5), "white")
    pixels_HWC = emptied(Original(white, ((1.5, 1.0, 3.2, 3.0),)), (0.1, 0.2, 0.3))
    inside_HW = np.zeros((5, 6), bool)
    inside_HW[1:3, 1:4] = True
    assert np.allclose(pixels_HWC[inside_HW], (0.1, 0.2, 0.3))
    assert (pixels_HWC[~inside_HW] == 1).all()
