"""Control of findings about context reliance: the model runs on images of other classes without their objects."""

import numpy as np
import pytest
from PIL import Image

from pipeline.audit.background import with_control, without_objects
from pipeline.audit.findings import Effect, Finding
from pipeline.results.source_images import Original

FOUND = Finding(
    "background", "1", "disc", "background", "intervened", "The model predicts ...",
    Effect("correct predictions", 0.9, 0.7, 1.0, 20), "Boxes were removed.", "Collect images.",
)  # fmt: skip
PREDICTED_B = np.array([1] * 8 + [0] * 16)


@pytest.mark.parametrize(("predicted", "kept"), [(0, True), (3, True), (8, False), (16, False)])
def test_a_class_predicted_for_other_images_without_objects_is_not_a_finding(predicted: int, kept: bool) -> None:
    confidences_BN = np.full((24, 2), 0.9, np.float32)
    confidences_BN[8 + predicted :, 1] = 0.1
    found = with_control(FOUND, confidences_BN, PREDICTED_B)
    assert (found is not None) == kept
    if found:
        assert found.control is not None
        assert (found.control.value, found.control.images) == (predicted / 16, 16)


@pytest.mark.parametrize(("predicted", "kept"), [(0, True), (2, True), (6, False)])
def test_images_whose_context_decides_do_not_hide_a_class_that_others_fall_to(predicted: int, kept: bool) -> None:
    confidences_BN = np.zeros((32, 2), np.float32)
    confidences_BN[:, 0] = 0.9  # the context of 12 of the 24 images of class 0 decides
    confidences_BN[20:, 0] = 0.1
    confidences_BN[20 : 20 + predicted, 1] = 0.9
    assert (with_control(FOUND, confidences_BN, np.array([1] * 8 + [0] * 24)) is not None) == kept


def test_without_enough_other_images_there_is_no_control() -> None:
    assert with_control(FOUND, np.full((15, 2), 0.9, np.float32), PREDICTED_B[:15]) is FOUND


def test_only_the_boxes_are_filled() -> None:
    white = Image.new("RGB", (6, 5), "white")
    pixels_HWC = without_objects(Original(np.asarray(white), ((1.5, 1.0, 3.2, 3.0),)), (0.1, 0.2, 0.3))
    inside_HW = np.zeros((5, 6), bool)
    inside_HW[1:3, 1:4] = True
    assert np.allclose(pixels_HWC[inside_HW], (0.1, 0.2, 0.3))
    assert (pixels_HWC[~inside_HW] == 1).all()
