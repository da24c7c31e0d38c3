"""Items say where they lie: the bytes there are the image, whatever the container, its order, and its chunks."""

import gzip
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import put_images
from tars import END, FORMATS, Files, layout, plain, tar_of, three_samples

from pipeline.data.decode import DecodedSample, decode_chunk
from pipeline.data.inputs import reading_of, shards_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, chunked, list_items, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.columns import DEFAULT_COLUMNS
from pipeline.data.sources.parquet import row_in_process, rows_in_process
from pipeline.data.sources.shards import NOWHERE, Extent
from pipeline.data.sources.tar import read_sample
from pipeline.run.blocks import pack, unpack
from pipeline.settings.data import DataConfig
from pipeline.settings.preprocess import Preprocess

LONG = "a folder whose name is long/" * 6


def shard_of(folder: Path, data: bytes, name: str = "s.tar") -> Shard:
    (folder / name).write_bytes(data)
    return Shard(0, name, "tar", str(folder / name), len(data), "")


def read(shard: Shard) -> list[Item]:
    return list(read_shard(shard, Reading()))


def cut(data: bytes, extent: Extent) -> tuple[bytes, bytes]:
    """Return the bytes of the image and of its sample."""
    assert None not in (extent.image_offset, extent.image_bytes, extent.sample_offset, extent.sample_bytes)
    start, sample = extent.image_offset or 0, extent.sample_offset or 0
    return data[start : start + (extent.image_bytes or 0)], data[sample : sample + (extent.sample_bytes or 0)]


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        pytest.param(kind, prefix, id=f"{kind}-{name}")
        for kind in FORMATS
        for name, prefix in (("short", ""), ("long", LONG), ("not ascii", f"{LONG}é"))
        if kind != "ustar" or not prefix  # its names are shorter
    ],
)
def test_the_range_of_a_tar_is_the_image_and_that_of_its_sample_gives_it_again(
    tmp_path: Path, kind: str, prefix: str
) -> None:
    data = tar_of(three_samples(kind, prefix), kind, {"comment": "global"} if kind == "pax" else None)
    shard = shard_of(tmp_path, data)
    items = read(shard)
    assert [item.key for item in items] == [f"{prefix}{key}" for key in "abc"]
    for item in items:
        assert isinstance(item, Sample)
        image, sample = cut(data, item.extent)
        assert image == item.image
        (again,) = [found for found in read_sample(sample, item.key, shard, Annotations()) if isinstance(found, Sample)]
        assert again == item


def test_the_sample_reaches_over_damage_and_members_that_are_ignored(tmp_path: Path) -> None:
    members = [plain("a.cls", b"1"), b"\xff" * 512, plain("._a.jpg", b"litter"), plain("a.jpg", b"A" * 600)]
    data = b"".join([plain("z.jpg", b"z"), *members, plain("b.jpg", b"B"), END])
    shard = shard_of(tmp_path, data)
    found = {item.key: item for item in read(shard) if isinstance(item, Sample)}
    image, sample = cut(data, found["a"].extent)
    assert image == b"A" * 600
    assert b"".join(members).startswith(sample)
    assert (found["a"].extent.sample_offset, len(sample)) == (1024, len(b"".join(members)) - 424)
    again = [one for one in read_sample(sample, "a", shard, Annotations()) if isinstance(one, Sample)]
    assert again == [found["a"]]


def test_failures_of_images_say_where_they_lie_and_damage_does_not(tmp_path: Path) -> None:
    files: Files = [
        ("a.jpg", b"A"), ("a.cls", b"no number"), ("b.cls", b"1"), ("c.jpg", b"1"), ("c.png", b"2"), ("d.jpg", b"D"),
        ("a.jpg", b"again"),
    ]  # fmt: skip
    data = tar_of(files).rstrip(b"\0") + b"rubbish" * 512
    reading = Reading(replace(Annotations(), needs_label=True))
    found = {item.key: item for item in read_shard(shard_of(tmp_path, data), reading)}
    assert [found[key].code for key in "abc"] == ["label", "no_image", "ambiguous_image"]  # type: ignore[union-attr]
    assert found["a"].extent == Extent(512, 1, None, 0, 1545)
    assert found["b"].extent == Extent(None, None, None, 2048, 513)
    assert found["c"].extent == Extent(None, None, None, 3072, 1537)
    assert found["d"].extent.image_offset == 5632
    others = [item for key, item in found.items() if key not in "abcd"]
    assert {item.stage for item in others if isinstance(item, Failure)} == {"read", "shard"}
    assert all(item.extent == NOWHERE for item in others)


def test_an_image_that_cannot_be_decoded_keeps_its_place(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, tar_of(three_samples()))
    (chunk,) = chunked(read(shard), shard, 9)
    decoded = decode_chunk(chunk, Preprocess(8, 8), DecodeLimits())
    assert [failure.extent for failure in decoded.failures] == [sample.extent for sample in chunk.samples]
    assert None not in [failure.extent.image_offset for failure in decoded.failures]


def test_a_place_travels_with_its_image_to_the_worker() -> None:
    sample = DecodedSample("a", 1, None, (3, 4), extent=Extent(512, 7, None, 0, 519))
    ((again,),) = unpack(pack([(sample,)]))
    assert again.extent == sample.extent


@pytest.mark.parametrize("size", [1, 2, 3])
def test_places_do_not_depend_on_how_a_shard_is_divided(tmp_path: Path, size: int) -> None:
    shard = shard_of(tmp_path, tar_of(three_samples()))
    chunks = chunked(read(shard), shard, size)
    divided = [sample.extent for sample in itertools.chain.from_iterable(chunk.samples for chunk in chunks)]
    assert divided == [item.extent for item in read(shard)]
    taken = read(replace(shard, take=2))
    assert [item.extent for item in taken] == divided[:2]


def test_listing_finds_the_places_that_reading_finds(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, tar_of(three_samples()))
    assert [item.extent for item in list_items(shard, Reading())] == [item.extent for item in read(shard)]


def test_a_compressed_tar_has_no_places_but_sizes(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, gzip.compress(tar_of(three_samples())), "s.tar.gz")
    assert [item.extent for item in read(shard)] == [Extent(image_bytes=size) for size in (600, 512, 1025)]


def test_padding_that_is_cut_off_is_not_part_of_a_sample(tmp_path: Path) -> None:
    data = tar_of(three_samples()[:1])
    info = layout(data)[0]
    cut_off = data[: info.offset_data + info.size]
    (item,) = [item for item in read(shard_of(tmp_path, cut_off)) if isinstance(item, Sample)]
    assert item.extent == Extent(512, 600, None, 0, len(cut_off))


def test_files_of_their_own_begin_at_zero(tmp_path: Path) -> None:
    put_images(tmp_path / "pics", "a.jpg", "bb.jpg")
    (tmp_path / "list.csv").write_text("path\npics/a.jpg\npics/bb.jpg\n")
    for settings in ({"shards": str(tmp_path / "pics")}, {"manifest": str(tmp_path / "list.csv")}):
        data = DataConfig.model_validate(settings)
        (shard,) = shards_of(data)
        extents = [item.extent for item in read_shard(shard, reading_of(data, Annotations()))]
        assert [(extent.image_offset, extent.image_row) for extent in extents] == [(0, None)] * 2
        assert [extent.image_bytes for extent in extents] == [len(path.read_bytes()) for path in sorted(
            (tmp_path / "pics").iterdir())]  # fmt: skip


def tables(folder: Path) -> Iterator[Shard]:
    table = pa.table({"image": [bytes([i]) * (i + 1) for i in range(200)], "key": [f"k{i}" for i in range(200)]})
    pq.write_table(table, folder / "t.parquet", row_group_size=70)
    yield Shard(0, "t.parquet", "parquet", str(folder / "t.parquet"), 0, "")
    with pa.OSFile(str(folder / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    yield Shard(0, "t.arrow", "arrow", str(folder / "t.arrow"), 0, "")


def test_rows_of_tables_are_numbered_and_each_is_found_by_its_number(tmp_path: Path) -> None:
    for shard in tables(tmp_path):
        items = read(shard)
        assert [item.extent for item in items] == [Extent(None, i + 1, i) for i in range(200)]
        rows = list(rows_in_process(shard, DEFAULT_COLUMNS, False))
        for number in (0, 1, 63, 64, 69, 70, 139, 140, 199):
            assert row_in_process(shard, DEFAULT_COLUMNS, number, f"k{number}") == rows[number]
        assert row_in_process(shard, DEFAULT_COLUMNS, 3, "k4") is None
        assert row_in_process(shard, DEFAULT_COLUMNS, 200, "k200") is None
