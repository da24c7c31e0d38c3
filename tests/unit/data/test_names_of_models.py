"""Where the run file names no classes, images are matched with the names that the model gives."""

from pathlib import Path

import pytest

from pipeline.data.annotations import classes_of, collect, describe
from pipeline.data.inputs import shards_of
from pipeline.data.sources.classes import OF_MODEL, load_classes, named_by_model
from pipeline.data.sources.imagenet import synsets
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig

NAMES = ("dog", "bird", "cat")


def folders(root: Path, names: tuple[str, ...]) -> DataConfig:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "0.png").write_bytes(b"")
    return DataConfig(shards=str(root))


def labels(data: DataConfig, of_model: tuple[str, ...] = NAMES) -> dict[str, str]:
    found = collect(data, shards_of(data), 3, of_model=of_model)
    return {key: label for table in found.annotations.folders.values() for key, label in table.labels.items()}


def test_folders_are_classes_by_the_names_of_the_model(tmp_path: Path) -> None:
    data = folders(tmp_path, ("bird", "cat", "dog"))
    assert labels(data) == {"bird/0.png": "1", "cat/0.png": "2", "dog/0.png": "0"}
    assert labels(data, ()) == {"bird/0.png": "0", "cat/0.png": "1", "dog/0.png": "2"}  # in the order of their names


def test_the_account_says_whose_names_they_are(tmp_path: Path) -> None:
    data = folders(tmp_path, ("bird", "cat"))
    described = describe(data, shards_of(data), 3, of_model=NAMES)
    assert (described.class_names, described.account.source) == (NAMES, "3 names from the model")
    assert "their names are in the model's class table" in described.account.folders[0]


def test_other_folders_are_not_numbered_in_their_order(tmp_path: Path) -> None:
    data = folders(tmp_path, ("Hund", "Katze", "Vogel"))
    assert labels(data) == {}
    why = describe(data, shards_of(data), 3, of_model=NAMES).account.folders[0]
    assert "none of their names is in the model's class table" in why


def test_folders_of_which_the_model_knows_some_are_refused(tmp_path: Path) -> None:
    data = folders(tmp_path, ("bird", "cat", "misc"))
    with pytest.raises(ConfigError, match=r"the sub-folder 'misc' is not a known class, but others are \(in the model"):
        labels(data)


def test_what_the_run_file_names_goes_first(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    data = folders(tmp_path / "images", NAMES).model_copy(update={"classes": str(tmp_path / "classes.txt")})
    assert labels(data) == {"cat/0.png": "0", "dog/0.png": "1", "bird/0.png": "2"}
    assert classes_of(data, NAMES).source == "data.classes"


def test_imagenet_is_known_by_its_order() -> None:
    words = list(synsets().values())
    table = named_by_model(words)
    assert table.source == OF_MODEL
    assert [table.index(name) for name in ("n01440764", "tench", "Tinca tinca", "tench, Tinca tinca", "0")] == [0] * 5
    assert table.index("crane") is None  # the name of two classes
    swapped = named_by_model([words[1], words[0], *words[2:]])
    assert [swapped.index(name) for name in ("n01440764", "tench, Tinca tinca")] == [None, 1]


def test_names_of_torchvision_are_those_of_imagenet_too() -> None:
    assert named_by_model(load_classes("imagenet-1k").names).index("n02087394") == 159
