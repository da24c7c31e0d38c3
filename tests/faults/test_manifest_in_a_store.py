"""Manifests and their images in an object store: the same images as on a disk, or a StoreError without any row."""

from pathlib import Path

import pytest
from faults.s3 import Proxy
from manifests import failures_of, labels_of, read_all

from pipeline.data.inputs import shards_of
from pipeline.data.sources import Reading, Sample, read_shard
from pipeline.errors import ConfigError, StoreError
from pipeline.settings.data import DataConfig
from pipeline.storage import object_store
from pipeline.storage.object_store import ObjectStore

CSV = b"path,label\na.jpg,1\nd/b.jpg,2\nnone.jpg,3\n"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.02)


@pytest.fixture
def images(store: ObjectStore) -> ObjectStore:
    """A store with two images and a manifest."""
    for name, data in (("a.jpg", b"first"), ("d/b.jpg", b"second"), ("empty.jpg", b""), ("list.csv", CSV)):
        store.publish(name, data)
    return store


def test_a_manifest_in_a_store_names_its_images_relative_to_itself(images: ObjectStore) -> None:
    items = read_all(f"{images.url}/list.csv")
    assert labels_of(items) == {"a.jpg": 1, "d/b.jpg": 2}
    assert failures_of(items) == {"none.jpg": ("read", "missing")}
    assert [item.image for item in items if isinstance(item, Sample)] == [b"first", b"second"]


def test_a_manifest_on_a_disk_names_images_in_a_store(images: ObjectStore, tmp_path: Path) -> None:
    lines = ["path,label", *(f"{images.url}/{name},1" for name in ("a.jpg", "d/b.jpg", "empty.jpg"))]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert labels_of(read_all(tmp_path / "list.csv")) == {"a.jpg": 1, "d/b.jpg": 1, "empty.jpg": 1}
    (tmp_path / "names.csv").write_text("path\na.jpg\n")
    assert list(labels_of(read_all(tmp_path / "names.csv", root=f"{images.url}/"))) == ["a.jpg"]
    with pytest.raises(ConfigError, match=r"none of the 1 images"):
        read_all(tmp_path / "names.csv", root=f"{images.url}/d")


def test_paths_that_leave_the_prefix_are_refused(images: ObjectStore) -> None:
    images.publish("d/list.csv", b"path\n../a.jpg\n")
    with pytest.raises(ConfigError, match=r"row 2: '../a.jpg' leaves '.*/d'"):
        read_all(f"{images.url}/d/list.csv")


def test_each_image_costs_one_head_and_one_get(images: ObjectStore, proxied: Proxy) -> None:
    (shard,) = shards_of(DataConfig(manifest=f"{images.url}/list.csv"))
    listed = [(verb, path.rpartition("/")[2]) for verb, path, _ in proxied.requests]
    assert sorted(listed) == [("GET", "list.csv"), *(("HEAD", name) for name in ("a.jpg", "b.jpg", "none.jpg"))]
    proxied.requests.clear()
    list(read_shard(shard, Reading()))
    assert [(verb, path.rpartition("/")[2]) for verb, path, _ in proxied.requests] == [
        ("GET", "a.jpg"),
        ("GET", "b.jpg"),
    ]


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_an_image_that_changes_after_it_was_listed_is_no_failure_row(images: ObjectStore, change: str) -> None:
    (shard,) = shards_of(DataConfig(manifest=f"{images.url}/list.csv"))
    images.delete("a.jpg")
    if change == "replaced":
        images.publish("a.jpg", b"other")
    with pytest.raises(StoreError, match=r"was replaced during the run|existed when the run began and is gone"):
        list(read_shard(shard, Reading()))


def test_a_store_that_is_down_is_an_error(images: ObjectStore, proxied: Proxy) -> None:
    proxied.strike = lambda verb, _: "internal" if verb == "HEAD" else None
    with pytest.raises(StoreError):
        shards_of(DataConfig(manifest=f"{images.url}/list.csv"))


def test_hive_folders_of_a_prefix_are_found(store: ObjectStore) -> None:
    store.publish("h/label=2/p.parquet", b"x")
    store.publish("h/label=1/p.parquet", b"x")
    store.publish("h/other/p.parquet", b"x")
    shards = shards_of(DataConfig(shards=f"{store.url}/h/"))
    assert [shard.name for shard in shards] == ["label=1/p.parquet", "label=2/p.parquet"]
