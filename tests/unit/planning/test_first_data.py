"""What `camatlas init` makes of datasets as people have them: the labels and boxes of a run of them, or a reason."""

import os
from collections.abc import Iterator
from pathlib import Path

import layouts.described
import layouts.folders
import layouts.tables
import layouts.tars  # noqa: F401 - each adds its layouts to the corpus
import pytest
from layouts.base import LAYOUTS, Truth, csv, put, put_pictures, tar

from pipeline.data.sources.folder_files import find_first_files
from pipeline.errors import ConfigError
from pipeline.planning import first_data
from pipeline.planning.first_data import FirstData, find_data
from pipeline.planning.first_model import ChosenModel, choose_model
from pipeline.planning.first_run_file import METRICS, explain_section, has_boxes


@pytest.fixture(scope="module")
def model() -> ChosenModel:
    """A network of ten classes."""
    return choose_model("layouts.net:of", None, Path("/"))


def labelled(found: FirstData) -> int:
    inside = found.account.inside
    return found.account.labelled or (inside.labels if inside else 0)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("flat_folder_without_labels", {"shards"}),
        ("flat_folder_with_a_label_file", {"shards"}),
        ("flat_folder_with_boxes", {"shards"}),
        ("class_folders_by_wordnet_id", {"shards", "classes"}),
        ("class_folders_by_name", {"shards", "classes"}),
        ("litter_of_three_systems", {"shards"}),
        ("names_of_all_kinds", {"shards"}),
        ("the_same_base_name_in_two_folders", {"shards"}),
        ("webdataset_with_labels", {"shards"}),
        ("webdataset_with_names_and_boxes", {"shards", "classes"}),
        ("compressed_tars", {"shards"}),
        ("parquet_of_bytes", {"shards"}),
        ("parquet_of_the_hub", {"shards"}),
        ("kaggle_list", {"manifest"}),
        ("list_of_absolute_paths", {"manifest"}),
        ("list_with_semicolons_and_names", {"manifest", "classes"}),
        ("json_lines", {"manifest"}),
        ("coco", {"shards", "boxes", "classes"}),
        ("yolo", {"shards", "boxes", "classes"}),
        ("pascal_voc_boxes", {"shards", "boxes", "classes"}),
    ],
)
def test_labels_and_boxes_are_those_of_the_truth(name: str, keys: set[str], model: ChosenModel, tmp_path: Path) -> None:
    truth = LAYOUTS[name](tmp_path / "data")
    found = find_data(str(tmp_path / "data"), model)
    assert set(found.fields) == keys
    assert labelled(found) == len(truth.labels)
    assert has_boxes(found) == bool(truth.boxes)
    metrics = explain_section(found, model)["metrics"]
    assert ("pointing_game" in metrics, metrics[0]) == (bool(truth.boxes), METRICS[0])


@pytest.mark.parametrize(
    "name",
    [
        "folder_of_tfrecords", "folder_of_zips", "tars_in_sub_folders", "folder_of_texts", "tar_of_tars",
        "parquet_without_images", "label_file_of_other_images", "tars_that_git_lfs_did_not_fetch",
    ],
)  # fmt: skip
def test_what_a_run_would_refuse_is_refused_with_its_sentence(name: str, model: ChosenModel, tmp_path: Path) -> None:
    truth: Truth = LAYOUTS[name](tmp_path / "data")
    with pytest.raises(ConfigError, match=truth.refused):
        find_data(str(tmp_path / "data"), model)


def test_an_empty_folder_and_a_mixture_are_refused(model: ChosenModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="contains no image, tar or Parquet file"):
        find_data(str(tmp_path / "empty"), model)
    pictures = put_pictures(tmp_path / "mixed", ["a.jpg"])
    tar(tmp_path / "mixed" / "0.tar", [("b.jpg", b"")])
    assert pictures
    (tmp_path / "mixed" / "1.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="both shards and loose images"):
        find_data(str(tmp_path / "mixed"), model)


def test_a_file_that_is_not_used_is_named_with_the_reason(model: ChosenModel, tmp_path: Path) -> None:
    put_pictures(tmp_path / "d", ["a.jpg", "b.jpg"])
    put(tmp_path / "d", {"prices.csv": csv("day,price", [(1, 2)]), "odd.csv": csv("filename,class_index", [("x", 99)])})
    found = find_data(str(tmp_path / "d"), model)
    assert set(found.fields) == {"shards"}
    assert [note.partition(": ")[2].partition(":")[0] for note in found.notes] == ["odd.csv", "prices.csv"]
    assert "no columns of labels or boxes that are known" in found.notes[1]


def test_labels_under_another_name_are_found(model: ChosenModel, tmp_path: Path) -> None:
    put_pictures(tmp_path / "d", ["a.jpg", "b.jpg"])
    put(tmp_path / "d", {"truth.csv": csv("filename,class_index", [("a.jpg", 1), ("b.jpg", 9)])})
    found = find_data(str(tmp_path / "d"), model)
    assert found.fields["labels"] == str(tmp_path / "d" / "truth.csv")
    assert (found.account.labelled, found.notes) == (2, ())


def test_labels_that_are_no_class_of_the_model_are_refused(model: ChosenModel, tmp_path: Path) -> None:
    put_pictures(tmp_path / "d", ["a.jpg", "b.jpg"])
    put(tmp_path / "d", {"labels.csv": csv("filename,class_index", [("a.jpg", 10), ("b.jpg", 11)])})
    with pytest.raises(ConfigError, match="2 of 2 labels are no class of the model, which has 10"):
        find_data(str(tmp_path / "d"), model)


def test_class_folders_give_the_label_as_a_target_only_where_they_are_all_classes(
    model: ChosenModel, tmp_path: Path
) -> None:
    for name, classes in (("all", 10), ("some", 9)):
        put_pictures(tmp_path / name, [f"kind{index}/{index}.jpg" for index in range(classes)])
    every, some = (find_data(str(tmp_path / name), model) for name in ("all", "some"))
    assert (every.account.labelled, explain_section(every, model)["targets"]) == (10, ["predicted", "label"])
    assert (some.account.labelled, explain_section(some, model)["targets"]) == (0, "predicted")


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A limit of 50 files; counts the entries of folders that are listed."""
    monkeypatch.setattr(first_data, "MOST_FILES", 50)
    monkeypatch.setattr(first_data, "FIRST_FILES", 2)
    monkeypatch.setattr("pipeline.data.sources.folder_files._MOST_ENTRIES", 12)
    counted, scandir = [0], os.scandir

    class Counting:
        def __init__(self, path: Path) -> None:
            self._entries = scandir(path)

        def __enter__(self) -> "Counting":
            return self

        def __exit__(self, *_: object) -> None:
            self._entries.close()

        def __iter__(self) -> Iterator["os.DirEntry[str]"]:
            for entry in self._entries:
                counted[0] += 1
                yield entry

    monkeypatch.setattr("pipeline.data.sources.folder_files.os.scandir", Counting)
    return counted


def test_of_very_many_files_a_bounded_number_is_looked_at(
    scanned: list[int], model: ChosenModel, tmp_path: Path
) -> None:
    names = [f"kind{index}/{number:02d}.jpg" for index in range(10) for number in range(30)]
    for name in names:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).touch()
    found = find_data(str(tmp_path / "d"), model)
    assert not found.is_whole
    assert scanned[0] < 250  # the first 51 files to count them; then 10 folders, and at most 12 entries of each
    assert (found.account.images, len(found.account.classes)) == (20, 10)
    assert "More than 50 files: only the first 2 of each sub-folder were looked at" in found.notes[0]
    assert found.kind == "a folder of images: 20, of those that were looked at"


def test_of_very_many_shards_three_are_looked_at(scanned: list[int], model: ChosenModel, tmp_path: Path) -> None:
    for number in range(60):
        tar(tmp_path / "d" / f"{number:02d}.tar", [("a.jpg", b"x"), ("a.cls", b"3")])
    found = find_data(str(tmp_path / "d"), model)
    assert (found.kind, labelled(found)) == ("3 tars, of those that were looked at", 3)
    assert found.fields == {"shards": str(tmp_path / "d")}


def test_very_many_files_without_an_image_are_refused(scanned: list[int], model: ChosenModel, tmp_path: Path) -> None:
    put(tmp_path / "d", {f"{number}.txt": b"" for number in range(60)})
    with pytest.raises(ConfigError, match=r"among the first files of .* is no image"):
        find_data(str(tmp_path / "d"), model)


def test_few_files_are_all_looked_at(tmp_path: Path) -> None:
    put(tmp_path, {f"{number}.jpg": b"" for number in range(5)})
    assert find_first_files(tmp_path, 5, 1) is None
    first = find_first_files(tmp_path, 4, 1)
    assert first is not None
    assert len(first.images) == 1
