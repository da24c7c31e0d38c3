"""Framing: images are turned upright, and boxes stay on their object under rotation, resize and crop."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from pictures import LIMITS, decoded, sample, saved
from PIL import Image, ImageOps

from pipeline.data.decode import DecodedSample, decode_image
from pipeline.data.framing import PixelArray, moved_boxes, upright_boxes
from pipeline.data.sources.shards import Boxes
from pipeline.settings.preprocess import Preprocess


def extent(pixels_HWC: PixelArray) -> tuple[int, int, int, int]:
    """Return the bounding box of all reddish pixels."""
    rows, columns = np.nonzero(pixels_HWC[:, :, 0].astype(int) - pixels_HWC[:, :, 1] > 80)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


# EXIF orientation

ORIENTATIONS = range(1, 9)


def marked() -> Image.Image:
    """Return an asymmetric image: grey with one red rectangle from (6, 4) to (18, 10)."""
    image = Image.new("RGB", (60, 40), (90, 90, 90))
    image.paste((255, 0, 0), (6, 4, 18, 10))
    return image


def turned(image: Image.Image, orientation: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_turns_pixels_and_boxes_alike(orientation: int, kind: str) -> None:
    data = turned(marked(), orientation, kind)
    preprocess = Preprocess(120, None, "nearest")  # whole factors, so that edges stay sharp
    chunk = decoded(sample(data, boxes=((6, 4, 18, 10),)), preprocess=preprocess)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(chunk.pixels_NHWC[0], np.asarray(upright.resize((120, 120), Image.Resampling.NEAREST)))
    assert chunk.samples[0].size == (upright.height, upright.width)
    (box,) = chunk.samples[0].boxes_xyxy or ()
    assert np.allclose(box, extent(chunk.pixels_NHWC[0]), atol=0 if kind != "JPEG" else 3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_boxes_follow_the_crop_of_a_turned_image(orientation: int) -> None:
    image = Image.new("RGB", (60, 40), (90, 90, 90))
    image.paste((255, 0, 0), (22, 16, 30, 20))
    chunk = decoded(sample(turned(image, orientation), boxes=((22, 16, 30, 20),)))
    (box,) = chunk.samples[0].boxes_xyxy or ()
    assert np.allclose(box, extent(chunk.pixels_NHWC[0]), atol=3)


def test_rotating_boxes_forth_and_back_restores_them() -> None:
    boxes: Boxes = ((1.5, 2, 30, 4), (0, 0, 60, 40))
    inverse = {6: 8, 8: 6}
    for orientation in ORIENTATIONS:
        sides = (60, 40) if orientation < 5 else (40, 60)
        rotated = upright_boxes(boxes, orientation, 60, 40)
        assert upright_boxes(rotated, inverse.get(orientation, orientation), *sides) == boxes, orientation


def jpeg_with_exif(payload: bytes) -> bytes:
    """Return a JPEG with any bytes in its EXIF block."""
    block = b"Exif\0\0" + payload
    data = saved(marked(), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


TIFF_HEADER = b"MM\0*\0\0\0\x08"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"garbage",
        TIFF_HEADER,
        TIFF_HEADER + b"\xff\xff" + b"\xff" * 40,
        TIFF_HEADER + b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0" + b"\0" * 4,
        TIFF_HEADER + b"\0\x01\x01\x12\0\x02\0\0\0\x02x\0\0\0" + b"\0" * 4,
        b"II*\0" + b"\xff" * 20,
    ],
    ids=["none", "garbage", "cut off", "endless", "orientation 9", "orientation as text", "far offset"],
)
def test_damaged_exif_means_an_upright_image(payload: bytes) -> None:
    found = decode_image(jpeg_with_exif(payload), LIMITS)
    assert (found.orientation, found.image.size) == (1, (60, 40))


# boxes under resize and crop


def boxes_in_preset(width: int, height: int, *boxes: tuple[float, float, float, float]) -> Boxes | None:
    return decoded(sample(saved(Image.new("RGB", (width, height))), boxes=boxes)).samples[0].boxes_xyxy


def test_boxes_move_with_resize_and_crop() -> None:
    assert boxes_in_preset(512, 512, (32, 32, 256, 480)) == ((0, 0, 112, 224),)


@pytest.mark.parametrize(
    "box", [(0, 0, 512, 31), (0, 0, 31, 512), (481, 0, 512, 512), (600, 600, 700, 700), (-9, -9, 0, 0)]
)
def test_a_box_outside_the_crop_is_dropped(box: tuple[float, float, float, float]) -> None:
    assert boxes_in_preset(512, 512, box, (100, 100, 200, 200)) == ((34, 34, 84, 84),)


def test_when_all_boxes_are_dropped_the_list_is_empty() -> None:
    assert boxes_in_preset(512, 512, (0, 0, 10, 10)) == ()


def test_a_box_without_area_is_dropped() -> None:
    assert boxes_in_preset(512, 512, (100, 100, 100, 200)) == ()


def test_a_box_is_clipped_to_the_crop() -> None:
    assert boxes_in_preset(512, 512, (-100, 256, 600, 9999)) == ((0, 112, 224, 224),)


def test_squash_clips_no_box() -> None:
    data = saved(Image.new("RGB", (200, 100)))
    chunk = decoded(sample(data, boxes=((0, 0, 200, 100), (50, 25, 100, 75))), preprocess=Preprocess(40, None))
    assert chunk.samples[0].boxes_xyxy == ((0, 0, 40, 40), (10, 10, 20, 30))


def test_boxes_of_a_padded_image_move_with_it() -> None:
    data = saved(Image.new("RGB", (20, 20)))
    chunk = decoded(sample(data, boxes=((0, 0, 20, 20),)), preprocess=Preprocess(30, 20))
    assert chunk.samples[0].boxes_xyxy == ((5, 5, 25, 25),)


def test_boxes_of_a_long_image_stay_on_their_object() -> None:
    image = Image.new("RGB", (20, 400))
    image.paste((255, 0, 0), (5, 195, 15, 203))
    chunk = decoded(sample(saved(image), boxes=((5, 195, 15, 203), (0, 0, 20, 100))), preprocess=Preprocess(32, 40))
    (box,) = chunk.samples[0].boxes_xyxy or ()
    assert np.allclose(box, extent(chunk.pixels_NHWC[0]), atol=1)


def test_an_empty_list_of_boxes_stays_empty() -> None:
    assert moved_boxes((), (0, 0, 9, 9), (3, 3)) == {}
    assert upright_boxes((), 6, 9, 9) == ()


def test_visible_boxes_keep_their_indices() -> None:
    boxes = ((0.0, 0.0, 3.0, 3.0), (20.0, 0.0, 30.0, 9.0), (6.0, 6.0, 9.0, 9.0))
    assert moved_boxes(boxes, (0, 0, 9, 9), (3, 3)) == {0: (0, 0, 1, 1), 2: (2, 2, 3, 3)}


def test_the_class_of_a_dropped_box_is_dropped_too() -> None:
    boxes = ((0.0, 0.0, 8.0, 40.0), (22.0, 16.0, 30.0, 20.0), (30.0, 0.0, 38.0, 9.0))
    one = replace(sample(saved(Image.new("RGB", (60, 40))), boxes=boxes), labels=(5, 6), box_labels=(5, 6, 5))
    (found,) = decoded(one, preprocess=Preprocess(20, 20)).samples
    assert (found.labels, found.box_labels) == ((5, 6), (6, 5))
    assert found.boxes_of(6) == (found.boxes_xyxy or ())[:1]
    assert found.boxes_of(5) == (found.boxes_xyxy or ())[1:]
    assert found.boxes_of(4) is None


@pytest.mark.parametrize(("label", "target", "has_boxes"), [(3, 3, True), (3, 4, False), (None, 4, True)])
def test_boxes_without_classes_belong_to_the_label(label: int | None, target: int, has_boxes: bool) -> None:
    found = DecodedSample("k", label, ((0.0, 0.0, 1.0, 1.0),), (9, 9))
    assert found.boxes_of(target) == (((0, 0, 1, 1),) if has_boxes else None)
