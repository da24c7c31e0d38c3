"""camatlas init: what it writes is explained without an edit, and nothing is written where it refuses."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import layouts.described
import layouts.folders
import layouts.tables
import layouts.tars  # noqa: F401 - each adds its layouts to the corpus
import pytest
import yaml
from inline import publish_all
from layouts.base import LAYOUTS, put, put_pictures
from preparing import rows_of
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.results.verify import verify
from pipeline.settings.run_file import RunConfig, load_config
from pipeline.storage.local_store import LocalStore

MODEL = ("--model", "layouts.net:of")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def init(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def read(path: Path | str) -> dict[str, Any]:
    fields: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return fields


def class_folders(folder: Path) -> int:
    return len(put_pictures(folder, [f"kind{index}/{index}.jpg" for index in range(10)]))


def written_by(name: str) -> Any:
    return lambda folder: len(LAYOUTS[name](folder).pictures)


@pytest.mark.parametrize(
    ("write", "targets"),
    [
        (class_folders, ["predicted", "label"]),
        (written_by("flat_folder_with_a_label_file"), "predicted"),
        (written_by("webdataset_with_labels"), "predicted"),
        (written_by("parquet_of_bytes"), "predicted"),
        (written_by("coco"), "predicted"),
        (written_by("pascal_voc_boxes"), "predicted"),
        (written_by("kaggle_list"), "predicted"),
    ],
    ids=["class folders", "labels.csv", "tars", "parquet", "coco", "voc", "list"],
)
def test_init_and_explain_work_without_an_edit(write: Any, targets: object, tmp_path: Path, here: Path) -> None:
    images = write(tmp_path / "data")
    made = init(tmp_path / "data", *MODEL)
    assert (made.exit_code, made.stdout) == (0, "run.yaml\n"), made.stderr
    fields = read("run.yaml")
    assert fields["explain"]["targets"] == targets
    run = publish_all(fields)
    assert run == here / "data_run"
    assert len({row["image_key"] for row in rows_of(run)}) == images
    assert [row["error_detail"] for row in rows_of(run) if row["error_code"] is not None] == []
    assert verify(LocalStore(run)).problems == []


def test_the_run_file_has_comments_a_schema_and_the_account(tmp_path: Path, here: Path) -> None:
    class_folders(tmp_path / "data")
    made = init(tmp_path / "data", *MODEL, "--out", "sub/my.yaml")
    text = (here / "sub" / "my.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "# yaml-language-server: $schema=my.schema.json"
    schema = json.loads((here / "sub" / "my.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(read(here / "sub" / "my.yaml"), schema)
    assert "# Found: a folder of images: 10." in text
    assert "# labels    10 folders (kind0, kind1, kind2, 7 more): classes, because the model has 10 classes" in text
    assert "10 of 10 images have a label" in made.stderr
    assert " CPU" in text
    assert max(map(len, text.splitlines())) <= 120
    assert load_config(str(here / "sub" / "my.yaml")) == RunConfig.model_validate(yaml.safe_load(text))
    assert read(here / "sub" / "my.yaml")["output"]["path"] == str(here / "sub" / "data_run")


def test_paths_are_written_without_dots(tmp_path: Path, here: Path) -> None:
    class_folders(tmp_path / "data")
    made = init("../data", *MODEL, "--out", "../here/run.yaml")
    assert made.exit_code == 0, made.stderr
    fields = read("run.yaml")
    assert fields["data"]["shards"] == str(tmp_path / "data")
    assert fields["output"]["path"] == str(here / "data_run")


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "=1+1", "a: b # c", "quote'\"s", "line\nbreak", "- x", "null", "é\udcff", "%TAG"],
)
def test_names_of_any_kind_stay_values_and_comments(name: str, tmp_path: Path) -> None:
    put_pictures(tmp_path / name, [f"{each}/a.jpg" for each in (name, "=1+1", "- x", "null", "%TAG")])
    made = init(tmp_path / name, *MODEL)
    assert made.exit_code == 0, made.stderr
    fields = read("run.yaml")
    assert fields["data"] == {"shards": str(tmp_path / name)}
    assert list(fields) == ["data", "model", "explain", "compute", "output"]
    assert all(line.startswith(("#", " ", "data:", "model:", "explain:", "compute:", "output:")) or not line
               for line in Path("run.yaml").read_text(encoding="utf-8").splitlines())  # fmt: skip


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def mixed(folder: Path) -> None:
    put_pictures(folder, ["a.jpg"])
    put(folder, {"0.tar": b"x" * 2000})


@pytest.mark.parametrize(
    ("write", "arguments", "message"),
    [
        (lambda folder: folder.mkdir(), MODEL, "contains no image, tar or Parquet file"),
        (mixed, MODEL, "contains both shards and loose images"),
        (written_by("folder_of_texts"), MODEL, "contains no image, tar or Parquet file"),
        (written_by("label_file_of_other_images"), MODEL, "no row of"),
        (class_folders, ("--model", "torchvision/resnet5"), "did you mean 'resnet50'?"),
        (class_folders, ("--model", "resnet"), "'resnet' is not a model name"),
        (class_folders, ("--model", "layouts.net:off"), "layouts.net"),
        (class_folders, ("--model", "no/such.safetensors"), "is not a model name"),
        (class_folders, (*MODEL, "--out", "run.txt"), "is no name of a run file"),
        (class_folders, (*MODEL, "--out", "taken.yaml"), "'taken.yaml' exists"),
    ],
)
def test_a_refusal_writes_nothing(
    write: Any, arguments: tuple[str, ...], message: str, tmp_path: Path, here: Path
) -> None:
    write(tmp_path / "data")
    (here / "taken.yaml").write_text("mine", encoding="utf-8")
    before = everything(tmp_path)
    refused = init(tmp_path / "data", *arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert message in refused.stderr
    assert everything(tmp_path) == before
    assert (here / "taken.yaml").read_text(encoding="utf-8") == "mine"


def test_a_folder_that_is_not_there_is_told_before_the_model_is_built(tmp_path: Path) -> None:
    refused = init(tmp_path / "none", "--model", "no/such")
    assert (refused.exit_code, refused.stderr) == (
        2, f"error: FOLDER: there is no '{tmp_path}/none' (give a folder of images, or a file of them)\n",
    )  # fmt: skip


def test_force_overwrites_and_the_run_folder_is_a_new_one(tmp_path: Path, here: Path) -> None:
    class_folders(tmp_path / "data")
    (here / "run.yaml").write_text("mine", encoding="utf-8")
    (here / "data_run").mkdir()
    assert init(tmp_path / "data", *MODEL, "--force").exit_code == 0
    assert read("run.yaml")["output"]["path"] == str(here / "data_run_2")


def test_inside_of_the_images_the_run_folder_is_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    assert init(".", *MODEL).exit_code == 0
    fields = read("run.yaml")
    assert fields["data"]["shards"] == str(tmp_path / "data")
    assert fields["output"]["path"] == str(tmp_path / "data_run")
