"""Tars of very many tiny members: each is read, and memory grows by little more than their names."""

import os
import sys
import time
from pathlib import Path

import pytest
from gauges import MEGABYTE, peak
from tars import BLOCK, END, plain, with_checksum

from pipeline.data.sources import Reading, Shard, chunked, read_shard


def write_tiny(path: Path, members: int) -> Shard:
    """Write a tar of members of one byte each, named by number."""
    block = bytearray(plain("00000000.jpg", b"1"))
    with path.open("wb", buffering=MEGABYTE) as file:
        for number in range(members):
            block[:8] = b"%08d" % number
            file.write(with_checksum(block[:BLOCK]) + block[BLOCK:])
        file.write(END)
    return Shard(0, path.name, "tar", str(path), path.stat().st_size, "")


@pytest.mark.parametrize(
    ("members", "megabytes"),
    [
        (20_000, 30),
        pytest.param(1_000_000, 300, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)]),
    ],
)
def test_every_one_of_many_tiny_members_is_a_sample(tmp_path: Path, members: int, megabytes: int) -> None:
    shard = write_tiny(tmp_path / "s.tar", members)
    peak(os.getpid())
    before, began = peak(os.getpid()), time.monotonic()
    images = chunks = 0
    for chunk in chunked(read_shard(shard, Reading()), shard, 128):
        assert not chunk.failures
        assert int(chunk.samples[0].key) == images
        images, chunks = images + len(chunk.samples), chunks + 1
    grown, seconds = (peak(os.getpid()) - before) / MEGABYTE, time.monotonic() - began
    sys.stdout.write(f"{members:,} members: {seconds:.1f} s, {grown:.0f} MB\n")  # shown with -s
    assert (images, chunks, chunk.last) == (members, -(-members // 128), True)
    assert grown < megabytes
