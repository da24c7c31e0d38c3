"""camatlas show finds an image by its key, or by its shard and key."""

from pathlib import Path

import pytest
from handmade import PARTS, RunMaker
from typer.testing import CliRunner

from jobs.cli import app
from jobs.show import _explained, _file_name, _label_and_prediction
from pipeline.errors import ConfigError
from pipeline.results.query import open_run
from pipeline.storage.run_folder import PartName


class SharedKeys(RunMaker):
    """A run in which both shards hold the image `folder/0`, and only the first one explains `folder/1`."""

    def image(self, part: PartName, number: int) -> str:
        """Return the same keys in every shard."""
        return f"folder/{number}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two shards."""
    SharedKeys(tmp_path / "run").owned().publish(PARTS[0], PARTS[2])
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("key", "shard"), [("a.tar/folder/0", "a.tar"), ("b.tar/folder/0", "b.tar"), ("a.tar/folder/1", "a.tar")]
)
def test_an_image_is_found_by_its_shard_and_key(folder: Path, key: str, shard: str) -> None:
    with open_run(folder) as run:
        rows = _explained(run, key)
    assert {(row["shard"], row["image_key"]) for row in rows} == {(shard, key.removeprefix(f"{shard}/"))}
    assert [row["method"] for row in rows] == ["gradcam", "scorecam"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("folder/0", "is in 2 shards (choose one, such as a.tar/folder/0)"),
        ("c.tar/folder/0", "has no image"),
        ("folder/9", "did you mean 'folder/"),
        ("b.tar/folder/1", "was not explained"),
    ],
)
def test_a_key_must_name_one_explained_image(folder: Path, key: str, message: str) -> None:
    with open_run(folder) as run, pytest.raises(ConfigError, match="KEY") as caught:
        _explained(run, key)
    assert message in str(caught.value)


def test_a_call_without_a_key_says_where_keys_come_from(folder: Path) -> None:
    ended = CliRunner().invoke(app, ["show", str(folder)])
    assert ended.exit_code == ConfigError.exit_code
    assert f'camatlas query {folder} "SELECT image_key FROM images LIMIT 5"' in ended.stderr


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("triangle/004.png", "triangle_004.png"),
        ("triangle/004.jpg", "triangle_004.jpg.png"),
        ("scene_00001", "scene_00001.png"),
        ("004.png", "004.png.png"),  # '004.png' may be the image itself
    ],
)
def test_the_picture_is_named_after_the_key_and_never_as_the_image(key: str, name: str) -> None:
    assert _file_name(key) == name


def test_raw_outputs_have_a_caption_without_class_and_confidence(small_run: RunMaker) -> None:
    row = {"label": 35, "predicted": None, "confidence": None, "target_logit": 33.25}
    assert _label_and_prediction(small_run.manifest, row) == "label 35\noutput 33.25"
    assert _label_and_prediction(small_run.manifest, row | {"label": None}) == "no label\noutput 33.25"
