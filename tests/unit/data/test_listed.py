"""Taking the images of a list: from tars, Parquet files, folders and manifests; what is missing is said."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import put_images
from tars import tar_of

from pipeline.data.inputs import data_identity, reading_of, shards_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.selection import select
from pipeline.data.sources import Reading, Shard, chunked, count_images, images_of, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.key_list import KeyList, read_keys
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.errors import ConfigError
from pipeline.planning.sampling import _thin_out  # what a plan reads
from pipeline.settings.data import DataConfig, ImageKey

KEYS = [f"image_{number:03d}" for number in range(30)]
WANTED = [KEYS[number] for number in (3, 7, 8, 20, 29)]


def tars(folder: Path, shards: int = 4) -> dict[str, str]:
    folder.mkdir()
    for shard in range(shards):
        files = [(f"{key}.jpg", key.encode()) for key in KEYS[shard::shards]]
        (folder / f"s{shard}.tar").write_bytes(tar_of(files))
    return {"shards": str(folder)}


def parquets(folder: Path) -> dict[str, str]:
    folder.mkdir()
    for shard in range(4):
        keys = KEYS[shard::4]
        pq.write_table(pa.table({"key": keys, "image": [key.encode() for key in keys]}), folder / f"s{shard}.parquet")
    return {"shards": str(folder)}


def folder_of(folder: Path) -> dict[str, str]:
    return {"shards": str(put_images(folder, *KEYS))}


def manifest(folder: Path) -> dict[str, str]:
    put_images(folder, *KEYS)
    (folder / "list.csv").write_text("path\n" + "".join(f"{key}\n" for key in KEYS))
    return {"manifest": str(folder / "list.csv")}


KINDS: list[Callable[[Path], dict[str, str]]] = [tars, parquets, folder_of, manifest]


@parquet_sandbox()  # one subprocess for all steps
def chosen(data: dict[str, str], keys: KeyList, limit: int | None = None) -> tuple[list[Shard], Reading]:
    config = DataConfig.model_validate({**data, "limit": limit})
    return select(config, shards_of(config), reading_of(config, Annotations()), keys)


def listed(*keys: str | tuple[str, str]) -> KeyList:
    given = [key if isinstance(key, str) else ImageKey(shard=key[0], image_key=key[1]) for key in keys]
    found = read_keys(given)
    assert found is not None
    return found


def images(shards: list[Shard], reading: Reading) -> list[tuple[str, str]]:
    """Return shard and key of the images of the run; check that shards, counts and ordinals agree."""
    found = [(shard, list(images_of(read_shard(shard, reading)))) for shard in shards]
    assert [len(items) for _, items in found] == [shard.images for shard in shards]
    assert [count_images(shard) for shard in shards] == [shard.images for shard in shards]
    assert [shard.ordinal for shard in shards] == list(range(len(shards)))
    return [(shard.name, item.key) for shard, items in found for item in items]


def note(reading: Reading) -> str:
    assert reading.keys is not None
    return reading.keys.note()


@pytest.mark.parametrize("write", KINDS)
def test_exactly_the_listed_images_are_taken(tmp_path: Path, write: Callable[[Path], dict[str, str]]) -> None:
    shards, reading = chosen(write(tmp_path / "data"), listed(*WANTED))
    assert sorted(key for _, key in images(shards, reading)) == WANTED
    assert note(reading) == "data.keys: 5 images"
    assert all(0 < shard.bytes < shard.size for shard in shards)
    assert [_thin_out(shard, 9).images for shard in shards] == [shard.images for shard in shards]


@pytest.mark.parametrize("write", KINDS)
def test_missing_keys_are_said_and_a_limit_takes_the_first(
    tmp_path: Path, write: Callable[[Path], dict[str, str]]
) -> None:
    data, keys = write(tmp_path / "data"), listed(*WANTED, "no", "../../etc/passwd", "<b>")
    every = images(*chosen(data, keys))
    shards, reading = chosen(data, keys, limit=2)
    assert images(shards, reading) == every[:2]
    assert note(reading) == (
        "data.keys: 5 images; 3 of its 8 keys have no image, such as '../../etc/passwd', '<b>', 'no'"
    )


def test_a_shard_tells_images_of_one_key_apart(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        put_images(tmp_path / name, "a.jpg", "b.jpg")
    data = {"shards": [str(tmp_path / name) for name in ("one", "two", "three")]}
    shards, reading = chosen(data, listed(("one[0]", "a.jpg"), ("three[0]", "b.jpg"), ("four[0]", "a.jpg")))  # type: ignore[arg-type]
    assert images(shards, reading) == [("one[0]", "a.jpg"), ("three[0]", "b.jpg")]
    assert note(reading) == "data.keys: 2 images; 1 of its 3 keys has no image, such as 'a.jpg' in shard 'four[0]'"
    shards, reading = chosen(data, listed("a.jpg", ("one[0]", "b.jpg")))  # type: ignore[arg-type]
    assert images(shards, reading) == [
        ("one[0]", "a.jpg"),
        ("one[0]", "b.jpg"),
        ("two[0]", "a.jpg"),
        ("three[0]", "a.jpg"),
    ]
    assert "; several shards have 1 key, such as 'a.jpg': all of these images are taken" in note(reading)


def test_shards_without_a_listed_image_are_left_out_and_unnamed_ones_are_not_opened(tmp_path: Path) -> None:
    data = tars(tmp_path / "data")
    (tmp_path / "data" / "s9.tar").write_bytes(b"\xff" * 2048)
    shards, reading = chosen(data, listed(KEYS[0], KEYS[4]))
    assert [shard.name for shard in shards] == ["s0.tar"], "nothing is missing, so the damaged one holds nothing"
    assert [chunk.failures for chunk in chunked(read_shard(shards[0], reading), shards[0], 8)] == [()]
    named = listed(("s1.tar", KEYS[1]), ("s1.tar", "no"))
    every = shards_of(DataConfig(shards=data["shards"]))
    (tmp_path / "data" / "s0.tar").unlink()
    found, _ = select(DataConfig(shards="x"), every, Reading(), named)
    assert [shard.name for shard in found] == ["s1.tar"]


def test_a_damaged_shard_is_reported_while_a_key_is_missing(tmp_path: Path) -> None:
    data = tars(tmp_path / "data")
    (tmp_path / "data" / "s9.tar").write_bytes(b"\xff" * 2048)
    shards, reading = chosen(data, listed(KEYS[0], "no"))
    assert [shard.name for shard in shards] == ["s0.tar", "s9.tar"]
    (chunk,) = chunked(read_shard(shards[1], reading), shards[1], 8)
    assert [failure.code for failure in chunk.failures] == ["damaged"]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (
            ["a", "b"],
            "no image is in this list of 2 keys, such as 'a', 'b'; images are called 'image_000', 'image_004', ",
        ),
        ([("s7.tar", KEYS[0])], "such as 'image_000' in shard 's7.tar'; the shards are called 's0.tar', 's1.tar', "),
        ([("s1.tar", KEYS[0])], "such as 'image_000' in shard 's1.tar'; images are called 'image_001', "),
    ],
)
def test_a_list_of_other_images_is_refused(tmp_path: Path, keys: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        chosen(tars(tmp_path / "data"), listed(*keys))
    assert str(error.value).startswith("data.keys: no image is in this list of ")
    assert told in str(error.value)


def test_a_repeated_key_of_a_tar_is_named_as_its_row_is(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar_of([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3")]))
    data = {"shards": str(tmp_path / "s.tar")}
    assert images(*chosen(data, listed("a"))) == [("s.tar", "a")]
    (repeated,) = [item.key for item in read_shard(shards_of(DataConfig(**data))[0], Reading()) if "@" in item.key]  # type: ignore[arg-type]
    assert images(*chosen(data, listed(repeated))) == [("s.tar", repeated)]


def test_the_identity_records_the_list_only_if_there_is_one(tmp_path: Path) -> None:
    data = DataConfig.model_validate(tars(tmp_path / "data"))
    shards, reading = shards_of(data), reading_of(data, Annotations())
    before = data_identity(data, *select(data, shards, reading), DecodeLimits())
    assert "key_list" not in before
    keys = listed("image_003", "no")
    after = data_identity(data, *select(data, shards, reading, keys), DecodeLimits())
    assert after == before | {"key_list": {"n": 2, "sha256": keys.digest}}


def test_a_list_of_a_hundred_thousand_keys_costs_the_shards_only_their_own(tmp_path: Path) -> None:
    keys = listed(*(f"image_{number:03d}" for number in range(100_000)))
    shards, reading = chosen(tars(tmp_path / "data"), keys)
    assert [len(shard.only or ()) for shard in shards] == [8, 8, 7, 7]
    assert note(reading).startswith("data.keys: 30 images; 99,970 of its 100,000 keys have no image, such as 'image_")
