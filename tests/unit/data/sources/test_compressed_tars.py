"""Compressed tars: the same items as uncompressed, in bounded memory and time; shards that are not what they seem."""

import gzip
import io
import tracemalloc
from pathlib import Path

import pytest
from tars import END, damage_codes, keys, plain, tar_of, three_samples

from pipeline.data.sources import Item, Reading, Shard, count_images, gzip_stream, list_items, read_shard
from pipeline.data.sources.gzip_stream import GzipStream
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError

BIG = [(f"{i:03d}.{suffix}", bytes([i]) * size) for i in range(40) for suffix, size in (("jpg", 50_000), ("txt", 0))]


def read(path: Path) -> list[Item]:
    return list(read_shard(Shard(0, "s.tar", "tar", str(path), path.stat().st_size, ""), Reading()))


def both(folder: Path, data: bytes, name: str = "s.tar.gz") -> tuple[list[Item], list[Item]]:
    """Read bytes as a compressed and as a plain tar."""
    (folder / name).write_bytes(gzip.compress(data, 1))
    (folder / "s.tar").write_bytes(data)
    return read(folder / name), read(folder / "s.tar")


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "S.TAR.GZ"])
@pytest.mark.parametrize(
    "data",
    [
        tar_of(three_samples()),
        tar_of(BIG),
        tar_of([("scan.1.jpg", b"1"), ("scan.2.jpg", b"2")]),
        tar_of(three_samples())[:-2048],
        plain("a.jpg", b"1") + b"\0" * 300_000 + plain("b.jpg", b"2") + END,
        plain("a.jpg", b"1") + b"x" * 2048 + plain("b.jpg", b"2") + END,
        plain("a.jpg", b"1" * 9000)[:5000],
        b"",
        b"no tar" * 1000,
    ],
    ids=["three", "big", "dotted", "no end", "zeros", "rubbish", "cut", "empty", "no tar"],
)
def test_a_compressed_tar_is_read_as_the_plain_one(tmp_path: Path, data: bytes, name: str) -> None:
    compressed, plain_items = both(tmp_path, data, name)
    assert compressed == plain_items


def test_a_file_that_was_cut_keeps_what_is_whole(tmp_path: Path) -> None:
    data = gzip.compress(tar_of(BIG), 1)
    (tmp_path / "s.tgz").write_bytes(data[: len(data) // 2])
    items = read(tmp_path / "s.tgz")
    assert len(keys(items)) > 5
    assert damage_codes(items) == ["truncated"]


@pytest.mark.parametrize("place", [15, 0.5, -6])
def test_damaged_bytes_are_one_row_and_keep_what_came_before(tmp_path: Path, place: float) -> None:
    data = bytearray(gzip.compress(tar_of(BIG), 1))
    at = int(len(data) * place) if isinstance(place, float) else place
    data[at : at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "s.tgz").write_bytes(data)
    assert len(damage_codes(read(tmp_path / "s.tgz"))) == 1


def test_what_swells_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_stream, "_FREE_BYTES", 1 << 20)
    (tmp_path / "s.tgz").write_bytes(gzip.compress(plain("a.jpg", b"1") + b"\0" * (16 << 20)))
    items = read(tmp_path / "s.tgz")
    assert keys(items) == ["a"]
    assert damage_codes(items) == ["unreadable"]
    assert any("swells to more than 200 times" in getattr(item, "detail", "") for item in items)


def test_a_member_that_swells_needs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "s.tgz").write_bytes(gzip.compress(plain("a.jpg", b"\0" * (300 << 20)) + plain("b.jpg", b"2") + END, 1))
    tracemalloc.start()
    items = read(tmp_path / "s.tgz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert keys(items) == ["b"]
    assert peak < 20 << 20


def test_going_back_beyond_the_window_unpacks_again_a_few_times_at_most() -> None:
    data = bytes(range(256)) * 10_000
    stream = GzipStream(io.BytesIO(gzip.compress(data)))
    stream.seek(2_000_000)
    assert stream.read(10) == data[2_000_000:2_000_010]
    for _ in range(8):
        stream.seek(5)
        assert stream.read(10) == data[5:15]
        stream.seek(2_000_000)
        assert stream.read(5) == data[2_000_000:2_000_005]
    stream.seek(5)
    with pytest.raises(OSError, match="damaged in too many places"):
        stream.read(10)


def test_it_is_listed_and_counted_as_unknown(tmp_path: Path) -> None:
    (tmp_path / "s.tar.gz").write_bytes(gzip.compress(tar_of(three_samples())))
    (shard,) = list_shards(str(tmp_path))
    assert (shard.name, shard.kind, count_images(shard)) == ("s.tar.gz", "tar", None)
    assert [item.key for item in list_items(shard, Reading())] == ["a", "b", "c"]


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        list_shards(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.tar", gzip.compress(tar_of(three_samples())), "is gzip data, not a tar (rename it to end in .tar.gz)"),
        ("a.tgz", tar_of(three_samples()), "is a tar that is not compressed"),
        ("a.tar", b"PK\x03\x04....", "is a zip archive, not a tar"),
        ("a.tar", b"version https://git-lfs.github.com/spec/v1\noid", "is a git-lfs pointer"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("a.tar", tar_of([("n0.tar", tar_of(three_samples())), ("n1.tar", b"")]), "holds archives ('n0.tar')"),
    ],
)
def test_a_shard_that_is_something_else_is_named_before_the_work(
    tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(data)
    assert expected in refusal(tmp_path / name)
