"""Damaged tars: every intact sample is kept, and everything that is lost is a failure row."""

import gzip
import os
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import (
    BLOCK,
    END,
    SAMPLES,
    ReadBytes,
    damage_codes,
    failures,
    keys,
    layout,
    padded_end,
    plain,
    samples,
    tar_of,
    three_samples,
)

from pipeline.data.sources import Failure, Reading, Sample, Shard, chunked, read_shard


def samples_before(data: bytes, cut: int) -> list[Sample]:
    """Return the samples that end before an offset in the intact tar, as the standard library reads it."""
    ends: dict[str, int] = {}
    for info in layout(data):
        ends[info.name.rpartition(".")[0]] = info.offset_data + info.size
    return [Sample(key, "s.tar", *SAMPLES[key[-1]], None) for key, end in ends.items() if end <= cut]


def cuts(data: bytes) -> list[int]:
    """Return every block boundary, and offsets right before, right after and inside each block."""
    return sorted({cut for start in range(0, len(data), BLOCK) for cut in (start, start + 1, start + 200, start + 511)})


@pytest.mark.parametrize(("kind", "prefix"), [("ustar", ""), ("pax", "é"), ("gnu", "n" * 150)])
def test_a_truncated_tar_keeps_the_samples_before_the_cut(read_tar_bytes: ReadBytes, kind: str, prefix: str) -> None:
    data = tar_of(three_samples(prefix=prefix), kind)
    members_end = padded_end(layout(data)[-1])
    for cut in cuts(data):
        items = read_tar_bytes(data[:cut])
        whole = samples_before(data, cut)
        assert samples(items)[: len(whole)] == whole, cut
        assert len(damage_codes(items)) == (0 < cut <= members_end), cut
        assert len(items) - len(whole) - len(damage_codes(items)) <= 1, cut


def test_a_cut_inside_a_member_names_its_sample_and_the_place(read_tar_bytes: ReadBytes) -> None:
    data = tar_of(three_samples())
    cut = layout(data)[2].offset_data + 10
    items = read_tar_bytes(data[:cut])
    assert failures(items) == [("b", "truncated")]
    assert [item.key for item in items if isinstance(item, Failure) and not item.is_image] == ["s.tar@2560"]


def test_a_missing_end_marker_is_reported(read_tar_bytes: ReadBytes) -> None:
    assert damage_codes(read_tar_bytes(plain("a.jpg", b"1"))) == ["truncated"]


@pytest.mark.parametrize("size", [512, 1024, 1536])
@pytest.mark.parametrize("kind", ["ustar", "pax"])
def test_zero_blocks_between_members_lose_nothing(read_tar_bytes: ReadBytes, size: int, kind: str) -> None:
    data = tar_of(three_samples(prefix="é"), kind)
    whole = read_tar_bytes(data)
    for info in layout(data):
        items = read_tar_bytes(data[: info.offset] + b"\0" * size + data[info.offset :])
        assert samples(items) == whole, info.name
        assert [(item.key, item.code) for item in items if isinstance(item, Failure)] == [
            (f"s.tar@{info.offset}", "zero_blocks")
        ]


def test_two_concatenated_tars_are_both_read(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(tar_of([("a.jpg", b"1")]) + tar_of([("b.jpg", b"2")]))
    assert (keys(items), damage_codes(items)) == (["a", "b"], ["zero_blocks"])


@pytest.mark.parametrize("junk", [b"\0" * BLOCK, b"\x55" * BLOCK, random.Random(0).randbytes(BLOCK)])
@pytest.mark.parametrize("kind", ["ustar", "pax"])
def test_a_lost_header_loses_only_its_sample(read_tar_bytes: ReadBytes, junk: bytes, kind: str) -> None:
    data = tar_of(three_samples(prefix="é"), kind)
    for info in layout(data)[2:4]:  # the members of sample b
        start = info.offset_data - BLOCK
        items = read_tar_bytes(data[:start] + junk + data[info.offset_data :])
        assert [sample for sample in samples(items) if sample.key != "éb"] == [
            Sample("éa", "s.tar", *SAMPLES["a"], None),
            Sample("éc", "s.tar", *SAMPLES["c"], None),
        ]
        assert damage_codes(items) == ["damaged"]


def test_junk_between_two_members_of_a_sample_does_not_split_it(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(plain("a.jpg", b"1") + b"\x55" * BLOCK + plain("a.cls", b"4") + END)
    assert (samples(items), damage_codes(items)) == ([Sample("a", "s.tar", b"1", 4, None)], ["damaged"])


@pytest.mark.parametrize("size", [1, 100, 511, 512, 513, 5000, 20_000])
def test_a_file_of_random_bytes_is_one_damage_row(read_tar_bytes: ReadBytes, size: int) -> None:
    items = read_tar_bytes(random.Random(size).randbytes(size))
    assert (len(items), damage_codes(items)) == (1, ["damaged"])


def test_a_gzip_file_named_tar_is_one_damage_row(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(gzip.compress(tar_of(three_samples())))
    assert (len(items), damage_codes(items)) == (1, ["damaged"])


@pytest.mark.parametrize("data", [b"", END, b"\0" * 10_240], ids=["no bytes", "end marker", "an empty tar"])
def test_an_empty_tar_gives_one_chunk_with_one_row(read_tar_bytes: ReadBytes, shard: Shard, data: bytes) -> None:
    (chunk,) = chunked(read_tar_bytes(data), shard, 8)
    assert chunk.last
    assert [(failure.code, failure.is_image) for failure in chunk.failures] == [("empty", False)]


def test_a_missing_tar_is_one_row(tmp_path: Path) -> None:
    (item,) = read_shard(Shard(0, "s.tar", "tar", str(tmp_path / "s.tar"), 0, ""), Reading())
    assert isinstance(item, Failure)
    assert (item.key, item.stage, item.code) == ("s.tar@0", "shard", "unreadable")


def test_a_disk_failure_keeps_the_samples_before_it(read_tar_bytes: ReadBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tarfile.TarInfo.fromtarfile
    data = tar_of(three_samples())

    def failing(archive: tarfile.TarFile) -> tarfile.TarInfo:
        if archive.offset >= 2560:
            raise OSError(5, os.strerror(5))
        return original(archive)

    monkeypatch.setattr(tarfile.TarInfo, "fromtarfile", failing)
    items = read_tar_bytes(data)
    assert (samples(items), damage_codes(items)) == ([Sample("a", "s.tar", *SAMPLES["a"], None)], ["unreadable"])


@settings(derandomize=True, max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["ustar", "pax"]))
def test_corruption_loses_no_sample_before_it_and_never_raises(
    read_tar_bytes: ReadBytes, data: st.DataObject, kind: str
) -> None:
    good = tar_of(three_samples(prefix="é"), kind)
    start = data.draw(st.integers(0, padded_end(layout(good)[-1])))
    junk = data.draw(st.binary(min_size=1, max_size=600))
    items = read_tar_bytes(good[:start] + junk + good[start + len(junk) :])
    whole = samples_before(good, start)
    assert samples(items)[: len(whole)] == whole


@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_loses_at_most_its_sample(read_tar_bytes: ReadBytes, data: st.DataObject) -> None:
    good = tar_of(three_samples())
    place = data.draw(st.integers(0, padded_end(layout(good)[-1]) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))
    hit = next(info.name[0] for info in layout(good) if place < padded_end(info))
    kept = [sample for sample in samples(read_tar_bytes(bytes(bad))) if sample.key != hit]
    assert kept == [Sample(key, "s.tar", *SAMPLES[key], None) for key in SAMPLES if key != hit]
