"""Counting images without reading them gives the same number as reading."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tars import END, layout, tar_of, three_samples

from pipeline.data.sources import Reading, Shard, count_images, image_bytes, images_of, list_items, read_shard, tar
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.shards import is_image

GOOD = tar_of(three_samples())
TARS = {
    "good": GOOD,
    "pax": tar_of(three_samples("pax", "é"), "pax"),
    "long names": tar_of(three_samples("gnu", "n" * 150), "gnu"),
    "repeated": tar_of([*three_samples(), *three_samples()]),
    "no image": tar_of([("a.cls", b"1"), ("b.jpg", b"B"), ("b.png", b"B"), (".jpg", b"C")]),
    "twice in one sample": tar_of([("a.jpg", b"A"), ("a.jpg", b"A"), ("b.jpg", b"B")]),
    "zeros between": GOOD[: layout(GOOD)[2].offset] + END + GOOD[layout(GOOD)[2].offset :],
    "damaged": GOOD[:512] + b"\xff" * 700 + GOOD[1212:],
    "empty": b"",
}


def counted(shard: Shard) -> tuple[int | None, int]:
    return count_images(shard), sum(1 for _ in images_of(read_shard(shard, Reading())))


@pytest.mark.parametrize("name", TARS)
def test_a_tar_is_counted_and_its_keys_are_listed_from_its_headers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(TARS[name])
    shard = Shard(0, "s.tar", "tar", str(path), len(TARS[name]), "x")
    count, read = counted(shard)
    assert count == read
    keys, keys_read = both(shard)
    assert keys == keys_read


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [b"x", b"y", b"z"]},
        {"image": [b"x", b"y", b"z"], "key": ["a", "b", "a"]},
        {"image": [b"x", None], "key": [7, None]},
        {"other": [1]},
    ],
)
def test_other_shards_list_the_keys_that_reading_gives(columns: dict[str, list[object]], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"x")
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    (tmp_path / "q.parquet").write_bytes(b"PAR1 no PAR1")
    for shard in list_shards([str(tmp_path / name) for name in ("images", "p.parquet", "q.parquet")]):
        listed, read = both(shard)
        assert listed == read != []


def both(shard: Shard) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Return the keys and whether they are images, as listed and as read."""
    listed, read = list_items(shard, Reading()), read_shard(shard, Reading())
    return [(item.key, is_image(item)) for item in listed], [(item.key, is_image(item)) for item in read]


def test_bytes_per_image_are_estimated_from_the_start_of_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tar_of([(f"{i}.jpg", bytes(3 * 512)) for i in range(40)])
    (tmp_path / "s.tar").write_bytes(data)
    shard = Shard(0, "s.tar", "tar", str(tmp_path / "s.tar"), len(data), "x")
    assert image_bytes([shard, shard]) == len(data) / 40
    monkeypatch.setattr(tar, "_HEAD_BYTES", 20 * 2048 + 1)
    assert image_bytes([shard]) == pytest.approx(2048, rel=0.01)
    (tmp_path / "s.tar").write_bytes(b"")
    assert image_bytes([shard]) == 1


def test_the_count_respects_the_limit(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(GOOD)
    (shard,) = list_shards(str(tmp_path / "s.tar"))
    assert [count_images(replace(shard, take=take)) for take in (None, 2, 9)] == [3, 2, 3]


def test_folders_and_parquet_files_know_their_count(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.png"):
        (tmp_path / "images" / name).write_bytes(b"x")
    pq.write_table(pa.table({"image": [b"x", b"y", b"z"]}), tmp_path / "p.parquet")
    folder, table = list_shards([str(tmp_path / "images"), str(tmp_path / "p.parquet")])
    assert (count_images(folder), count_images(table)) == (2, 3)


def test_a_shard_that_cannot_be_read_counts_as_empty(tmp_path: Path) -> None:
    assert count_images(Shard(0, "gone.tar", "tar", str(tmp_path / "gone.tar"), 1, "x")) == 0
    assert count_images(Shard(0, "p.parquet", "parquet", str(tmp_path / "p.parquet"), 1, "x")) == 0
