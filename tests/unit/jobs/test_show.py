"""camatlas show finds an image by its key, or by its shard and its key."""

from pathlib import Path

import pytest
from handmade import PARTS, RunMaker

from jobs.show import _explained
from pipeline.errors import ConfigError
from pipeline.results.query import open_run
from pipeline.storage.run_folder import PartName


class Twice(RunMaker):
    """Both shards hold the image `folder/0`; only the first one holds `folder/1`, explained."""

    def image(self, part: PartName, number: int) -> str:
        """The same keys in every shard."""
        return f"folder/{number}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two shards."""
    Twice(tmp_path / "run").owned().publish(PARTS[0], PARTS[2])
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("key", "found"), [("a.tar/folder/0", "a.tar"), ("b.tar/folder/0", "b.tar"), ("a.tar/folder/1", "a.tar")]
)
def test_an_image_is_found_by_its_shard_and_key(folder: Path, key: str, found: str) -> None:
    with open_run(folder) as run:
        rows = _explained(run, key)
    assert {(row["shard"], row["image_key"]) for row in rows} == {(found, key.removeprefix(f"{found}/"))}
    assert [row["method"] for row in rows] == ["gradcam", "scorecam"]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("folder/0", "stands in 2 shards (say a.tar/folder/0)"),
        ("c.tar/folder/0", "has no image"),
        ("folder/9", "did you mean 'folder/"),
        ("b.tar/folder/1", "was not explained"),
    ],
)
def test_what_is_not_one_explained_image_is_refused(folder: Path, key: str, told: str) -> None:
    with open_run(folder) as run, pytest.raises(ConfigError, match="KEY") as caught:
        _explained(run, key)
    assert told in str(caught.value)
