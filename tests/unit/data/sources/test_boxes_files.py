"""Files of boxes with the names of their classes: COCO, Pascal VOC and YOLO, as their tools write them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from runfiles import SMALLEST

from pipeline.data.annotations import read_annotations
from pipeline.data.sources import Item, Sample, Shard
from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.errors import ConfigError
from pipeline.settings.run_file import RunConfig

SHARD = Shard(0, "s", "folder", "", 0, "")


def read(tmp_path: Path, boxes: Path, names: str | None = "cat\ndog\n", **data: object) -> Annotations:
    """Read a file of boxes as a run does, with a table of classes."""
    if names is not None:
        (tmp_path / "names.txt").write_text(names)
        data["classes"] = str(tmp_path / "names.txt")
    fields = {**SMALLEST, "data": {"shards": "x.tar", "boxes": str(boxes), **data}}
    return read_annotations(RunConfig.model_validate(fields), [])


def told(annotations: Annotations, key: str) -> tuple[Any, ...]:
    """Return label, labels, boxes and their classes of an image."""
    item: Item = annotated(key, SHARD, b"", {}, annotations)
    assert isinstance(item, Sample), item
    return item.label, item.labels, item.boxes_xyxy, item.box_labels


COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "d/b.jpg"}, {"id": 7, "file_name": "none.jpg"}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 17, "bbox": [10, 20, 30, 40]},
        {"id": 2, "image_id": 1, "category_id": 18, "bbox": [0, 0, 5, 5], "iscrowd": 0},
        {"id": 3, "image_id": 1, "category_id": 18, "bbox": [0, 0, 99, 99], "iscrowd": 1},
        {"id": 4, "image_id": 2, "category_id": 18, "bbox": [1.5, 2, 3, 4]},
    ],
}


def put_coco(tmp_path: Path, **parts: object) -> Path:
    (tmp_path / "instances.json").write_text(json.dumps({**COCO, **parts}))
    return tmp_path / "instances.json"


def test_coco_gives_labels_and_boxes_by_the_names_of_its_categories(tmp_path: Path) -> None:
    annotations = read(tmp_path, put_coco(tmp_path))
    assert told(annotations, "a.jpg") == (None, (0, 1), ((10, 20, 40, 60), (0, 0, 5, 5)), (0, 1))
    assert told(annotations, "d/b.jpg") == (1, (1,), ((1.5, 2, 4.5, 6),), (1,))
    assert told(annotations, "b") == told(annotations, "d/b.jpg")
    assert told(annotations, "none.jpg") == (None, (), (), ())
    assert told(annotations, "other.jpg") == (None, (), None, None)


def test_a_label_file_wins_over_the_categories(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("filename,class_index\na.jpg,1\n")
    annotations = read(tmp_path, put_coco(tmp_path), labels=str(tmp_path / "labels.csv"))
    assert told(annotations, "a.jpg") == (1, (), ((10, 20, 40, 60), (0, 0, 5, 5)), (0, 1))


def test_categories_that_are_no_classes_are_left_out_but_not_all_of_them(tmp_path: Path) -> None:
    annotations = read(tmp_path, put_coco(tmp_path), names="dog\nfish\n")
    assert told(annotations, "a.jpg") == (0, (0,), ((0, 0, 5, 5),), (0,))
    (note,) = annotations.notes
    assert note.endswith("instances.json: 1 object left out, because data.classes does not have 'cat'")
    assert read(tmp_path, put_coco(tmp_path)).notes == ()
    with pytest.raises(ConfigError, match=r"none of the classes of .* is in data.classes: 'dog', 'cat' \(did you mean"):
        read(tmp_path, put_coco(tmp_path), names="dogs\nfish\n")
    with pytest.raises(ConfigError, match=r"data.classes: is required, because .* names its classes: 'dog', 'cat'"):
        read(tmp_path, put_coco(tmp_path), names=None)


def test_boxes_of_one_category_that_is_no_class_belong_to_the_label(tmp_path: Path) -> None:
    only = {"annotations": [COCO["annotations"][3]], "categories": [{"id": 18, "name": "object"}]}
    assert told(read(tmp_path, put_coco(tmp_path, **only)), "d/b.jpg") == (None, (), ((1.5, 2, 4.5, 6),), None)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"images": None}, "has no list 'images'"),
        ({"images": [{"id": 1}]}, r"1 of 1 images of .* are wrong: images\[0\]: it has no id or no file_name"),
        ({"images": [*COCO["images"], COCO["images"][0]]}, "its id 1 is not unique"),
        ({"annotations": [{"id": 9, "image_id": 8}]}, "annotation 9: its image_id 8 is no image of the file"),
        ({"annotations": [{"id": 9, "image_id": 1, "category_id": 3}]}, "its category_id 3 is no category"),
        ({"annotations": [{"id": 9, "image_id": 1, "category_id": 17, "bbox": [1, 2, -3, 4]}]}, "annotation 9: "),
        ({"annotations": [{"id": 9, "image_id": 1, "category_id": 17}]}, "it has no bbox"),
        ({"annotations": [5]}, "annotation 5: its image_id None"),
    ],
)
def test_a_wrong_coco_file_is_refused(tmp_path: Path, parts: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, put_coco(tmp_path, **parts))


def voc(*objects: tuple[str, tuple[int, int, int, int], int], database: str = "") -> str:
    def written(name: str, box: tuple[int, int, int, int], difficult: int) -> str:
        corners = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"

    source = f"<source><database>{database}</database></source>" if database else ""
    return f"<annotation>{source}{''.join(written(*one) for one in objects)}</annotation>"


def test_voc_gives_names_and_leaves_out_what_is_difficult(tmp_path: Path) -> None:
    folder = tmp_path / "Annotations"
    folder.mkdir()
    (folder / "a.xml").write_text(voc(("dog", (1, 2, 3, 4), 0), ("cat", (5, 6, 7, 8), 1)))
    (folder / "b.xml").write_text(voc(("cat", (1, 1, 10, 20), 0), database="The VOC2007 Database"))
    annotations = read(tmp_path, folder)
    assert told(annotations, "JPEGImages/a.jpg") == (1, (1,), ((1, 2, 3, 4),), (1,))
    assert told(annotations, "b") == (0, (0,), ((0, 0, 10, 20),), (0,))


@pytest.mark.parametrize("text", ["<a", "<!DOCTYPE a><a/>", voc(("", (1, 2, 3, 4), 0)), voc(("cat", (9, 2, 3, 4), 0))])
def test_wrong_voc_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(ConfigError, match=r"data.boxes: 1 of 1 files of .* are wrong: a.xml: "):
        read(tmp_path, tmp_path, names=None)


@pytest.mark.parametrize("names", ["classes.txt", "data.yaml"])
def test_yolo_gives_classes_by_name_and_boxes_in_shares(tmp_path: Path, names: str) -> None:
    folder = tmp_path / "set" / "labels" / "train"
    folder.mkdir(parents=True)
    text = "dog\ncat\n" if names == "classes.txt" else yaml.safe_dump({"names": {0: "dog", 1: "cat"}, "nc": 2})
    (folder.parents[1] / names).write_text(text)
    (folder / "a.txt").write_text("0 0.5 0.5 0.5 0.25\n1 0.1 0.1 0.3 0.2 0.2 0.4\n")
    (folder / "b.txt").write_text("")
    annotations = read(tmp_path, folder.parent)
    boxes = ((0.25, 0.375, 0.75, 0.625), (0.1, 0.1, 0.3, 0.4))
    assert told(annotations, "train/a.jpg") == (None, (1, 0), boxes, (1, 0))
    item = annotated("a.jpg", SHARD, b"", {}, annotations)
    assert isinstance(item, Sample)
    assert item.boxes_relative
    assert told(annotations, "train/b.jpg") == (None, (), (), ())


def test_yolo_without_names_gives_numbers(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 1 1\n")
    assert told(read(tmp_path, tmp_path / "labels", names=None), "a.jpg") == (1, (1,), ((0, 0, 1, 1),), (1,))


@pytest.mark.parametrize(
    "line", ["dog 0.5 0.5 1 1", "1 0.5 0.5 1", "0 100 100 50 50", "7 0.5 0.5 1 1", "0 0.5 0.5 x 1"]
)
def test_wrong_yolo_files_are_refused(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (folder / "a.txt").write_text(line)
    with pytest.raises(ConfigError, match=r"1 of 1 files of .* are wrong: a.txt: "):
        read(tmp_path, folder)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boxes").mkdir()
    with pytest.raises(ConfigError, match=r"contains no annotation \(expected .xml of Pascal VOC or .txt of YOLO\)"):
        read(tmp_path, tmp_path / "boxes")


def test_a_table_with_other_headers_gives_boxes_and_their_classes(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,80,40,dog,1,2,3,4\na.jpg,80,40,cat,5,6,7,8\n"
    )
    assert told(read(tmp_path, path), "a.jpg") == (None, (1, 0), ((1, 2, 3, 4), (5, 6, 7, 8)), (1, 0))


def test_the_plain_file_of_boxes_is_read_in_its_format(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("filename,x0,y0,x1,y1\na.jpg,50,60,5,6\n")
    assert told(read(tmp_path, path, boxes_format="xywh"), "a.jpg")[2] == ((50, 60, 55, 66),)
    with pytest.raises(ConfigError, match=r"data.boxes_format"):
        read(tmp_path, path)


def test_a_table_without_boxes_is_refused_as_before(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("filename,x0,y0,x1\na.jpg,1,2,3\n")
    with pytest.raises(ConfigError, match=r"has no column y1 \(expected filename,x0,y0,x1,y1\)"):
        read(tmp_path, path)


def test_a_category_whose_name_several_classes_share_is_refused(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text(json.dumps(COCO))
    with pytest.raises(ConfigError, match=r"names the class 'dog', which is the name of several classes .*: 1, 2"):
        read(tmp_path, tmp_path / "coco.json", "cat\ndog\ndog\n")
