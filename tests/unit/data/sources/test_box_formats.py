"""Formats of boxes: what four numbers mean, and columns that contradict what the run file says of them."""

import io
import json
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import put_images, read_all
from PIL import Image

from pipeline.data.decode import decode_chunk
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources import Chunk, Item, Sample, Shard
from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.box_formats import ORDERS, Form, FormatCheck, corners, in_pixels
from pipeline.errors import ConfigError
from pipeline.settings.data import BoxOrder
from pipeline.settings.preprocess import Preprocess

SHARD = Shard(0, "s", "tar", "", 0, "")

SAME = {"xyxy": [10.0, 20.0, 40.0, 60.0], "xywh": [10.0, 20.0, 30.0, 40.0], "cxcywh": [25.0, 40.0, 30.0, 40.0]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return put_images(tmp_path, "a.jpg", "b.jpg")


def boxes_in(items: list[Item]) -> list[object]:
    return [item.boxes_xyxy if isinstance(item, Sample) else item.code for item in items]


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_box_in_every_format(order: BoxOrder) -> None:
    a, b, c, d = SAME[order]
    assert corners((a, b, c, d), order) == (10, 20, 40, 60)


@pytest.mark.parametrize("order", ORDERS)
def test_columns_of_boxes_are_read_in_their_format(root: Path, order: BoxOrder) -> None:
    (root / "list.csv").write_text(f'path,boxes\na.jpg,"{[SAME[order], SAME[order]]}"\nb.jpg,\n')
    assert boxes_in(read_all(root / "list.csv", boxes_format=order)) == [((10, 20, 40, 60),) * 2, None]


@pytest.mark.parametrize(
    ("header", "numbers"),
    [("x0,y0,x1,y1", "10,20,40,60"), ("xmin,ymin,xmax,ymax", "10,20,40,60"), ("x1,y1,x2,y2", "10,20,40,60"),
     ("x,y,w,h", "10,20,30,40"), ("x,y,width,height", "10,20,30,40"),
     ("x_center,y_center,width,height", "25,40,30,40")],
)  # fmt: skip
def test_headers_of_four_columns_state_their_format(root: Path, header: str, numbers: str) -> None:
    (root / "list.csv").write_text(f"path,{header}\na.jpg,{numbers}\n")
    assert boxes_in(read_all(root / "list.csv")) == [((10, 20, 40, 60),)]


def test_one_row_a_box_gives_an_image_all_of_its_boxes_with_their_classes(root: Path) -> None:
    rows = ["a.jpg,cat,0,0,4,5", "b.jpg,dog,1,1,2,2", "a.jpg,dog,5,6,7,8", "a.jpg,cat,1,2,3,4", "a.jpg,cat,1,2,3,4"]
    (root / "list.csv").write_text("\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows]))
    first, second = read_all(root / "list.csv", ["cat", "dog"])
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (first.label, first.labels, first.box_labels) == (None, (0, 1), (0, 1, 0))
    assert first.boxes_xyxy == ((0, 0, 4, 5), (5, 6, 7, 8), (1, 2, 3, 4))
    assert (second.label, second.boxes_xyxy, second.box_labels) == (1, ((1, 1, 2, 2),), None)


def test_boxes_with_a_corner_and_a_size_are_not_read_as_two_corners(root: Path) -> None:
    (root / "list.csv").write_text('path,bbox\na.jpg,"[0, 0, 5, 5]"\nb.jpg,"[50, 60, 5, 6]"\n')
    with pytest.raises(ConfigError, match=r"data.boxes_format: 1 of 2 boxes have the second corner before the first"):
        read_all(root / "list.csv")
    assert boxes_in(read_all(root / "list.csv", boxes_format="xywh")) == [((0, 0, 5, 5),), ((50, 60, 55, 66),)]


def test_shares_and_pixels_are_not_confused(root: Path) -> None:
    (root / "list.csv").write_text('path,bbox\na.jpg,"[0.1, 0.2, 0.5, 0.6]"\nb.jpg,"[0, 0, 0.5, 1.0]"\n')
    with pytest.raises(ConfigError, match=r"all 2 boxes lie within the first pixel.*set data.boxes_relative: true"):
        read_all(root / "list.csv")
    items = read_all(root / "list.csv", boxes_relative=True)
    assert [item.boxes_relative for item in items if isinstance(item, Sample)] == [True, True]
    (root / "list.csv").write_text('path,bbox\na.jpg,"[10, 20, 50, 60]"\n')
    with pytest.raises(ConfigError, match=r"1 of 1 boxes reach beyond 1.*set data.boxes_relative: false"):
        read_all(root / "list.csv", boxes_relative=True)


def test_a_box_that_is_no_box_is_a_failure_or_a_wrong_row(root: Path) -> None:
    (root / "list.csv").write_text('path,bbox\na.jpg,"[1, 2, 3]"\nb.jpg,"[1, 2, 3, 4]"\n')
    assert boxes_in(read_all(root / "list.csv")) == ["boxes", ((1, 2, 3, 4),)]
    (root / "list.csv").write_text("path,bbox\na.jpg,somewhere\n")
    with pytest.raises(ConfigError, match=r"row 2: 'somewhere' is no list of boxes"):
        read_all(root / "list.csv")


def test_lines_of_json_hold_lists_of_boxes_and_their_classes(root: Path) -> None:
    fields = {"file_name": "a.jpg", "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]], "labels": ["dog", "cat"],
              "box_labels": ["cat", "dog"]}  # fmt: skip
    (root / "list.jsonl").write_text(json.dumps(fields))
    (item,) = read_all(root / "list.jsonl", ["cat", "dog"])
    assert isinstance(item, Sample)
    assert (item.labels, item.box_labels, item.boxes_xyxy) == ((1, 0), (0, 1), ((1, 2, 3, 4), (5, 6, 7, 8)))


def test_boxes_inside_of_objects_are_named_with_dots(root: Path) -> None:
    objects = {"bbox": [[1, 2, 3, 4]], "categories": ["dog"]}
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "objects": objects}))
    columns = {"boxes": "objects.bbox", "box_labels": "objects.categories"}
    (item,) = read_all(root / "metadata.jsonl", ["cat", "dog"], columns=columns, boxes_format="xywh")
    assert isinstance(item, Sample)
    assert (item.boxes_xyxy, item.box_labels) == (((1, 2, 4, 6),), (1,))


sides = st.floats(0, 1000, allow_nan=False)


@given(x=sides, y=sides, w=sides, h=sides)
def test_every_box_in_a_picture_passes_the_check(x: float, y: float, w: float, h: float) -> None:
    check = FormatCheck("xywh", relative=False)
    check.add("a", (corners((x, y, w, h), "xywh"), (0, 0, 5, 5)))
    assert check.contradiction() == ""


def test_shares_become_pixels() -> None:
    assert in_pixels(((0.25, 0.5, 1, 1),), 80, 40) == ((20, 20, 80, 40),)
    assert in_pixels(None, 80, 40) is None


def in_a_tar(fields: object, annotations: Annotations) -> Sample:
    item = annotated("a", SHARD, b"", {"json": json.dumps(fields).encode()}, annotations)
    assert isinstance(item, Sample)
    return item


@pytest.mark.parametrize("order", ORDERS)
def test_boxes_of_members_are_read_in_their_format(order: BoxOrder) -> None:
    item = in_a_tar({"boxes": [SAME[order]]}, Annotations(form=Form(order, relative=True)))
    assert (item.boxes_xyxy, item.boxes_relative) == (((10, 20, 40, 60),), True)
    assert in_a_tar({}, Annotations(form=Form(order, relative=True))).boxes_relative is False


def test_boxes_of_xml_members_are_corners_in_pixels_whatever_the_format() -> None:
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    xml = f"<annotation><object><bndbox>{box}</bndbox></object></annotation>".encode()
    item = annotated("a", SHARD, b"", {"xml": xml}, Annotations(form=Form("xywh", relative=True)))
    assert isinstance(item, Sample)
    assert (item.boxes_xyxy, item.boxes_relative) == (((1, 2, 3, 4),), False)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("isolated", [False, True])
def test_shares_become_pixels_of_the_stored_picture(kind: str, isolated: bool) -> None:
    file = io.BytesIO()
    Image.new("RGB", (80, 40), "red").save(file, kind)
    sample = Sample("a", "s", file.getvalue(), None, ((0.25, 0.5, 1.0, 1.0),), boxes_relative=True)
    with closing(DecodeSandbox()) as sandbox:
        frame = sandbox.frame_in_subprocess if isolated else sandbox.frame
        chunk = decode_chunk(Chunk(SHARD, 0, True, (sample,)), Preprocess((40, 80), None), DecodeLimits(), frame)
    (decoded,) = chunk.samples
    assert decoded.boxes_xyxy == ((20, 20, 80, 40),)
