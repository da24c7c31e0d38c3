"""CUB-200-2011: numbers from 1 become numbers from 0, boxes become corners, and tables must agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
from replicas import CUB_IMAGES, cub, photo, write

from pipeline.data.sources import Sample
from pipeline.data.sources.classes import ClassTable

Packing = Callable[..., dict[str, Sample]]
Refusing = Callable[..., dict[str, str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return cub(tmp_path / "source")


@pytest.fixture
def root(source: Path) -> Path:
    return source / "CUB_200_2011"


def key(number: int) -> str:
    return CUB_IMAGES[number].removesuffix(".jpg")


def test_the_test_images_have_their_class_and_box(
    packed: Packing, classes: Callable[[], ClassTable], source: Path
) -> None:
    shard = "shard-000000.tar"
    assert packed("cub200", source) == {
        key(1): Sample(key(1), shard, photo(1), 0, ((60, 27, 385, 331),)),
        key(4): Sample(key(4), shard, photo(4), 2, ((0, 0, 9, 8),)),
    }
    assert classes() == ClassTable(("Black footed Albatross", "Laysan Albatross", "Sooty Albatross"))


@pytest.mark.parametrize(("split", "labels"), [("train", [0, 1]), ("all", [0, 0, 1, 2]), ("test", [0, 2])])
def test_splits(packed: Packing, root: Path, split: str, labels: list[int]) -> None:
    found = packed("cub200", root, split)
    assert sorted(sample.label or 0 for sample in found.values()) == labels


def test_boxes_may_have_fractions_of_pixels(packed: Packing, source: Path) -> None:
    assert packed("cub200", source, "train")[key(2)].boxes_xyxy == ((1.5, 2, 11.5, 22),)


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("images.txt", "1 001", "1 ../001", "has lines that cannot be parsed"),
        ("images.txt", "1 001.Black_footed_Albatross/", "1 001.Black_footed_Albatross/../../", "cannot be parsed"),
        ("images.txt", "4 003", "3 003", "lists images twice: 3"),
        ("images.txt", CUB_IMAGES[2], CUB_IMAGES[1], f"lists files twice: {CUB_IMAGES[1]}"),
        ("image_class_labels.txt", "4 3", "4 9", "uses classes that are not in classes.txt: image 4"),
        ("image_class_labels.txt", "4 3", "4 0", "uses classes that are not in classes.txt: image 4"),
        ("image_class_labels.txt", "4 3", "4 2", f"contradicts the folders of images: {CUB_IMAGES[4]} is 002.Laysan"),
        ("image_class_labels.txt", "4 3\n", "", "has no rows for images of images.txt, by number: 4"),
        (
            "image_class_labels.txt",
            "4 3\n",
            "4 3\n5 1\n",
            "has rows for images that are not in images.txt, by number: 5",
        ),
        ("bounding_boxes.txt", "0.0 0.0 9.0 8.0", "0.0 0.0 9.0", "has lines that cannot be parsed: line 4"),
        ("bounding_boxes.txt", "0.0 0.0 9.0 8.0", "0.0 0.0 -9.0 8.0", "boxes are not finite numbers"),
        ("bounding_boxes.txt", "0.0 0.0 9.0 8.0", "0.0 nan 9.0 8.0", "boxes are not finite numbers"),
        ("train_test_split.txt", "4 0", "4 2", "has lines that cannot be parsed: line 4"),
        ("classes.txt", "2 002", "4 002", "does not number its classes 1, 2, 3"),
    ],
)
def test_invalid_tables_are_refused(
    refused: Refusing, root: Path, table: str, old: str, new: str, message: str
) -> None:
    text = (root / table).read_text()
    assert old in text
    write(root / table, text.replace(old, new))
    assert message in refused("cub200", root)[table]


@pytest.mark.parametrize(
    "table", ["images.txt", "classes.txt", "bounding_boxes.txt", "train_test_split.txt", "image_class_labels.txt"]
)
def test_a_missing_table_is_named(refused: Refusing, root: Path, table: str) -> None:
    (root / table).unlink()
    assert refused("cub200", root) == {"SRC": f"'{root}' contains no {table}"}


def test_missing_images_are_reported_with_examples(refused: Refusing, root: Path) -> None:
    for number in (1, 4):
        (root / "images" / CUB_IMAGES[number]).unlink()
    assert refused("cub200", root) == {"images": f"images are missing: {CUB_IMAGES[1]}, {CUB_IMAGES[4]}"}


def test_a_split_without_images_is_refused(refused: Refusing, root: Path) -> None:
    write(root / "train_test_split.txt", "1 1\n2 1\n3 1\n4 1\n")
    assert refused("cub200", root) == {"train_test_split.txt": "lists no image of the split 'test'"}


def test_an_unknown_split_is_refused(refused: Refusing, root: Path) -> None:
    assert refused("cub200", root, "val") == {"--split": "'val' is not a split"}


def test_a_table_that_is_not_text_is_refused(refused: Refusing, root: Path) -> None:
    write(root / "classes.txt", b"\xff\xfe1")
    assert refused("cub200", root) == {"classes.txt": "is not UTF-8 text"}
