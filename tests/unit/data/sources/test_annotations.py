"""Labels and boxes from CSV files: formats, precedence, and invalid rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.label_files import load_annotations
from pipeline.data.sources.row_finder import split_name
from pipeline.data.sources.shards import Boxes, Failure, Sample, Shard
from pipeline.errors import ConfigError

Write = Callable[[str, str], str]

CLASSES = ClassTable(("cat", "dog"), ("n01", "n02"))


def label_for(annotations: Annotations, key: str) -> int | None:
    return annotations.label_of(key, {})


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a.b/img_0.v1.JPG", ("a.b/img_0", "v1.jpg")),
        ("./x.png", ("x", "png")),
        ("x", ("x", "")),
        (".x.png", ("", "x.png")),
        ("d/.x", ("d/", "x")),
    ],
)
def test_a_name_is_split_at_the_first_dot_of_its_base_name(path: str, parts: tuple[str, str]) -> None:
    assert split_name(path) == parts


@pytest.mark.parametrize("key", ["d/1", "1.jpg", "other/1", "1"])
def test_a_csv_labels_files_and_members_of_tars(write: Write, key: str) -> None:
    path = write("labels.csv", "filename,class_index\n1.jpg,7\n")
    assert label_for(load_annotations(path, None, ClassTable()), key) == 7


def test_the_full_name_wins_over_the_base_name(write: Write) -> None:
    path = write("labels.csv", "filename,class_index\n1.jpg,1\nd/1.jpg,2\n")
    annotations = load_annotations(path, None, ClassTable())
    assert [label_for(annotations, key) for key in ("d/1.jpg", "d/1", "e/1", "e/1.jpg")] == [2, 2, 1, None]


def test_two_files_with_the_same_stem_keep_their_labels(write: Write) -> None:
    annotations = load_annotations(write("l.csv", "filename,class_index\n1.jpg,1\n1.png,2\n"), None, ClassTable())
    assert [label_for(annotations, key) for key in ("1.jpg", "1.png")] == [1, 2]


def test_a_key_without_suffix_has_the_row_of_its_name_else_the_first_of_its_stem(write: Write) -> None:
    text = "filename,class_index\nx.jpg,2\nx,1\ny.jpg,3\ny.png,4\n"
    annotations = load_annotations(write("l.csv", text), None, ClassTable())
    assert [label_for(annotations, key) for key in ("x", "y")] == [1, 3]


def test_a_row_applies_only_to_the_file_that_it_names(write: Write) -> None:
    rows = "filename,class_index\ncat.1.jpg,1\ndog.jpg,2\nid_7,3\n"
    annotations = load_annotations(write("l.csv", rows), None, ClassTable())
    others = ("cat.2.jpg", "cat.jpg", "dog.png", "sub/dog.png", "id_8.jpg")
    assert [label_for(annotations, key) for key in others] == [None] * 5
    assert [label_for(annotations, key) for key in ("cat.1.jpg", "dog.jpg", "id_7.jpg")] == [1, 2, 3]
    assert [label_for(annotations, key) for key in ("val/dog", "dog", "val/id_7")] == [2, 2, 3]  # keys of tars


@pytest.mark.parametrize("cell", ["", " ", "-1", "null", "NULL"])
def test_an_empty_cell_minus_one_and_null_are_no_label(write: Write, cell: str) -> None:
    annotations = load_annotations(write("l.csv", f"filename,class_index\n1.jpg,{cell}\n"), None, ClassTable())
    assert label_for(annotations, "1.jpg") is None


def test_an_image_without_row_has_no_label(write: Write) -> None:
    annotations = load_annotations(write("l.csv", "filename,class_index\n1.jpg,1\n"), None, ClassTable())
    assert (annotations.label_of("2.jpg", {}), annotations.boxes_of("2.jpg", {})) == (None, None)


def test_labels_may_be_names_or_wordnet_ids(write: Write) -> None:
    annotations = load_annotations(write("l.csv", "filename,class_index\n1.jpg,dog\n2.jpg,n01\n"), None, CLASSES)
    assert [label_for(annotations, key) for key in ("1.jpg", "2.jpg")] == [1, 0]


def test_boxes_of_one_image_may_be_in_several_rows(write: Write) -> None:
    path = write("b.csv", "filename,x0,y0,x1,y1\n1.jpg,0,0,1,1\n2.jpg,5,5,6,6\n1.jpg,2,2,3,3.5\n")
    annotations = load_annotations(None, path, ClassTable())
    assert annotations.boxes_of("1.jpg", {}) == ((0, 0, 1, 1), (2, 2, 3, 3.5))
    assert annotations.boxes_of("2", {}) == ((5, 5, 6, 6),)


def test_a_csv_may_begin_with_a_byte_order_mark(write: Write) -> None:
    annotations = load_annotations(write("l.csv", "\ufefffilename,class_index\n1.jpg,1\n"), None, ClassTable())
    assert label_for(annotations, "1.jpg") == 1


def test_the_csv_wins_over_members(shard: Shard) -> None:
    annotations = Annotations(labels={"k": "1"}, boxes={"k": ((0, 0, 1, 1),)})
    members = {"cls": b"2", "json": b'{"label": 3, "boxes": [[5, 5, 6, 6]]}'}
    assert annotated("k", shard, b"i", members, annotations) == Sample("k", "s.tar", b"i", 1, ((0, 0, 1, 1),))


def test_members_are_used_for_images_without_a_row(shard: Shard) -> None:
    members = {"cls": b"2", "json": b'{"boxes": [[5, 5, 6, 6]]}'}
    item = annotated("k", shard, b"i", members, Annotations(labels={"other": "1"}))
    assert item == Sample("k", "s.tar", b"i", 2, ((5, 5, 6, 6),))


KAGGLE = "ImageId,PredictionString\nval_1,n02 1 2 3 4 n02 5 6 7 8\nval_2,n01 0 0 9 9 \nval_3,\n"


def test_kaggles_file_gives_labels_and_boxes_with_the_class_table(write: Write) -> None:
    annotations = load_annotations(None, write("b.csv", KAGGLE), CLASSES)
    assert [label_for(annotations, f"val_{i}.JPEG") for i in (1, 2, 3)] == [1, 0, None]
    assert annotations.boxes_of("val_1", {}) == ((1, 2, 3, 4), (5, 6, 7, 8))
    assert annotations.boxes_of("val_3", {}) == ()


def test_kaggles_thousand_ids_are_numbered_in_sorted_order(write: Write) -> None:
    rows = [f"val_{i},n{9000 - i:08d} 0 0 1 1" for i in range(1000)]
    annotations = load_annotations(None, write("b.csv", "\n".join(["ImageId,PredictionString", *rows])), ClassTable())
    assert [label_for(annotations, f"val_{i}") for i in (0, 1, 999)] == [999, 998, 0]


def test_fewer_ids_without_a_class_table_are_an_error(write: Write) -> None:
    with pytest.raises(ConfigError, match="WordNet id"):
        load_annotations(None, write("b.csv", KAGGLE), ClassTable())


def test_the_label_file_wins_over_kaggles_file(write: Write) -> None:
    labels = write("l.csv", "filename,class_index\nval_1.JPEG,77\n")
    annotations = load_annotations(labels, write("b.csv", KAGGLE), CLASSES)
    assert label_for(annotations, "val_1") == 77


@pytest.mark.parametrize("row", ["nan,0,1,1", "0,inf,1,inf", "x,0,1,1", ",0,1,1", "0,0,1", "0,0,1,1e999"])
def test_an_invalid_box_fails_its_image(write: Write, shard: Shard, row: str) -> None:
    annotations = load_annotations(
        None, write("b.csv", f"filename,x0,y0,x1,y1\nbad.jpg,{row}\ngood.jpg,0,0,1,1\n"), ClassTable()
    )
    bad = annotated("bad", shard, b"i", {}, annotations)
    assert isinstance(bad, Failure)
    assert (bad.key, bad.stage, bad.code) == ("bad", "read", "boxes")
    assert isinstance(annotated("good", shard, b"i", {}, annotations), Sample)


@pytest.mark.parametrize("row", ["5,0,1,1", "0,5,1,1"])
def test_boxes_that_cannot_be_two_corners_are_refused(write: Write, row: str) -> None:
    with pytest.raises(ConfigError, match=r"1 of 2 boxes have the second corner before the first, for example bad.jpg"):
        load_annotations(None, write("b.csv", f"filename,x0,y0,x1,y1\nbad.jpg,{row}\ngood.jpg,0,0,1,1\n"), ClassTable())


@pytest.mark.parametrize("label", ["bird", "-2", "1.5", "9" * 5000])
def test_an_invalid_label_fails_its_image(write: Write, shard: Shard, label: str) -> None:
    annotations = load_annotations(write("l.csv", f"filename,class_index\nbad.jpg,{label}\n"), None, CLASSES)
    bad = annotated("bad", shard, b"i", {}, annotations)
    assert isinstance(bad, Failure)
    assert (bad.stage, bad.code) == ("read", "label")
    assert len(bad.detail) < 200


def test_xml_with_a_document_type_fails_its_image(shard: Shard) -> None:
    item = annotated("k", shard, b"i", {"xml": b"<!DOCTYPE a><a/>"}, Annotations())
    assert isinstance(item, Failure)
    assert item.code == "boxes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,label\n1.jpg,1\n", "no column class_index"),
        ("", "no column"),
        ("filename,class_index\n", "no column"),
    ],
)
def test_labels_without_their_columns_are_an_error(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_annotations(write("l.csv", text), None, ClassTable())


@pytest.mark.parametrize("text", ["filename,x0,y0,x1\n1.jpg,1,2,3\n", "PredictionString\nn01 1 2 3 4\n"])
def test_boxes_without_their_columns_are_an_error(write: Write, text: str) -> None:
    with pytest.raises(ConfigError, match="no column"):
        load_annotations(None, write("b.csv", text), CLASSES)


def test_an_unreadable_csv_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(b"filename,class_index\n\xff,1\n")
    for name in ("l.csv", "missing.csv"):
        with pytest.raises(ConfigError, match="cannot read"):
            load_annotations(str(tmp_path / name), None, ClassTable())


BASE = Annotations(CLASSES, {"a": "1"}, {"a": ((0, 0, 1, 1),)}, {"/f": Annotations(labels={"b": "2"})})
OTHER_BOX: dict[str, Boxes] = {"a": ((0, 0, 1, 2),)}


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, labels={"a": "2"}),
        replace(BASE, labels={"a": "1", "b": "1"}),
        replace(BASE, boxes=OTHER_BOX),
        replace(BASE, classes=ClassTable(("cat", "cow"), ("n01", "n02"))),
        replace(BASE, classes=ClassTable(("cat", "dog"), ("n02", "n01"))),
        replace(BASE, folders={"/f": Annotations(labels={"b": "3"})}),
        replace(BASE, folders={}),
    ],
    ids=["label", "more labels", "box", "class name", "wordnet ids", "label in a folder", "no folder"],
)
def test_the_digest_changes_with_the_content(other: Annotations) -> None:
    assert other.digest() != BASE.digest()


def test_the_digest_does_not_change_with_order_or_location() -> None:
    one = Annotations(labels={"a": "1", "b": "2"}, folders={"/here": Annotations(labels={"c": "3"})})
    two = Annotations(labels={"b": "2", "a": "1"}, folders={"/there": Annotations(labels={"c": "3"})})
    assert one.digest() == two.digest()


def test_the_first_of_two_tables_wins_and_the_other_fills_in() -> None:
    merged = Annotations(labels={"a": "1"}).or_else(Annotations(labels={"a": "2", "b": "3"}))
    assert [label_for(merged, key) for key in "ab"] == [1, 3]


def test_annotations_of_a_folder_apply_only_to_its_images() -> None:
    annotations = Annotations(labels={"x": "1"}, folders={"/f": Annotations(labels={"x": "2", "y": "3"})})
    assert [label_for(annotations.within("/f"), key) for key in "xy"] == [1, 3]
    assert [label_for(annotations.within("/g"), key) for key in "xy"] == [1, None]
