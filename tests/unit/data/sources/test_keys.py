"""Rows and images belong together by their paths, however these are written; what is ambiguous is left out."""

import unicodedata

import pytest

from pipeline.data.sources.keys import match, reversed_path
from pipeline.data.sources.row_finder import RowFinder

ROOT = "/data/set/val"


def rows_of(rows: list[str], *keys: str, root: str = ROOT) -> dict[str, str]:
    return match(dict.fromkeys(rows), keys, root).row_of


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("a/1.jpg", "a/1.jpg"),
        ("a/1", "a/1.jpg"),
        ("./a/1.jpg", "a/1.jpg"),
        ("a\\1.jpg", "a/1.jpg"),
        ("a//1.jpg", "a/1.jpg"),
        ("/a/1.jpg", "a/1.jpg"),
        ("a/1.JPG", "a/1.jpg"),
        ("val/a/1.jpg", "a/1.jpg"),
        ("set/val/a/1.jpg", "a/1.jpg"),
        ("/data/set/val/a/1.jpg", "a/1.jpg"),
        ("/home/me/set/a/1.jpg", "a/1.jpg"),
        ("C:\\images\\a\\1.jpg", "a/1.jpg"),
        ("1.jpg", "a/1.jpg"),
        ("1", "a/1.jpg"),
        ("scan.1.jpg", "x/scan.1.jpg"),
        ("scan.1", "x/scan.1.jpg"),
        (unicodedata.normalize("NFD", "é/ü.jpg"), unicodedata.normalize("NFC", "é/ü.jpg")),
        (unicodedata.normalize("NFC", "ü.jpg"), unicodedata.normalize("NFD", "a/ü.jpg")),
    ],
)
def test_a_row_finds_its_image(row: str, key: str) -> None:
    assert rows_of([row, "no/such.png"], key, "b/other.jpg") == {key: row}


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("1.png", "1.jpg"),
        ("scan.2.jpg", "scan.1.jpg"),
        ("scan.jpg", "scan.1.jpg"),
        ("1.jpg", "11.jpg"),
        ("train/a/1.jpg", "a/1.jpg"),
        ("/mnt/test/1.jpg", "1.jpg"),
        ("", "1.jpg"),
        ("..", "1.jpg"),
    ],
)
def test_a_row_does_not_apply_to_another_image(row: str, key: str) -> None:
    assert rows_of([row], key) == {}


def test_a_base_name_counts_only_where_it_is_unique() -> None:
    assert rows_of(["1.jpg", "2.jpg"], "a/1.jpg", "b/1.jpg", "b/2.jpg") == {"b/2.jpg": "2.jpg"}
    assert rows_of(["a/1.jpg", "b/1.jpg"], "1.jpg") == {}


def test_the_longest_common_tail_decides() -> None:
    rows = ["/x/cat/1.jpg", "/x/dog/1.jpg"]
    assert rows_of(rows, "cat/1.jpg", "dog/1.jpg") == {"cat/1.jpg": rows[0], "dog/1.jpg": rows[1]}
    assert rows_of(["/x/set/val/1.jpg", "/x/set/old/1.jpg"], "1.jpg") == {"1.jpg": "/x/set/val/1.jpg"}


def test_a_row_as_written_goes_first() -> None:
    assert rows_of(["a/1.jpg", "1.jpg"], "1.jpg", "a/1.jpg") == {"1.jpg": "1.jpg", "a/1.jpg": "a/1.jpg"}


def test_two_files_that_differ_only_in_case_need_their_own_rows() -> None:
    assert rows_of(["./x.jpg"], "x.jpg", "x.JPG") == {}
    assert rows_of(["x.jpg", "x.JPG"], "x.jpg", "x.JPG") == {"x.jpg": "x.jpg", "x.JPG": "x.JPG"}


def test_rows_that_name_one_image_in_two_ways_are_reported() -> None:
    assert match(["./1.jpg", "/1.jpg"], ["1.jpg"], ROOT).conflicts == [("./1.jpg", "/1.jpg")]


def test_ways_are_counted() -> None:
    found = match(
        ["a/1.jpg", "2", "./3.jpg", "/x/y/b/4.jpg", "5.jpg"], ["a/1.jpg", "2.jpg", "3.jpg", "b/4.jpg", "c/5.jpg"], ROOT
    )
    assert found.ways == {"path": 2, "path without suffix": 1, "end of the path": 1, "base name": 1}


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("1.jpg", "1"),
        ("val/1.jpg", "val/1"),
        ("/mnt/x/val/1.jpg", "val/1"),
        ("x\\1.JPEG", "1"),
        ("val/1.JPG", "val/1.jpg"),
        ("1", "val/1.png"),
        ("scan.1.jpg", "scan.1"),
    ],
)
def test_images_that_become_known_while_they_are_read_find_their_rows(row: str, key: str) -> None:
    assert RowFinder([row, "no/such.png"]).find(key) == row


@pytest.mark.parametrize(("row", "key"), [("1.jpg", "1.png"), ("train/1.jpg", "val/1"), ("", "1"), ("11.jpg", "1")])
def test_they_do_not_find_those_of_others(row: str, key: str) -> None:
    assert RowFinder([row]).find(key) is None


def test_an_index_without_rows_finds_nothing() -> None:
    assert RowFinder([]).find("a.jpg") is None


def test_a_path_is_compared_from_its_end() -> None:
    assert reversed_path(".\\A//b/C.JPG") == "C.jpg\0b\0A"
    assert reversed_path(".JPG") == ".JPG"


def test_a_base_name_says_nothing_if_both_paths_name_other_folders() -> None:
    assert match(["cat/1.jpg"], ["dog/1.jpg"], "/data").row_of == {}
    assert match(["2019/1.jpg"], ["2020/1.jpg", "2020/2.jpg"], "/data").row_of == {}
    assert match(["/x/cat/1.jpg", "/y/cat/1.jpg"], ["dog/1.jpg", "ant/1.jpg"], "/data").row_of == {}
    assert match(["cat/1.jpg"], ["1.jpg"], "/data").row_of == {"1.jpg": "cat/1.jpg"}
    assert RowFinder(["cat/1.jpg"]).find("dog/1") is None
    assert RowFinder(["cat/1.jpg"]).find("cat/1") == "cat/1.jpg"


def test_rows_that_name_one_image_in_two_ways_are_compared() -> None:
    found = match(["0.jpg", "0", "./1.jpg", "1.jpg", "a/2"], ["0.jpg", "1.jpg", "a/2.jpg"], "/data")
    assert found.row_of == {"0.jpg": "0.jpg", "1.jpg": "1.jpg", "a/2.jpg": "a/2"}
    assert found.conflicts == [("0.jpg", "0"), ("1.jpg", "./1.jpg")]
