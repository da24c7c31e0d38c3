"""Sub-folders become classes only when it is certain; otherwise the account says why not."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.data.account import LabelAccount
from pipeline.data.sources.class_folders import classes_of_folders
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.imagenet import wnids
from pipeline.errors import ConfigError

Put = Callable[..., Path]
Account = Callable[..., tuple[dict[str, int | None], LabelAccount]]

IMAGENETTE = {"n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497}
PETS = ClassTable(("Abyssinian", "beagle", "Bengal"))
NO_TABLE = ClassTable()


def images_in(names: Sequence[str]) -> list[str]:
    return [f"{name}/{i}.jpg" for name in names for i in range(2)]


def indices(names: Sequence[str], table: ClassTable = NO_TABLE, outputs: int | None = 1000) -> dict[str, int]:
    return classes_of_folders(images_in(names), table, outputs).index_of


@pytest.mark.parametrize("outputs", [1000, None])
def test_a_subset_of_imagenet_by_wordnet_ids_has_the_indices_of_imagenet(outputs: int | None) -> None:
    assert indices(list(IMAGENETTE), outputs=outputs) == IMAGENETTE
    assert indices(["n02979186"], outputs=outputs) == {"n02979186": 482}


def test_ids_may_stand_before_a_name() -> None:
    assert indices(["n02085620-Chihuahua", "n02979186_cassette"]) == {
        "n02085620-Chihuahua": 151, "n02979186_cassette": 482,
    }  # fmt: skip
    table = ClassTable(("cassette", "Chihuahua"), ("n02979186", "n02085620"))
    assert indices(["n02085620-Chihuahua"], table, 2) == {"n02085620-Chihuahua": 1}


def test_all_of_imagenet_is_numbered_in_the_order_of_its_ids() -> None:
    assert indices(sorted(wnids())) == dict(wnids())


def test_a_model_of_ten_ids_numbers_them_in_their_order() -> None:
    assert list(indices(sorted(IMAGENETTE), outputs=5).values()) == [0, 1, 2, 3, 4]
    assert indices(sorted(IMAGENETTE)[:4], outputs=5) == {}


def test_numeric_folders_of_imagenet_v2_are_indices() -> None:
    names = [str(i) for i in range(1000)]
    assert indices(names) == {name: int(name) for name in names}
    assert indices(names, load_classes("imagenet-1k"))["10"] == 10


@pytest.mark.parametrize("missing", [1, 3, 8])
def test_a_missing_class_folder_does_not_shift_the_others(missing: int) -> None:
    names = [str(i) for i in range(10) if i != missing]
    assert indices(names, outputs=10) == {name: int(name) for name in names}


def test_indices_with_gaps_are_indices_of_a_class_table() -> None:
    table = load_classes("imagenet-1k")
    assert indices(["0", "7", "65"], table) == {"0": 0, "7": 7, "65": 65}
    assert indices(["0", "7", "65"]) == {}, "without a table, they may number anything"


@pytest.mark.parametrize(
    ("names", "outputs", "reason"),
    [
        (["1", "2", "3", "4", "5"], 1000, "the model has 1000 classes"),
        (["00000", "00001"], 1000, "the model has 1000 classes"),
        (["0", "1", "2"], 1000, "the model has 1000 classes"),
        (["images_001", "images_002"], 1000, "the model has 1000 classes"),
        ([str(i) for i in range(1, 12)], 11, "whose order by name is another one"),
        (["cat", "dog"], None, "in no class table"),
        (["n01440764", "n99999999"], 1000, "WordNet ids, and the model has 1000"),
    ],
)
@pytest.mark.parametrize("table", [NO_TABLE])
def test_what_is_not_certain_gives_no_labels(
    names: list[str], outputs: int | None, reason: str, table: ClassTable
) -> None:
    found = classes_of_folders(images_in(names), table, outputs)
    assert (found.labels, found.index_of) == ({}, {})
    assert re.search(f"not certain to be classes, because .*{reason}", found.why)
    assert "data.folders: classes" in found.why


@pytest.mark.parametrize("names", [["train", "val"], ["Train", "Test"], ["train"], ["training", "validation"]])
def test_splits_are_not_classes(names: list[str]) -> None:
    found = classes_of_folders(images_in(names), NO_TABLE, len(names))
    assert (found.labels, "splits" in found.why) == ({}, True)


def test_classes_below_splits_are_found() -> None:
    members = ["train/n02979186/a.jpg", "train/n01440764/a.jpg", "val/n01440764/b.jpg"]
    assert classes_of_folders(members, NO_TABLE, 1000).labels == {
        members[0]: "482", members[1]: "0", members[2]: "0",
    }  # fmt: skip


def test_as_many_folders_as_the_model_has_classes_are_its_classes() -> None:
    found = classes_of_folders(images_in(["cat", "dog"]), NO_TABLE, 2)
    assert (found.index_of, found.names) == ({"cat": 0, "dog": 1}, ("cat", "dog"))


def test_images_beside_the_folders_make_their_number_uncertain() -> None:
    found = classes_of_folders([*images_in(["cat", "dog"]), "x.jpg"], NO_TABLE, 2)
    assert (found.labels, "images lie beside them" in found.why) == ({}, True)


def test_names_of_the_class_table_are_classes_even_if_some_are_missing() -> None:
    assert indices(["Bengal", "Abyssinian"], PETS, 3) == {"Bengal": 2, "Abyssinian": 0}
    assert indices(["beagle"], PETS, 3) == {"beagle": 1}


@pytest.mark.parametrize("name", ["tench", "tench, Tinca tinca", "Tinca_tinca", "n01440764"])
def test_all_usual_names_of_imagenet_are_known(name: str) -> None:
    assert indices([name, "great_white_shark"], load_classes("imagenet-1k")) == {name: 0, "great_white_shark": 2}


def test_folders_of_which_the_table_knows_only_some_are_refused() -> None:
    with pytest.raises(ConfigError, match="sub-folder 'pug' is not a known class, but others are"):
        indices(["Bengal", "pug"], PETS, 3)


def test_folders_of_which_the_table_knows_none_are_no_classes() -> None:
    assert indices(["a", "b", "c"], PETS, 3) == {}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dog", "cat"], {"cat": 0, "dog": 1}),
        (["2", "10", "0"], {"0": 0, "2": 2, "10": 10}),
        (["1", "2"], {"1": 0, "2": 1}),
    ],
)
def test_the_run_file_may_say_that_folders_are_classes(names: list[str], expected: dict[str, int]) -> None:
    assert classes_of_folders(images_in(names), NO_TABLE, 1000, "classes").index_of == expected


def test_the_run_file_may_say_that_they_are_not() -> None:
    assert classes_of_folders(images_in(list(IMAGENETTE)), NO_TABLE, 1000, "ignore").labels == {}


def test_class_names_come_from_where_the_classes_do() -> None:
    assert classes_of_folders(images_in(["n02979186"]), NO_TABLE, 1000).names[482] == "cassette player"
    assert classes_of_folders(images_in(["Bengal"]), PETS, 3).names == ()


@pytest.mark.parametrize("members", [["1.jpg"], []])
def test_without_folders_there_is_nothing_to_say(members: list[str]) -> None:
    found = classes_of_folders(members, NO_TABLE, 2)
    assert (found.labels, found.why) == ({}, "")


def test_images_are_read_with_the_labels_of_their_folders(put: Put, account: Account) -> None:
    labels, told = account(put("f", "n02979186/a.jpg", "n02979186/deep/b.jpg", "n01440764/a.jpg"))
    assert labels == {"n01440764/a.jpg": 0, "n02979186/a.jpg": 482, "n02979186/deep/b.jpg": 482}
    assert [str(one) for one in told.classes] == ["n01440764 = 0 tench", "n02979186 = 482 cassette player"]


def test_folders_whose_names_are_not_utf8_are_classes_too(put: Put, account: Account) -> None:
    labels, _ = account(put("f", "a\udcff/1.jpg", "b/1.jpg"), outputs=2)
    assert labels == {"a\\xff/1.jpg": 0, "b/1.jpg": 1}


@pytest.mark.parametrize(
    ("names", "outputs", "wrong"), [(["0", "1", "10", "2"], 4, "'10' class 10"), (["a", "b", "c"], 2, "'c' class 2")]
)
def test_a_setting_that_would_be_refused_afterwards_is_not_advised(names: list[str], outputs: int, wrong: str) -> None:
    why = classes_of_folders(images_in(names), NO_TABLE, outputs).why
    assert f"data.folders: classes would make {wrong}, which the model does not have (0 to {outputs - 1})" in why
    assert "name a file of labels in data.labels" in why
    assert "takes them" not in why
    assert "from 1 on" not in why


def test_numbers_from_0_are_said_to_start_there() -> None:
    why = classes_of_folders(images_in(["0", "1", "10", "2"]), NO_TABLE, 4).why
    assert "they are numbers from 0 on, but 10 is no class of the model, which has 4 classes" in why


def test_folders_called_by_whole_floats_are_not_taken_for_indices() -> None:
    assert indices(["1.0", "2.0"], PETS, 3) == {}
