"""The label account of manifests, and of files of boxes that name their classes."""

import json
from pathlib import Path
from typing import Any

import pytest
from manifests import put_images
from tars import tar_of

from pipeline.data.account import LabelAccount
from pipeline.data.account_check import check_matches
from pipeline.data.account_files import Listed
from pipeline.data.annotations import describe
from pipeline.data.class_counts import with_counts
from pipeline.data.inputs import shards_of
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig

COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "gone.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cow"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]},
    ],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    return put_images(tmp_path, "i/a.jpg", "i/b.jpg", "i/c.jpg")


def account_of(**settings: Any) -> LabelAccount:
    data = DataConfig.model_validate({name: str(value) for name, value in settings.items()})
    shards = shards_of(data)
    account = with_counts(describe(data, shards, 1000), shards)
    check_matches(account, data)
    return account


def put(root: Path, name: str, text: str) -> Path:
    (root / name).write_text(text)
    return root / name


@pytest.mark.parametrize(("labels", "notes"), [("123", 1), ("012", 0)])
def test_labels_of_a_manifest_that_seem_to_count_from_one_are_noted(root: Path, labels: str, notes: int) -> None:
    rows = "".join(f"i/{name}.jpg,{label}\n" for name, label in zip("abc", labels, strict=True))
    account = account_of(manifest=put(root, "list.csv", f"file,label\n{rows}"))
    assert len([note for note in account.notes if note.startswith("labels run from 1 to 3 and class 0")]) == notes


def test_a_manifest_is_accounted_for(root: Path) -> None:
    text = "file,label,x0,y0,x1,y1\ni/a.jpg,cat,1,2,3,4\ni/b.jpg,dog,,,,\ni/c.jpg,-1,,,,\ni/no.jpg,cat,,,,\n"
    account = account_of(manifest=put(root, "list.csv", text), classes=root / "names.txt")
    assert account.lines() == [
        "labels    list.csv: 4 images, 1 of them missing; it gives labels of 3",
        "          3 of 4 images have a label",
        f"classes   2 names from {root}/names.txt",
        "          dog = 0: 1 image",
        "          cat = 1: 2 images",
        "boxes     list.csv: boxes of 1 of 4 images",
    ]
    assert account.warnings() == ["list.csv: 1 of 4 images are missing, and become failure rows"]
    assert account.listed == Listed(f"{root}/list.csv", 4, 1, 3, 1)
    assert LabelAccount.from_json(json.loads(json.dumps(account.to_json()))) == account


def test_images_with_several_labels_count_once(root: Path) -> None:
    path = put(root, "list.csv", "file,labels\ni/a.jpg,cat|dog\ni/b.jpg,cat\ni/c.jpg,No Finding\n")
    account = account_of(manifest=path, classes=root / "names.txt", label_separator="|")
    assert (account.images, account.labelled, account.several) == (3, 2, 1)
    assert [(one.index, one.images) for one in account.classes] == [(0, 1), (1, 2)]
    assert "2 of 3 images have a label, 1 of them several" in "\n".join(account.lines())


def test_labels_of_no_class_are_counted(root: Path) -> None:
    path = put(root, "list.csv", "file,label\ni/a.jpg,cat\ni/b.jpg,cow\ni/c.jpg,dog\n")
    account = account_of(manifest=path, classes=root / "names.txt")
    assert (account.labelled, account.unreadable, account.unreadable_example) == (2, 1, "cow")


@pytest.mark.parametrize(("names", "notes"), [("ant\nbee\nant\n", 1), ("ant\nbee\ncat\n", 0)])
def test_classes_that_share_a_name_are_noted(root: Path, names: str, notes: int) -> None:
    table = put(root, "twice.txt", names)
    labels = put(root, "labels.csv", "filename,class_index\na.jpg,0\nb.jpg,1\nc.jpg,2\n")
    account = account_of(shards=root / "i", labels=labels, classes=table)
    what = (
        "data.classes: classes 0 and 2 have the same name, 'ant', so that a label of this name is no class, and tables"
    )
    assert [note.startswith(what) for note in account.notes] == [True] * notes


def test_a_label_file_completes_a_manifest(root: Path) -> None:
    labels = put(root, "labels.csv", "filename,class_index\nb.jpg,7\nother.jpg,3\n")
    account = account_of(manifest=put(root, "list.csv", "file\ni/a.jpg\ni/b.jpg\ni/c.jpg\n"), labels=labels)
    (file,) = account.files
    assert (file.matched, file.images, file.without, file.unused) == (1, 3, 2, 1)
    assert [(one.index, one.images) for one in account.classes] == [(7, 1)]


def test_a_label_file_of_other_images_is_refused_for_manifests_too(root: Path) -> None:
    labels = put(root, "labels.csv", "filename,class_index\nx.jpg,7\n")
    with pytest.raises(ConfigError, match=r"no row of .* matches an image"):
        account_of(manifest=put(root, "list.csv", "file\ni/a.jpg\n"), labels=labels)


def test_categories_of_coco_are_labels_of_the_account(root: Path) -> None:
    boxes = put(root, "instances.json", json.dumps(COCO))
    account = account_of(shards=root / "i", boxes=boxes, classes=root / "names.txt")
    (file,) = account.files
    assert (file.kind, file.matched, file.without, file.unused) == ("boxes", 1, 2, 1)
    assert (account.labelled, account.boxed, [one.index for one in account.classes]) == (1, 1, [1])
    told = "boxes     instances.json: 2 records, 1 matched, 2 images without, 1 record without an image"
    assert told in account.lines()
    assert account.notes == (f"{boxes}: 1 object left out, because data.classes does not have 'cow'",)


def test_categories_of_coco_are_labels_of_tars(root: Path) -> None:
    (root / "0.tar").write_bytes(tar_of([("a.jpg", b"i"), ("b.jpg", b"i")]))
    boxes = put(root, "instances.json", json.dumps(COCO))
    account = account_of(shards=root / "0.tar", boxes=boxes, classes=root / "names.txt")
    assert account.has_labels
    assert account.has_boxes


def test_coco_of_other_images_is_refused(root: Path) -> None:
    images = [{"id": 1, "file_name": "x.jpg"}, {"id": 2, "file_name": "y.jpg"}]
    boxes = put(root, "instances.json", json.dumps({**COCO, "images": images}))
    with pytest.raises(ConfigError, match=r"no row of .* matches an image"):
        account_of(shards=root / "i", boxes=boxes, classes=root / "names.txt")


def test_a_file_of_boxes_with_classes_beats_folders(root: Path) -> None:
    put_images(root, "f/n01440764/a.jpg", "f/n01443537/b.jpg")
    boxes = put(root, "instances.json", json.dumps(COCO))
    account = account_of(shards=root / "f", boxes=boxes, classes=root / "names.txt")
    assert [(one.index, one.images) for one in account.classes] == [(1, 1)]
    assert "because a file gives the labels" in account.folders[0]
