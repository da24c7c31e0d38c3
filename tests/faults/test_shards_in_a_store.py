"""Shards in an object store: the same shards and items as in a folder, or a StoreError without any row."""

import itertools
import pickle
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.s3 import SECRET, Accident, Proxy, use
from tars import END, layout, tar_of, three_samples

from pipeline.data.annotations import describe
from pipeline.data.sources import Item, Reading, Shard, count_images, objects, read_shard
from pipeline.data.sources.classes import load_classes
from pipeline.data.sources.label_files import load_annotations
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.objects import ShardFile
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.errors import ConfigError, StoreError
from pipeline.settings.data import DataConfig
from pipeline.storage import object_store
from pipeline.storage.base import Stat
from pipeline.storage.object_store import ObjectStore

NOISE = np.random.default_rng(0).bytes(200_000)
GOOD = tar_of([*three_samples(), ("d.jpg", NOISE), ("d.cls", b"4")])
FILES = {
    "a.tar": GOOD,
    "b.tar": tar_of(three_samples("pax", "é"), "pax"),
    "damaged.tar": GOOD[:512] + b"\xff" * 700 + GOOD[1212:],
    "empty.tar": b"",
    "edge.tar": tar_of([("x.jpg", NOISE[: (64 << 10) - 512])])[: 64 << 10],
    "headless.tar": NOISE,
    "truncated.tar": GOOD[:100_000],
    "zeros.tar": GOOD[: layout(GOOD)[2].offset] + END + GOOD[layout(GOOD)[2].offset :],
}


@pytest.fixture(autouse=True)
def _small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(objects, "PIECE_BYTES", 70_000)


def both(store: ObjectStore, folder: Path, files: dict[str, bytes]) -> None:
    """Write the same files to a folder and to the store."""
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        store.publish(name, data)


def parquet(folder: Path, rows: int = 300) -> bytes:
    images = [bytes([i % 256]) * 700 for i in range(rows)]
    table = pa.table({"key": [f"k{i}" for i in range(rows)], "image": images, "label": list(range(rows))})
    pq.write_table(table, folder / "made.parquet", row_group_size=64, compression="none", use_dictionary=False)
    return (folder / "made.parquet").read_bytes()


def facts(shards: list[Shard]) -> list[tuple[object, ...]]:
    return [(s.ordinal, s.name, s.kind, s.size, s.fingerprint, s.images, s.take) for s in shards]


def items(shard: Shard) -> list[Item]:
    return list(read_shard(shard, Reading()))


def kinds(proxy: Proxy) -> list[str]:
    return [verb for verb, _, _ in proxy.requests]


@pytest.mark.parametrize("spec", ["{}/", "{}/*.tar", "{}/{{a,b,damaged,edge,empty}}.tar", "{}/[a-e]*.tar"])
def test_the_same_shards_are_listed_as_in_a_folder(store: ObjectStore, tmp_path: Path, spec: str) -> None:
    both(store, tmp_path / "d", FILES)
    local, remote = list_shards(spec.format(tmp_path / "d")), list_shards(spec.format(store.url))
    assert facts(remote) == facts(local)
    assert [shard.location for shard in remote] == [f"{store.url}/{shard.name}" for shard in local]
    assert all(shard.etag for shard in remote)


def test_the_same_items_are_read_as_from_files(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE_BYTES", 7_000)
    files = {**FILES, "p.parquet": parquet(tmp_path), "q.parquet": parquet(tmp_path)[:-9]}
    both(store, tmp_path / "d", files)
    for name in files:
        (local,), (remote,) = list_shards(f"{tmp_path}/d/{name}"), list_shards(f"{store.url}/{name}")
        assert facts([remote]) == facts([local])
        assert items(remote) == items(local), name
        assert SECRET.encode() not in pickle.dumps(remote)


def test_the_documented_requests_are_made(store: ObjectStore, proxied: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PIECE_BYTES", 100_000)
    store = ObjectStore(store.url)
    data = tar_of([(f"{i}.jpg", NOISE[:20_000]) for i in range(20)])
    for i in range(3):
        store.publish(f"{i}.tar", data)
    proxied.requests.clear()
    first, _, third = list_shards(f"{store.url}/")
    assert sorted(kinds(proxied)) == ["GET"] * 7 + ["HEAD"] * 3, "one list request; a HEAD and two GETs per shard"
    proxied.requests.clear()
    items(first)
    assert kinds(proxied) == ["GET"] * -(-len(data) // objects.PIECE_BYTES)
    proxied.requests.clear()
    assert list_shards(f"{store.url}/{{0,1,2}}.tar", only={"2.tar"})[0].fingerprint == third.fingerprint
    assert sorted(kinds(proxied)) == ["GET", "GET", "HEAD"]
    proxied.requests.clear()
    assert count_images(first) is None
    assert proxied.requests == []


def test_the_account_of_many_shards_reads_the_beginning_of_three(
    store: ObjectStore, proxied: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE_BYTES", 8 << 20)
    for i in range(12):
        store.publish(f"{i:02d}.tar", GOOD if i else FILES["b.tar"])
    shards = list_shards(f"{store.url}/")
    store.publish("labels.csv", b"filename,class_index\n/mnt/a.jpg,7\nd,3\n")
    proxied.requests.clear()
    data = DataConfig(shards=f"{store.url}/", labels=f"{store.url}/labels.csv")
    account = describe(data, shards, 1000).account
    assert account.inside is not None
    assert (account.inside.shards, account.inside.of, account.inside.images) == (3, 12, 11)
    assert account.files[0].images - account.files[0].without >= 2
    assert kinds(proxied) == ["GET"] * 4, "the label file, and one piece of three shards"


@pytest.mark.parametrize(
    ("name", "accident"),
    [("a.tar", "slow_down"), ("a.tar", "internal"), ("a.tar", "reset"), ("a.tar", "cut"), ("a.tar", "short"),
     ("p.parquet", "lost"), ("p.parquet", "cut")],
)  # fmt: skip
def test_a_transient_fault_changes_nothing(
    store: ObjectStore, proxied: Proxy, tmp_path: Path, name: str, accident: Accident
) -> None:
    """Fail every third request, beginning with the first; each retry succeeds."""
    both(store, tmp_path / "d", {name: parquet(tmp_path) if name == "p.parquet" else GOOD})
    (local,) = list_shards(f"{tmp_path}/d/{name}")
    count = itertools.count()
    proxied.strike = lambda _verb, _path: accident if next(count) % 3 == 0 else None
    (remote,) = list_shards(f"{store.url}/{name}")
    assert facts([remote]) == facts([local])
    assert items(remote) == items(local)
    assert [struck for _, _, struck in proxied.requests].count(accident) >= 3


def test_a_stalled_request_is_aborted_and_retried(store: ObjectStore, proxied: Proxy) -> None:
    store.publish("a.bin", NOISE)
    left: list[Accident] = ["stall"]
    proxied.strike = lambda verb, _path: left.pop() if left and verb == "GET" else None
    file = ShardFile(ObjectStore(store.url, seconds=1), "a.bin", Stat(len(NOISE), None), 1 << 20)
    assert file.read(5000) == NOISE[:5000]
    assert file.read(5000) == NOISE[5000:10_000], "from the same request"
    assert [struck for _, _, struck in proxied.requests] == ["stall", None]


def test_the_sandbox_reads_parquet_from_the_store_and_reports_that_the_store_is_down(
    store: ObjectStore, proxied: Proxy, tmp_path: Path
) -> None:
    both(store, tmp_path / "d", {"p.parquet": parquet(tmp_path)})
    (shard,) = list_shards(f"{store.url}/p.parquet")
    with closing(ParquetSandbox()) as sandbox:
        assert list(read_shard(shard, Reading(), sandbox.rows)) == items(shard)
        proxied.strike = lambda _verb, _path: "forbidden"
        with pytest.raises(StoreError, match=f"cannot read {store.url}/p.parquet"):
            list(read_shard(shard, Reading(), sandbox.rows))


@pytest.mark.parametrize("accident", ["slow_down", "forbidden", "cut"])
@pytest.mark.parametrize("name", ["a.tar", "p.parquet"])
def test_a_store_that_fails_at_any_request_ends_the_reading_without_a_row(
    store: ObjectStore, proxied: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accident: Accident, name: str
) -> None:
    monkeypatch.setattr(object_store, "TRIES", 2)
    both(store, tmp_path / "d", {name: parquet(tmp_path, 70) if name == "p.parquet" else tar_of(three_samples())})
    (shard,) = list_shards(f"{store.url}/{name}")
    monkeypatch.setattr(objects, "PIECE_BYTES", 16 << 10 if shard.kind == "parquet" else 3 << 9)
    proxied.requests.clear()
    expected = items(shard)
    needed = len(proxied.requests)
    assert 4 < needed < 16
    for good in range(needed):
        requests = itertools.count()
        proxied.strike = lambda _verb, _path, good=good, requests=requests: (
            accident if good <= next(requests) < good + 2 else None
        )
        seen: list[Item] = []
        with pytest.raises(StoreError, match=f"cannot read {store.url}/{name}"):
            seen.extend(read_shard(shard, Reading()))
        assert seen == expected[: len(seen)]


@pytest.mark.parametrize("conditions", [True, False], ids=["If-Match is supported", "If-Match is ignored"])
@pytest.mark.parametrize("new", [GOOD[::-1], GOOD[:9000]], ids=["other bytes", "shorter"])
def test_a_shard_that_is_replaced_while_it_is_read_is_detected(
    store: ObjectStore, proxied: Proxy, conditions: bool, new: bytes
) -> None:
    store.publish("a.tar", GOOD)
    (shard,) = list_shards(f"{store.url}/a.tar")
    reading = read_shard(shard, Reading())
    next(reading)
    store.delete("a.tar")
    store.publish("a.tar", new)
    if not conditions:
        proxied.strike = lambda verb, _path: "unconditional" if verb == "GET" else None
    with pytest.raises(StoreError, match=r"a\.tar .*(was replaced|cannot read)|cannot read .*a\.tar"):
        list(reading)
    with pytest.raises(StoreError, match=r"was replaced.*run the same command again"):
        items(shard)


def test_a_shard_that_is_deleted_while_it_is_read_is_reported(store: ObjectStore) -> None:
    store.publish("a.tar", GOOD)
    (shard,) = list_shards(f"{store.url}/a.tar")
    reading = read_shard(shard, Reading())
    next(reading)
    store.delete("a.tar")
    with pytest.raises(StoreError, match=r"a\.tar existed when the run began and is gone"):
        list(reading)


def test_a_forbidden_shard_is_reported_before_any_work(store: ObjectStore, proxied: Proxy) -> None:
    store.publish("a.tar", GOOD)
    store.publish("b.tar", GOOD)
    proxied.strike = lambda verb, path: "forbidden" if verb == "GET" and path.endswith("b.tar") else None
    with pytest.raises(StoreError, match=r"b\.tar: the store returned AccessDenied"):
        list_shards(f"{store.url}/{{a,b}}.tar")


def test_small_files_are_read_by_url(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.publish("labels.csv", b"\xef\xbb\xbffilename,class_index\n1.jpg,7\n")
    store.publish("boxes.csv", b"filename,x0,y0,x1,y1\n1.jpg,1,2,3,4\n")
    store.publish("classes.CSV", b"class_index,class_name\n0,cat\n")
    store.publish("classes.txt", b"cat\ndog\n")
    annotations = load_annotations(f"{store.url}/labels.csv", f"{store.url}/boxes.csv", load_classes(None))
    assert (annotations.labels, annotations.boxes) == ({"1.jpg": "7"}, {"1.jpg": ((1, 2, 3, 4),)})
    assert load_classes(f"{store.url}/classes.CSV").names == ("cat",)
    assert load_classes(f"{store.url}/classes.txt").names == ("cat", "dog")
    with pytest.raises(ConfigError, match=r"data\.labels: cannot read 's3://.*none\.csv'"):
        load_annotations(f"{store.url}/none.csv", None, load_classes(None))
    with pytest.raises(ConfigError, match=r"data\.classes: 'ftp://host' has an unsupported scheme"):
        load_classes("ftp://host/classes.csv")
    monkeypatch.setattr(object_store, "TRIES", 1)
    use("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(StoreError, match=r"cannot read .*labels\.csv"):
        load_annotations(f"{store.url}/labels.csv", None, load_classes(None))
