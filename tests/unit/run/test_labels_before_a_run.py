"""Before a run: labels are those that the data means, their classes have names, and what cannot work is refused."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.run.paths import absolute
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.settings.run_file import RunConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images in two sub-folders, whose names are WordNet ids."""
    for name in ("n01440764/a.jpg", "n01440764/b.jpg", "n02979186/a.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(path)
    return tmp_path / "images"


def prepared(folder: Path, explain: dict[str, Any] | None = None, **data: object) -> PreparedRun:
    fields = {
        "data": {"shards": str(folder), **data},
        "model": {"name": "torchvision/squeezenet1_1", "weights": "random"},
        "explain": explain or {},
        "output": {"path": str(folder.parent / "run")},
    }
    return prepare(absolute(RunConfig.model_validate(fields)))


def test_a_subset_of_imagenet_is_called_by_its_names_everywhere(folder: Path) -> None:
    run = prepared(folder, {"targets": "label"})
    assert [(str(one), one.images) for one in run.account.classes] == [
        ("n01440764 = 0 tench", 2), ("n02979186 = 482 cassette player", 1),
    ]  # fmt: skip
    assert (run.manifest.class_name(0), run.manifest.class_name(482)) == ("tench", "cassette player")
    assert run.manifest.account == run.account.to_json()


def test_folders_that_are_no_classes_give_no_labels_and_the_account_says_why(folder: Path) -> None:
    (folder / "n01440764").rename(folder / "train")
    (folder / "n02979186").rename(folder / "val")
    run = prepared(folder)
    assert run.account.lines()[:2] == [
        "labels    none of 3 images",
        "          2 folders (train, val): splits of a dataset, not classes",
    ]
    assert run.manifest.classes == ()


def test_what_needs_labels_and_boxes_is_refused_without_them_at_once(folder: Path) -> None:
    explain = {"targets": "label", "metrics": ["energy_in_box", "average_drop"]}
    with pytest.raises(ConfigError) as refused:
        prepared(folder, explain, folders="ignore")
    assert [mistake.where for mistake in refused.value.mistakes] == ["explain.targets", "explain.metrics"]
    assert "no image has a label: 2 folders (n01440764, n02979186): not used" in str(refused.value)
    assert not (folder.parent / "run").exists()


def test_the_account_is_no_part_of_the_identity(folder: Path) -> None:
    before = prepared(folder).manifest
    (folder / "notes.txt").write_text("a file to be ignored")
    after = prepared(folder).manifest
    assert before.account != after.account
    assert before.run_id == after.run_id


def test_a_label_file_changes_the_run_where_it_changes_a_label(folder: Path) -> None:
    by_folders = prepared(folder).manifest
    (folder / "labels.csv").write_text("filename,class_index\nn02979186/a.jpg,482\n")
    by_file = prepared(folder)
    assert by_file.account.labelled == 1
    assert by_file.manifest.run_id != by_folders.run_id


def test_labels_that_the_model_does_not_have_are_refused(folder: Path) -> None:
    (folder / "labels.csv").write_text("filename,class_index\nn02979186/a.jpg,1482\n")
    with pytest.raises(ConfigError, match="1 of 1 labels are no class of the model, which has 1000"):
        prepared(folder)


def test_an_older_digest_is_kept_where_the_reading_is_the_same(folder: Path, tmp_path: Path) -> None:
    """Earlier versions hashed the numbers of folders even where a label file named every image."""
    rows = "".join(f"{path.relative_to(folder).as_posix()},3\n" for path in sorted(folder.rglob("*.jpg")))
    (tmp_path / "given.csv").write_text(f"filename,class_index\n{rows}")
    digest = prepared(folder, labels=str(tmp_path / "given.csv")).manifest.identity.data["annotations"]
    assert digest == "b6a12ae8e21ceae9"
