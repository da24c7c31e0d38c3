"""Drawing a sample: the images with the smallest hashes, regardless of their shards; damaged shards are kept."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tars import tar_of

from pipeline.data.selection import drawn, select
from pipeline.data.sources import Failure, Reading, Shard, chunked, count_images, images_of, read_shard
from pipeline.data.sources.listing import list_shards
from pipeline.settings.data import DataConfig, SampleConfig

KEYS = [f"image_{number:03d}" for number in range(30)]


def expected(n: int, seed: int = 0) -> set[str]:
    """Return the keys with the n smallest hashes of seed and key, which is the definition of the sample."""
    return set(sorted(KEYS, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).hexdigest())[:n])


def write(folder: Path, shards: int, kind: str = "tar", keys: list[str] = KEYS) -> Path:
    """Write images round-robin into the given number of shards."""
    folder.mkdir()
    for shard in range(shards):
        shard_keys = keys[shard::shards]
        if kind == "tar":
            (folder / f"s{shard}.tar").write_bytes(tar_of([(f"{key}.jpg", key.encode()) for key in shard_keys]))
        else:
            columns = {"key": shard_keys, "image": [key.encode() for key in shard_keys]}
            pq.write_table(pa.table(columns), folder / f"s{shard}.parquet")
    return folder


def chosen(shards: list[Shard], reading: Reading) -> list[str]:
    """Return the keys of the images of the run; check that shards, counts and ordinals agree."""
    found = [(shard, list(images_of(read_shard(shard, reading)))) for shard in shards]
    assert [len(items) for _, items in found] == [shard.images for shard in shards]
    assert [count_images(shard) for shard in shards] == [shard.images for shard in shards]
    assert [shard.ordinal for shard in shards] == list(range(len(shards)))
    return [item.key for _, items in found for item in items]


def draw_from(*paths: Path, n: int, seed: int = 0) -> tuple[list[Shard], Reading]:
    return drawn(list_shards([str(path) for path in paths]), Reading(), n, seed)


@pytest.mark.parametrize("n", [1, 2, 7, 29])
@pytest.mark.parametrize(("shards", "kind"), [(1, "tar"), (4, "tar"), (30, "tar"), (1, "parquet"), (7, "parquet")])
def test_the_sample_does_not_depend_on_the_shards(tmp_path: Path, n: int, shards: int, kind: str) -> None:
    found = chosen(*draw_from(write(tmp_path / "data", shards, kind), n=n))
    assert (len(found), set(found)) == (n, expected(n))


def test_the_sample_does_not_depend_on_the_order_of_shards(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 3)
    turned = [folder / name for name in ("s2.tar", "s0.tar", "s1.tar")]
    assert set(chosen(*draw_from(*turned, n=8))) == expected(8)


def test_another_seed_draws_other_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 3)
    assert set(chosen(*draw_from(folder, n=8, seed=5))) == expected(8, 5) != expected(8)


def test_a_smaller_sample_is_part_of_a_larger_one(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 3)
    assert set(chosen(*draw_from(folder, n=4))) < set(chosen(*draw_from(folder, n=11)))


def test_the_files_of_a_folder_are_drawn_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for key in KEYS:
        (tmp_path / "images" / key).write_bytes(b"x")
    (shard,), reading = draw_from(tmp_path / "images", n=6)
    assert (set(shard.members), shard.images, shard.held) == (expected(6), 6, 30)
    assert set(chosen([shard], reading)) == expected(6)


@pytest.mark.parametrize("n", [30, 31, 9999])
def test_all_images_are_used_if_there_are_fewer_than_requested(tmp_path: Path, n: int) -> None:
    shards, reading = draw_from(write(tmp_path / "data", 4), n=n)
    assert sorted(chosen(shards, reading)) == KEYS
    assert str(reading.draw) == f"data.sample: all 30 images are used, {n} were requested"


def test_the_sample_describes_itself(tmp_path: Path) -> None:
    _, reading = draw_from(write(tmp_path / "data", 4), n=12, seed=3)
    assert str(reading.draw) == "data.sample: 12 of 30 images, seed 3"


@pytest.mark.parametrize("n", range(1, 10))
def test_shards_may_contain_the_same_keys(tmp_path: Path, n: int) -> None:
    for name in ("one", "two", "three"):
        write(tmp_path / name, 1, keys=KEYS[:3])
    shards, reading = draw_from(*(tmp_path / name for name in ("one", "two", "three")), n=n)
    found = [(shard.name, item.key) for shard in shards for item in images_of(read_shard(shard, reading))]
    assert (len(found), len(set(found))) == (n, n)


def test_a_repeated_key_in_a_shard_is_an_image_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("c.jpg", b"4")]))
    keys: set[str] = set()
    for n in (1, 2, 3, 4):
        found = chosen(*draw_from(path, n=n))
        assert len(found) == n
        assert keys < set(found)
        keys = set(found)
    assert len([key for key in keys if key.startswith("a@")]) == 1


def test_shards_without_a_drawn_image_are_left_out(tmp_path: Path) -> None:
    shards, reading = draw_from(write(tmp_path / "data", 30), n=2)
    assert (len(shards), {shard.ordinal for shard in shards}) == (2, {0, 1})
    for shard in shards:
        (chunk,) = chunked(read_shard(shard, reading), shard, 8)
        assert (len(chunk.samples), chunk.failures, chunk.last) == (1, (), True)


def test_damaged_and_empty_shards_are_kept_and_reported(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", 2)
    whole = tar_of([("zzz.jpg", b"z" * 600)])
    (folder / "s5.tar").write_bytes(whole[:900])
    (folder / "s6.tar").write_bytes(tar_of([]))
    (folder / "s7.tar").write_bytes(b"\xff" * 2048)
    shards, reading = draw_from(folder, n=1)
    names = [shard.name for shard in shards]
    assert names[-3:] == ["s5.tar", "s6.tar", "s7.tar"]
    assert len(names) == 4
    reported = {
        shard.name: [
            failure.code for chunk in chunked(read_shard(shard, reading), shard, 8) for failure in chunk.failures
        ]
        for shard in shards
    }
    assert reported["s5.tar"][-1] == "truncated"
    assert (reported["s6.tar"], reported["s7.tar"]) == (["empty"], ["damaged"])


def test_a_missing_shard_does_not_stop_the_draw(tmp_path: Path) -> None:
    shards = list_shards(str(write(tmp_path / "data", 3)))
    (tmp_path / "data" / "s1.tar").unlink()
    kept, reading = drawn(shards, Reading(), 30, 0)
    assert sum(shard.images or 0 for shard in kept) == 20
    (item,) = read_shard(kept[1], reading)
    assert isinstance(item, Failure)
    assert item.code == "unreadable"


def test_a_limit_takes_the_first_of_those_drawn(tmp_path: Path) -> None:
    data = DataConfig(shards="x", sample=SampleConfig(n=10), limit=4)
    shards = list_shards(str(write(tmp_path / "data", 3)))
    all_drawn = chosen(*select(data.model_copy(update={"limit": None}), shards, Reading()))
    limited = select(data, shards, Reading())
    assert [item.key for shard in limited[0] for item in read_shard(shard, limited[1])] == all_drawn[:4]
    assert sum(shard.images or 0 for shard in limited[0]) == 4


def test_bytes_estimate_the_size_of_the_drawn_images(tmp_path: Path) -> None:
    (whole,) = list_shards(str(write(tmp_path / "data", 1)))
    (shard,), _ = drawn([whole], Reading(), 3, 0)
    assert (whole.bytes, shard.bytes, shard.size) == (whole.size, whole.size // 10, whole.size)


def test_chunks_contain_only_drawn_images(tmp_path: Path) -> None:
    (shard,), reading = draw_from(write(tmp_path / "data", 1), n=10)
    chunks = list(chunked(read_shard(shard, reading), shard, 4))
    assert [len(chunk.samples) for chunk in chunks] == [4, 4, 2]
    assert [sample.key for chunk in chunks for sample in chunk.samples] == sorted(expected(10))


def test_without_a_sample_nothing_changes(tmp_path: Path) -> None:
    shards = list_shards(str(write(tmp_path / "data", 3)))
    assert select(DataConfig(shards="x"), shards, Reading()) == (shards, Reading())
