"""The demonstration overwrites only what an earlier demonstration has written."""

from pathlib import Path

import pytest

from pipeline.demo.data import write_demo
from pipeline.errors import ConfigError


def test_a_second_demonstration_writes_the_same_files(tmp_path: Path) -> None:
    files = [{p.name: p.read_bytes() for p in tmp_path.rglob("*.*")} for _ in range(2) if write_demo(tmp_path, 4, 2)]
    assert files[0] == files[1] != {}


@pytest.mark.parametrize("name", ["run.yaml", "classes.csv", "shards/mine.tar"])
def test_files_of_the_user_are_not_overwritten(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not overwritten"):
        write_demo(tmp_path, 4, 2)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text(encoding="utf-8") == "mine"
