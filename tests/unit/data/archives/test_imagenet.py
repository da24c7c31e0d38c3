"""The validation set of ILSVRC2012: both annotation formats, class indices by sorted WordNet id, and no guesses."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from replicas import (
    VAL_BOXES,
    VAL_CLASSES,
    VAL_NAMES,
    WNIDS,
    photo,
    val_images,
    val_kit,
    val_mapping,
    val_solution,
    write,
    xml,
)
from tars import tar_of

from pipeline.data.sources import Sample
from pipeline.data.sources.classes import ClassTable

Packing = Callable[..., dict[str, Sample]]
Refusing = Callable[..., dict[str, str]]

EXPECTED = {
    name: Sample(name, f"shard-{number // 2:06d}.tar", photo(number), VAL_CLASSES[number], tuple(VAL_BOXES[number]))
    for number, name in enumerate(VAL_NAMES)
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize("tar", [False, True])
def test_the_solution_gives_labels_and_boxes(
    packed: Packing, classes: Callable[[], ClassTable], source: Path, tar: bool
) -> None:
    val_images(val_solution(source), tar=tar)
    assert packed("imagenet-val", source) == EXPECTED
    assert classes() == ClassTable(tuple(f"thing {number}" for number in range(1000)), tuple(WNIDS))


@pytest.mark.parametrize("tar", [False, True])
def test_the_xml_files_give_the_labels_of_the_kit(packed: Packing, source: Path, tar: bool) -> None:
    val_images(val_kit(source), tar=tar)
    val_mapping(source)
    assert packed("imagenet-val", source) == EXPECTED


def test_the_source_may_be_the_tar(packed: Packing, source: Path) -> None:
    val_images(val_solution(source), tar=True)
    assert packed("imagenet-val", source / "ILSVRC2012_img_val.tar") == EXPECTED


def test_images_may_be_in_class_folders(packed: Packing, source: Path) -> None:
    val_images(val_solution(source))
    for name, label in zip(VAL_NAMES, VAL_CLASSES, strict=True):
        (source / "val" / WNIDS[label]).mkdir(exist_ok=True)
        (source / "val" / f"{name}.JPEG").rename(source / "val" / WNIDS[label] / f"{name}.JPEG")
    assert packed("imagenet-val", source) == EXPECTED


def test_the_layout_of_the_competition(packed: Packing, source: Path) -> None:
    val_images(val_solution(source))
    (source / "ILSVRC" / "Data" / "CLS-LOC").mkdir(parents=True)
    (source / "val").rename(source / "ILSVRC" / "Data" / "CLS-LOC" / "val")
    assert packed("imagenet-val", source) == EXPECTED


# No guessing


def test_without_the_ids_of_all_classes_nothing_is_guessed(refused: Refusing, source: Path) -> None:
    val_images(val_solution(source, mapping=False))
    assert refused("imagenet-val", source) == {
        "SRC": "the annotations contain 3 WordNet ids, and LOC_synset_mapping.txt is missing"
    }


def test_the_kit_without_ids_is_not_guessed(refused: Refusing, source: Path) -> None:
    val_images(val_kit(source))
    assert "LOC_synset_mapping.txt is missing" in refused("imagenet-val", source)["SRC"]


def test_the_numbers_of_the_kit_alone_are_refused(refused: Refusing, source: Path) -> None:
    val_images(val_kit(source))
    val_mapping(source)
    shutil.rmtree(source / "bbox")
    message = refused("imagenet-val", source)["SRC"]
    assert "numbers classes in its own order" in message
    assert "contains no ILSVRC2012_val_*.xml" in message


@pytest.mark.parametrize("numbers", [(490, 361, 362, 1), (490, 361, 361, 361), (490, 361, 361)])
def test_a_kit_that_contradicts_the_xml_files_is_refused(
    refused: Refusing, source: Path, numbers: tuple[int, ...]
) -> None:
    val_images(val_kit(source, numbers))
    val_mapping(source)
    message = refused("imagenet-val", source)["ILSVRC2012_validation_ground_truth.txt"]
    expected = "contradicts the XML files: " if len(numbers) == 4 else "has 3 lines, but none for images"
    assert message.startswith(expected)


def test_neither_annotation_is_refused(refused: Refusing, source: Path) -> None:
    val_images(source)
    assert refused("imagenet-val", source) == {
        "SRC": f"'{source}' contains neither LOC_val_solution.csv nor ILSVRC2012_validation_ground_truth.txt"
    }


# Invalid archives


def test_images_and_labels_must_match(refused: Refusing, source: Path) -> None:
    val_images(val_solution(source))
    (source / "val" / f"{VAL_NAMES[0]}.JPEG").rename(source / "val" / "ILSVRC2012_val_00000009.JPEG")
    (source / "val" / f"{VAL_NAMES[3]}.JPEG").unlink()
    assert refused("imagenet-val", source) == {
        "source": "images have no label: ILSVRC2012_val_00000009; "
        f"labelled images are missing: {VAL_NAMES[0]}, {VAL_NAMES[3]}"
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"{VAL_NAMES[0]},", f"{VAL_NAMES[1]},", f"lists images twice: {VAL_NAMES[1]}"),
        ("1 2 30 39", "1 2 30", "rows that are not WordNet id, x1, y1, x2, y2"),
        (f"{WNIDS[7]} 10", f"{WNIDS[8]} 10", "of one id"),
        ("1 2 30 39", "31 2 30 39", "boxes are not finite numbers"),
        ("1 2 30 39", "1 2 thirty 39", "boxes are not finite numbers"),
        ("ImageId,", "Image,", "is not a table of two columns"),
    ],
)
def test_an_invalid_solution_is_refused(refused: Refusing, source: Path, old: str, new: str, message: str) -> None:
    val_images(val_solution(source))
    path = source / "LOC_val_solution.csv"
    assert old in path.read_text()
    write(path, path.read_text().replace(old, new))
    assert message in refused("imagenet-val", source)["LOC_val_solution.csv"]


def test_an_id_that_the_mapping_lacks_is_refused(refused: Refusing, source: Path) -> None:
    val_images(val_solution(source))
    path = source / "LOC_synset_mapping.txt"
    write(path, path.read_text().replace(WNIDS[7], "n99999999"))
    assert refused("imagenet-val", source) == {
        "source": f"labels are unknown: {VAL_NAMES[1]} {WNIDS[7]}, {VAL_NAMES[2]} {WNIDS[7]}"
    }


def test_a_mapping_of_fewer_classes_is_refused(refused: Refusing, source: Path) -> None:
    val_images(val_solution(source))
    path = source / "LOC_synset_mapping.txt"
    write(path, "\n".join(path.read_text().splitlines()[:-1]))
    assert refused("imagenet-val", source) == {"LOC_synset_mapping.txt": "lists 999 WordNet ids, not 1000"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xml("x", []), "contain no class, or several"),
        (xml("x", [(WNIDS[0], (1, 1, 2, 2), 0), (WNIDS[1], (1, 1, 2, 2), 0)]), "contain no class, or several"),
        (xml("x", [(WNIDS[999], (5, 1, 2, 2), 0)]), "boxes are not finite numbers"),
        ('<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>', "document type is refused"),
    ],
)
def test_an_invalid_xml_file_is_refused(refused: Refusing, source: Path, text: str, message: str) -> None:
    val_images(val_kit(source))
    val_mapping(source)
    write(source / "bbox" / "val" / f"{VAL_NAMES[0]}.xml", text)
    assert message in refused("imagenet-val", source)["val"]


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "ILSVRC2012_val_1", "notes"])
def test_a_tar_with_other_names_is_refused(refused: Refusing, source: Path, name: str) -> None:
    val_solution(source)
    write(source / "ILSVRC2012_img_val.tar", tar_of([(f"{name}.JPEG", b"x")]))
    assert (
        "files that are not images of the validation set" in refused("imagenet-val", source)["ILSVRC2012_img_val.tar"]
    )


def test_a_damaged_tar_is_refused(refused: Refusing, source: Path) -> None:
    val_images(val_solution(source), tar=True)
    path = source / "ILSVRC2012_img_val.tar"
    write(path, path.read_bytes()[:3000])
    assert "is damaged" in refused("imagenet-val", source)["ILSVRC2012_img_val.tar"]


def test_a_repeated_name_is_refused(refused: Refusing, source: Path) -> None:
    val_solution(source)
    names = [f"{folder}{VAL_NAMES[0]}.JPEG" for folder in ("a/", "b/")]
    write(source / "ILSVRC2012_img_val.tar", tar_of([(name, b"x") for name in names]))
    assert "contains images twice" in refused("imagenet-val", source)["ILSVRC2012_img_val.tar"]


def test_there_are_no_splits(refused: Refusing, source: Path) -> None:
    assert refused("imagenet-val", source, "test") == {"--split": "the validation set of ILSVRC2012 has no splits"}


def test_a_folder_without_images_is_refused(refused: Refusing, source: Path) -> None:
    assert "contains no ILSVRC2012_img_val.tar" in refused("imagenet-val", val_solution(source))["SRC"]
