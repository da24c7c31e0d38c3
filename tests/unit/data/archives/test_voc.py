"""Pascal VOC 2007: classes and boxes of a small replica, difficult objects, splits, and invalid archives."""

from collections.abc import Callable
from pathlib import Path

import pytest
from replicas import photo, voc, write, xml

from pipeline.data.sources import Sample
from pipeline.data.sources.classes import ClassTable

Packing = Callable[..., dict[str, Sample]]
Refusing = Callable[..., dict[str, str]]
BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation><filename>&c;</filename></annotation>'
REACHING = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><filename>&b;</filename></annotation>'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return voc(tmp_path / "source")


@pytest.fixture
def root(source: Path) -> Path:
    return source / "VOCdevkit" / "VOC2007"


def test_the_test_images_have_their_classes_and_boxes(
    packed: Packing, classes: Callable[[], ClassTable], source: Path
) -> None:
    first, second = "shard-000000.tar", "shard-000001.tar"
    assert packed("voc2007", source) == {
        "000001": Sample("000001", first, photo(1), None, ((47, 19, 55, 37), (7, 11, 35, 40)), (11, 14), (11, 14)),
        "000002": Sample("000002", first, photo(2), 18, ((0, 0, 61, 40),), (18,), (18,)),
        "000003": Sample("000003", second, photo(3), 14, ((4, 4, 9, 9), (10, 5, 20, 16)), (14,), (14, 14)),
        "000004": Sample("000004", second, photo(4), None, (), (), ()),
    }
    names = classes().names
    assert (len(names), names[0], names[11], names[14], names[18]) == (20, "aeroplane", "dog", "person", "train")
    assert list(names) == sorted(names)


def test_another_split_is_another_set_of_images(packed: Packing, source: Path) -> None:
    assert {key: sample.label for key, sample in packed("voc2007", source, "trainval").items()} == {"000005": 8}


@pytest.mark.parametrize("inner", ["VOCdevkit", "VOCdevkit/VOC2007"])
def test_the_source_may_be_any_folder_of_the_archive(packed: Packing, source: Path, inner: str) -> None:
    assert len(packed("voc2007", source / inner)) == 4


def test_a_list_of_one_class_is_a_split_too(packed: Packing, source: Path) -> None:
    assert len(packed("voc2007", source, "dog_test")) == 4


def test_all_problems_are_reported_at_once(refused: Refusing, root: Path, source: Path) -> None:
    (root / "Annotations" / "000001.xml").unlink()
    (root / "JPEGImages" / "000002.jpg").unlink()
    write(root / "JPEGImages" / "000003.jpg", b"")
    write(root / "Annotations" / "000004.xml", "<annotation>")
    write(root / "ImageSets" / "Main" / "test.txt", "000001\n000002\n000003\n000004\n000004\n../000005\n")
    messages = refused("voc2007", source)
    assert messages["Annotations"].startswith(
        "annotations are missing: 000001.xml; annotations cannot be read: 000004.xml"
    )
    assert messages["JPEGImages"] == "images are missing: 000002.jpg; images are empty files: 000003.jpg"
    assert messages["test.txt"] == "has lines that cannot be parsed: line 6 '../000005'; lists images twice: 000004"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BILLION_LAUGHS, "document type is refused"),
        (REACHING, "document type is refused"),
        (xml("000002.jpg", []), "belong to another image: 000001.xml names 000002.jpg"),
        (xml("000001.jpg", [("unicorn", (1, 1, 2, 2), 0)]), "have a class that is not in VOC: 000001.xml"),
        (xml("000001.jpg", [("dog", (9, 1, 2, 2), 0)]), "boxes are not finite numbers"),
        (xml("000001.jpg", [("dog", ("x", 1, 2, 2), 0)]), "boxes are not finite numbers"),
        (xml("000001.jpg", [("dog", ("nan", 1, 2, 2), 0)]), "boxes are not finite numbers"),
        (xml("000001.jpg", [("dog", (1, 1, 2, 2), 7)]), "difficult flag other than 0 and 1"),
        ("<annotation>" + " " * (1 << 20) + "</annotation>", "too long"),
        ("<a>\0</a>", "not XML"),
    ],
)
def test_an_invalid_annotation_is_refused(refused: Refusing, root: Path, source: Path, text: str, word: str) -> None:
    write(root / "Annotations" / "000001.xml", text)
    assert word in refused("voc2007", source)["Annotations"]


@pytest.mark.parametrize("place", ["JPEGImages/000001.jpg", "Annotations/000001.xml", "ImageSets/Main/test.txt"])
def test_a_link_out_of_the_archive_is_not_followed(
    refused: Refusing, root: Path, source: Path, tmp_path: Path, place: str
) -> None:
    secret = tmp_path / "secret"
    (root / place).rename(secret)
    (root / place).symlink_to(secret)
    (message,) = refused("voc2007", source).values()
    assert "outside the archive through a link" in message


def test_a_link_within_the_archive_is_followed(packed: Packing, root: Path, source: Path) -> None:
    (root / "JPEGImages").rename(source / "elsewhere")
    (root / "JPEGImages").symlink_to(source / "elsewhere")
    assert len(packed("voc2007", source)) == 4


@pytest.mark.parametrize("split", ["../test", "a b", "", "nosuch"])
def test_an_unknown_split_is_refused(refused: Refusing, source: Path, split: str) -> None:
    assert refused("voc2007", source, split).keys() <= {"--split", "SRC"}


def test_an_empty_split_is_refused(refused: Refusing, root: Path, source: Path) -> None:
    write(root / "ImageSets" / "Main" / "test.txt", "\n")
    assert refused("voc2007", source) == {"test.txt": "lists no image"}


def test_another_folder_is_refused(refused: Refusing, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert "contains no ImageSets/Main/test.txt" in refused("voc2007", tmp_path / "other")["SRC"]
    assert refused("voc2007", tmp_path / "gone") == {"SRC": f"'{tmp_path}/gone' does not exist"}


def test_an_unknown_kind_is_refused(refused: Refusing, source: Path) -> None:
    assert refused("voc2012", source) == {"--from": "unknown archive 'voc2012'"}
