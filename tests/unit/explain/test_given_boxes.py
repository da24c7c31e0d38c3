"""Boxes of a notebook: torchvision's are read by what they say; shares and boxes that all lie outside are told."""

import re
import warnings
from typing import Any

import pytest
import torch
from nets import ToyNet, images
from torch import Tensor
from torchvision.tv_tensors import BoundingBoxes

import pipeline
from pipeline.explain.given_boxes import checked_boxes

SIZE = (16, 20)


def of_torchvision(rows: Any, layout: str, size: tuple[int, int] = SIZE) -> BoundingBoxes:
    return BoundingBoxes(torch.tensor(rows), format=layout, canvas_size=size)


@pytest.mark.parametrize(
    ("rows", "layout"),
    [([[2, 3, 9, 10]], "XYXY"), ([[2, 3, 7, 7]], "XYWH"), ([[5.5, 6.5, 7.0, 7.0]], "CXCYWH")],
)
def test_boxes_of_torchvision_are_read_by_their_format(rows: list[list[float]], layout: str) -> None:
    (read_n4,) = checked_boxes([of_torchvision(rows, layout)], 1, SIZE)
    assert type(read_n4) is Tensor
    assert read_n4.tolist() == [[2.0, 3.0, 9.0, 10.0]]


def test_centres_of_whole_numbers_keep_their_halves() -> None:
    (read_n4,) = checked_boxes([of_torchvision([[5, 6, 7, 7]], "CXCYWH")], 1, SIZE)
    assert read_n4 is not None
    assert read_n4.tolist() == [[1.5, 2.5, 8.5, 9.5]]


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (
            of_torchvision([[2.0, 3.0, 7.0, 7.0, 30.0]], "XYWHR"),
            "boxes of image 1 have the format XYWHR, whose boxes may",
        ),
        (
            of_torchvision([[2.0, 3.0, 9.0, 3.0, 9.0, 9.0, 2.0, 9.0]], "XYXYXYXY"),
            "upright boxes: give one of XYXY, XYWH",
        ),
        (
            of_torchvision([[2, 3, 9, 10]], "XYXY", (20, 16)),
            "the boxes of image 1 are those of an image of another size, 16 pixels wide and 20 high by their "
            "canvas_size, but the model's input is 20 pixels wide and 16 high: resize and crop them with the image",
        ),
        (of_torchvision([[9, 9, -3, 2]], "XYWH"), "x0 <= x1"),
    ],
)
def test_boxes_of_torchvision_that_do_not_fit_are_refused(boxes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        checked_boxes([None, boxes], 2, SIZE)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[[0.1, 0.2, 0.5, 0.9]]], "the only box lies within the first pixel, so they may be shares of the image"),
        (
            [[[0.0, 0.0, 1.0, 1.0]], None, [[0.1, 0.2, 0.5, 0.9], [0.3, 0.3, 0.4, 0.4]]],
            "all 3 boxes lie within the first pixel, so they may be shares of the image, but boxes are in pixels of "
            "the model's input: multiply x by its width, 20, and y by its height, 16",
        ),
    ],
)
def test_shares_of_the_image_are_refused(boxes: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        checked_boxes(boxes, len(boxes), SIZE)


def test_a_small_box_among_others_is_one_of_pixels() -> None:
    boxes = [[[0.0, 0.0, 1.0, 1.0]], [[0.0, 0.0, 1.5, 1.0]]]
    assert [one.tolist() for one in checked_boxes(boxes, 2, SIZE) if one is not None] == boxes


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[[500.0, 500.0, 600.0, 600.0]], None], "the only box lies outside of its image"),
        ([[[20.0, 0.0, 25.0, 9.0], [0.0, 0.0, 0.0, 0.0]], [[-9.0, 1.0, -2.0, 4.0]]], "all 3 boxes lie outside"),
    ],
)
def test_a_warning_says_if_all_boxes_lie_outside(boxes: list[Any], words: str) -> None:
    model, pixels_BCHW = ToyNet(0), images(0, 2)
    explained = pipeline.explain(model, pixels_BCHW, layer="features.3")
    with pytest.warns(UserWarning, match=f"{words}.*, so that metrics of boxes are NaN.*x and y swapped") as told:
        energy = pipeline.evaluate(model, pixels_BCHW, explained, metrics=["energy_in_box"], boxes=boxes)
    assert told[0].filename == __file__
    assert bool(energy["energy_in_box"]["gradcam"].isnan().all())


@pytest.mark.parametrize("boxes", [None, [None, None], [[], None], [[[500.0, 500.0, 600.0, 600.0]], [[1, 2, 3, 4]]]])
def test_no_warning_without_boxes_or_with_one_inside(boxes: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked_boxes(boxes, 2, SIZE)
