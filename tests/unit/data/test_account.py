"""The label account shows what each image will be called, where that comes from, and what does not fit."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tars import tar_of

from pipeline.data.account import ClassCount, LabelAccount
from pipeline.data.account_check import check_matches
from pipeline.data.annotations import describe
from pipeline.data.class_counts import with_counts
from pipeline.data.inputs import shards_of
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig

Put = Callable[..., Path]
Account = Callable[..., tuple[dict[str, int | None], LabelAccount]]
HEAD = "filename,class_index\n"


@pytest.fixture
def labelled(put: Put) -> Callable[[str], Path]:
    """Return a folder of three images in two sub-folders, with these rows in its labels.csv."""

    def labelled(rows: str) -> Path:
        folder = put("f", "a/1.jpg", "a/2.jpg", "b/3.jpg")
        (folder / "labels.csv").write_text(HEAD + rows, encoding="utf-8")
        return folder

    return labelled


def test_a_label_file_beats_folders_even_those_of_wordnet_ids(put: Put, account: Account) -> None:
    folder = put("f", "n01440764/1.jpg", "n02979186/2.jpg")
    (folder / "labels.csv").write_text(f"{HEAD}1.jpg,7\n")
    labels, told = account(folder)
    assert labels == {"n01440764/1.jpg": 7, "n02979186/2.jpg": None}
    assert told.lines()[:3] == [
        "labels    labels.csv: 1 row, 1 matched (1 by base name), 1 image without, 0 rows without an image",
        "          2 folders (n01440764, n02979186): not used, because a file gives the labels",
        "          1 of 2 images have a label",
    ]


def test_a_file_named_in_the_run_file_beats_folders_too(put: Put, account: Account, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{HEAD}/elsewhere/f/n01440764/1.jpg,7\n")
    labels, told = account(put("f", "n01440764/1.jpg", "n01440764/2.jpg"), labels=str(tmp_path / "list.csv"))
    assert labels == {"n01440764/1.jpg": 7, "n01440764/2.jpg": None}
    assert told.warnings() == ["list.csv: 1 image without a row, such as 'n01440764/2.jpg'"]


def test_rows_and_images_that_do_not_match_are_counted_with_examples(
    labelled: Callable[[str], Path], account: Account
) -> None:
    _, told = account(labelled("a/1.jpg,1\nx.jpg,2\ny.jpg,3\n"))
    (file,) = told.files
    assert (file.rows, file.matched, file.without, file.unused) == (3, 1, 2, 2)
    assert told.warnings() == [
        "labels.csv: 2 images without a row, such as 'a/2.jpg', 'b/3.jpg'; "
        "2 rows without an image, such as 'x.jpg', 'y.jpg'"
    ]


def test_a_file_that_matches_no_image_is_refused_with_names_of_both_sides(
    labelled: Callable[[str], Path], account: Account
) -> None:
    with pytest.raises(ConfigError) as refused:
        account(labelled("p.jpg,1\nq.jpg,2\nr.jpg,3\ns.jpg,3\n"))
    assert "its rows are called 'p.jpg', 'q.jpg', 'r.jpg', the images 'a/1.jpg', 'a/2.jpg', 'b/3.jpg'" in str(
        refused.value
    )


def test_rows_that_fit_several_images_are_left_out_and_counted(put: Put, account: Account) -> None:
    folder = put("f", "a/1.jpg", "b/1.jpg", "b/2.jpg")
    (folder / "labels.csv").write_text(f"{HEAD}1.jpg,1\n2.jpg,2\n")
    labels, told = account(folder)
    assert labels == {"a/1.jpg": None, "b/1.jpg": None, "b/2.jpg": 2}
    assert told.files[0].line().endswith("2 images without, 1 row without an image, of which 1 fit several")


def test_all_labels_may_be_required(labelled: Callable[[str], Path], account: Account) -> None:
    with pytest.raises(ConfigError, match="1 of 3 images have no label"):
        account(labelled("a/1.jpg,1\na/2.jpg,1\n"), require_labels=True)
    account(labelled("a/1.jpg,1\na/2.jpg,1\nb/3.jpg,2\n"), require_labels=True)


@pytest.mark.parametrize("cell", ["", "-1", "null"])
def test_a_row_without_a_label_matches_but_labels_nothing(
    labelled: Callable[[str], Path], account: Account, cell: str
) -> None:
    labels, told = account(labelled(f"a/1.jpg,{cell}\na/2.jpg,1\nb/3.jpg,2\n"))
    assert labels["a/1.jpg"] is None
    assert (told.labelled, told.files[0].without) == (2, 0)


def test_rows_that_contradict_each_other_are_refused_and_equal_ones_count_once(
    labelled: Callable[[str], Path], account: Account
) -> None:
    with pytest.raises(ConfigError, match=r"contradict each other about 1 of 2 images: 'a/1.jpg' is 1, and also 2"):
        account(labelled("a/1.jpg,1\na/1.jpg,2\na/2.jpg,1\n"))
    with pytest.raises(ConfigError, match="contradict each other"):
        account(labelled("./a/1.jpg,1\na\\1.jpg,2\n"))
    _, told = account(labelled("a/1.jpg,1\na/1.jpg,01\na/1.jpg,\n"))
    assert (told.files[0].rows, told.files[0].repeated, told.labelled) == (3, 2, 1)


def test_two_label_files_that_disagree_are_refused_with_examples(
    labelled: Callable[[str], Path], account: Account, tmp_path: Path
) -> None:
    folder = labelled("1.jpg,1\n2.jpg,2\n3.jpg,3\n")
    given = tmp_path / "given.csv"
    given.write_text(f"{HEAD}a/1.jpg,1\na/2.jpg,5\nb/3.jpg,6\n")
    with pytest.raises(ConfigError, match=r"given.csv' and '.*labels.csv': .* 2 of 3 images: 'a/2.jpg' is 5,"):
        account(folder, labels=str(given))
    given.write_text(f"{HEAD}a/1.jpg,1\n")
    labels, _ = account(folder, labels=str(given))
    assert labels == {"a/1.jpg": 1, "a/2.jpg": 2, "b/3.jpg": 3}


def test_the_same_file_named_and_found_is_one_file(labelled: Callable[[str], Path], account: Account) -> None:
    folder = labelled("1.jpg,1\n")
    assert len(account(folder, labels=str(folder / "labels.csv"))[1].files) == 1


def test_the_labels_of_one_folder_do_not_apply_to_another(put: Put, account: Account) -> None:
    one, two, three = put("one", "1.jpg"), put("two", "1.jpg"), put("three", "1.jpg")
    (one / "labels.csv").write_text(f"{HEAD}1.jpg,1\n")
    (two / "labels.csv").write_text(f"{HEAD}1.jpg,2\n")
    assert account(one, two, three)[0] == {"one[0]/1.jpg": 1, "two[0]/1.jpg": 2, "three[0]/1.jpg": None}


def test_boxes_match_as_labels_do(put: Put, account: Account) -> None:
    folder = put("f", "a/1.jpg", "b/2.jpg")
    (folder / "boxes.csv").write_text("filename,x0,y0,x1,y1\n/data/f/a/1.JPG,1,2,3,4\n1.png,0,0,1,1\n")
    _, told = account(folder)
    assert (told.boxed, told.has_boxes, told.has_labels) == (1, True, False)
    assert told.lines()[-1] == (
        "boxes     boxes.csv: 2 rows, 1 matched (1 by end of the path), 1 image without, 1 row without an image"
    )


def test_rows_of_boxes_and_images_are_counted_apart(put: Put, account: Account) -> None:
    folder = put("f", "1.jpg", "2.jpg")
    rows = "1.jpg,1,2,3,4\n1.jpg,2,3,4,5\n1.jpg,3,4,5,6\nz.jpg,1,2,3,4\n"
    (folder / "boxes.csv").write_text(f"filename,x0,y0,x1,y1\n{rows}")
    assert account(folder)[1].lines()[-1] == (
        "boxes     boxes.csv: 4 rows about 2 images, 1 matched, 1 image without, 1 name without an image"
    )


def test_labels_that_are_no_class_are_counted(labelled: Callable[[str], Path], account: Account) -> None:
    _, told = account(labelled("a/1.jpg,bird\na/2.jpg,1\nb/3.jpg,2\n"))
    assert (told.labelled, told.unreadable) == (2, 1)
    assert "          1 have one that is no class, such as 'bird'" in told.lines()


@pytest.mark.parametrize(
    ("labels", "is_noted"),
    [("123", True), ("112", True), ("012", False), ("133", False), ("111", False), ("234", False)],
)
def test_labels_that_seem_to_count_from_one_are_noted(
    labels: str, is_noted: bool, labelled: Callable[[str], Path], account: Account
) -> None:
    names = ("a/1.jpg", "a/2.jpg", "b/3.jpg")
    _, told = account(labelled("".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True))))
    note = f"labels run from 1 to {labels[-1]} and class 0 has no image: if the file counts from 1, every label is off"
    assert told.notes == ((f"{note} by one",) if is_noted else ())


def test_an_account_of_a_thousand_classes_has_at_most_forty_lines() -> None:
    classes = tuple(ClassCount(i, f"name {i}", f"n{i:08d}", i + 1) for i in range(1000))
    notes = tuple(f"note {i}" for i in range(20))
    account = LabelAccount(10, 10, classes=classes, folders=notes, notes=notes, source="somewhere")
    lines = account.lines()
    assert len(lines) <= 40
    assert "... 978 more; 1,000 classes in all, with 1 to 1,000 images each" in "\n".join(lines)
    assert "n00000999 = 999 name 999: 1,000 images" in "\n".join(lines)


def test_the_account_survives_json(labelled: Callable[[str], Path], account: Account) -> None:
    _, told = account(labelled("a/1.jpg,1\nx.jpg,2\n"))
    again = LabelAccount.from_json(json.loads(json.dumps(told.to_json())))
    assert (again, again.lines()) == (told, told.lines())


@pytest.mark.parametrize("members", [[("1.cls", b"4")], []])
def test_labels_inside_tars_are_known_from_the_first_images(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    for shard in range(5):
        (tmp_path / f"{shard}.tar").write_bytes(tar_of([("0.jpg", b"i"), ("1.jpg", b"i"), *members]))
    told = described(DataConfig(shards=f"{tmp_path}/*.tar"))
    assert told.inside is not None
    assert (told.inside.shards, told.inside.of, told.inside.images, told.inside.labels) == (3, 5, 6, 3 * len(members))
    assert told.has_labels == bool(members)


def test_a_label_file_of_tars_is_compared_with_the_first_images(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(tar_of([("val/0.jpg", b"i"), ("val/1.jpg", b"i")]))
    (tmp_path / "labels.csv").write_text(f"{HEAD}/mnt/val/0.JPEG,3\n")
    data = DataConfig(shards=f"{tmp_path}/0.tar", labels=f"{tmp_path}/labels.csv")
    assert described(data).lines()[0] == (
        "labels    labels.csv: 1 row; of the first 2 images that were looked at, 1 have one; "
        "the others are matched while they are read"
    )


def described(data: DataConfig) -> LabelAccount:
    shards = list_shards(data.shards)
    return with_counts(describe(data, shards, 1000), shards)


def test_the_digest_is_as_before_where_nothing_is_read_otherwise(put: Put, tmp_path: Path) -> None:
    folder = put("f", "a.jpg", "b.jpg")
    (folder / "labels.csv").write_text(f"{HEAD}a.jpg,4\nb,5\n")
    shards = list_shards(str(folder))
    annotations = describe(DataConfig(shards=str(folder)), shards, 1000).annotations
    assert annotations.folders[str(folder)].changes == ""
    (folder / "labels.csv").write_text(f"{HEAD}/x/a.jpg,4\n")
    moved = describe(DataConfig(shards=str(folder)), shards, 1000).annotations.folders[str(folder)]
    assert moved.changes
    assert moved.digest() != replace(moved, changes="").digest()


def test_settings_that_would_change_nothing_are_refused(put: Put, account: Account, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("x.jpg", b"1"), ("x.cls", b"3"), ("y.jpg", b"2")]))
    shards = {"shards": str(tmp_path / "a.tar")}
    with pytest.raises(ConfigError, match=r"data.folders: classes, but there is no folder of images"):
        describe(DataConfig(folders="classes", **shards), list_shards(shards["shards"]))
    told = describe(DataConfig(require_labels=True, **shards), list_shards(shards["shards"])).account
    with pytest.raises(ConfigError, match=r"data.require_labels: 1 of the first 2 images in the shards have no label"):
        check_matches(told, DataConfig(require_labels=True, **shards))
    with pytest.raises(ConfigError, match=r"data.split: 'val', but a manifest has no splits"):
        shards_of(DataConfig(manifest="list.csv", split="val"))


def test_the_account_counts_the_labels_that_count(put: Put, tmp_path: Path) -> None:
    """Of images in shards, those that a file gives; the account says how many it replaces."""
    (tmp_path / "a.tar").write_bytes(tar_of([("x.jpg", b"1"), ("x.cls", b"3"), ("y.jpg", b"2"), ("y.cls", b"4")]))
    (tmp_path / "l.csv").write_text(f"{HEAD}x,3\ny,7\n")
    shards = str(tmp_path / "a.tar")
    told = describe(DataConfig(shards=shards, labels=str(tmp_path / "l.csv")), list_shards(shards)).account
    assert told.inside is not None
    assert [(one.index, one.images) for one in told.inside.classes] == [(3, 1), (7, 1)]
    assert told.inside.line().endswith("; the file of labels says another class of 1 of them")


def test_a_row_that_applies_to_several_images_of_a_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("a/0.jpg", b"1"), ("b/0.jpg", b"2")]))
    (tmp_path / "l.csv").write_text(f"{HEAD}0.jpg,3\n")
    shards = str(tmp_path / "a.tar")
    with pytest.raises(ConfigError, match=r"the row '0.jpg' applies to several images, such as 'a/0' and 'b/0'"):
        describe(DataConfig(shards=shards, labels=str(tmp_path / "l.csv")), list_shards(shards))
