"""Which objects of a store are the shards that a URL names, and what is said where there are none."""

from pathlib import Path

import pytest
from tars import END, tar_of, three_samples

from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError
from pipeline.storage.object_store import ObjectStore

GOOD = tar_of(three_samples())


def test_folders_of_a_glob_and_hidden_objects(store: ObjectStore) -> None:
    for name in ("x/1.tar", "x/y/2.tar", "x/.y/3.tar", "x/.4.tar", "5.tar", "x[0].tar", "x/6.TAR"):
        store.publish(name, END)

    def found(spec: str) -> list[str]:
        return [shard.location.removeprefix(f"{store.url}/") for shard in list_shards(f"{store.url}/{spec}")]

    assert found("**/*.tar") == ["5.tar", "x/1.tar", "x/y/2.tar", "x[0].tar"]
    assert found("*/*.tar") == ["x/1.tar"]
    assert found("x/?.tar") == ["x/1.tar"]
    assert found("x[0].tar") == ["x[0].tar"]
    assert found("x/.*.tar") == ["x/.4.tar"]
    assert found("x/") == ["x/1.tar", "x/6.TAR"]
    assert found("{x,x/y}/*.tar") == ["x/1.tar", "x/y/2.tar"]


def test_a_list_may_mix_folders_and_stores_with_unique_names(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.tar").write_bytes(GOOD)
    store.publish("a.tar", GOOD)
    store.publish("e/a.tar", GOOD)
    shards = list_shards([f"{tmp_path}/d", f"{store.url}/a.tar", f"{store.url}/e/"])
    assert [shard.ordinal for shard in shards] == [0, 1, 2]
    assert len({shard.name for shard in shards}) == 3
    assert [shard.name for shard in list_shards([f"{store.url}/a.tar", f"{store.url}/e/"])] == ["a.tar", "e/a.tar"]


def test_missing_shards_are_all_named_at_once(store: ObjectStore) -> None:
    store.publish("s-03.tar", GOOD)
    with pytest.raises(ConfigError) as refused:
        list_shards([f"{store.url}/s-{{00..22}}.tar", f"{store.url}/t.tar"])
    assert f"{store.url}/s-19.tar" in str(refused.value)
    assert "s-03.tar" not in str(refused.value)
    assert "and 3 more" in str(refused.value)


@pytest.mark.parametrize(
    ("names", "spec", "message"),
    [
        (["1.jpg", "2.jpg"], "/", r"loose images \('1.jpg'\).*camatlas pack"),
        (["a.tar", "2.JPG"], "/", r"shards and loose images \('2.JPG'\).*/\*\.tar"),
        (["cat/1.jpg"], "/", r"no \.tar and no \.parquet object.*camatlas pack"),
        (["a.tar"], "/*.parquet", "matches nothing"),
        (["a.tar"], "/b//a.tar", "not a valid object name"),
    ],
)
def test_a_url_without_shards_is_an_error(store: ObjectStore, names: list[str], spec: str, message: str) -> None:
    for name in names:
        store.publish(name, b"x")
    with pytest.raises(ConfigError, match=message):
        list_shards(f"{store.url}{spec}")
