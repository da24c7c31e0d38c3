"""Loads: every chunk of a shard once, and full when they should be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import LIMITS, noise, saved
from tars import tar_of

from pipeline import loads
from pipeline.framing import Preprocess
from pipeline.loads import Recipe
from pipeline.sources import Reading, Shard

SMALL = Recipe(Reading(), Preprocess(16, None), LIMITS, chunk_images=2, load_bytes=0)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Eleven images: five chunks of two, one of one."""
    data = tar_of([(f"{index:02d}.jpg", saved(noise(20, 20), "JPEG")) for index in range(11)])
    path = tmp_path / "s.tar"
    path.write_bytes(data)
    return Shard(0, "s.tar", "tar", str(path), len(data), "")


def ordinals(recipe: Recipe, shard: Shard) -> list[list[int]]:
    return [[decoded.chunk.ordinal for decoded in load] for load in recipe.loads(shard)]


def test_short_runs_send_each_chunk_by_itself(shard: Shard) -> None:
    assert ordinals(SMALL, shard) == [[0], [1], [2], [3], [4], [5]]


def test_a_load_is_full_of_encoded_bytes(shard: Shard) -> None:
    (first,), *_ = SMALL.loads(shard)
    recipe = replace(SMALL, load_bytes=first.encoded_bytes + 1)
    assert ordinals(recipe, shard) == [[0, 1], [2, 3], [4, 5]]


def test_a_load_is_full_of_pixels(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "MOST_PIXEL_BYTES", 3 * 2 * 16 * 16 * 3)
    assert ordinals(replace(SMALL, load_bytes=10**9), shard) == [[0, 1, 2], [3, 4, 5]]
    monkeypatch.setattr(loads, "MOST_PIXEL_BYTES", 1)
    assert ordinals(replace(SMALL, load_bytes=10**9), shard) == [[0], [1], [2], [3], [4], [5]]


def test_chunks_that_are_done_are_left_out_and_the_others_stay_what_they_are(shard: Shard) -> None:
    whole = {load[0].chunk.ordinal: load[0] for load in SMALL.loads(shard)}
    assert [ordinal for ordinal, chunk in whole.items() if chunk.chunk.last] == [5]
    rest = {load[0].chunk.ordinal: load[0] for load in SMALL.loads(shard, {1, 4})}
    assert sorted(rest) == [0, 2, 3, 5]
    for ordinal, chunk in rest.items():
        assert (chunk.chunk, chunk.samples) == (whole[ordinal].chunk, whole[ordinal].samples)
        np.testing.assert_array_equal(chunk.pixels_NHWC, whole[ordinal].pixels_NHWC)
