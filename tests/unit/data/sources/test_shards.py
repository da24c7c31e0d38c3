"""Chunks, limits and clean text."""

from collections.abc import Iterator

import pytest

from pipeline.data.sources.shards import Failure, Item, Sample, Shard, chunked, clean_text, damage, taking


def images(count: int) -> list[Item]:
    return [Sample(f"k{i}", "s.tar", b"", None, None) for i in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(1, 3, [1]), (3, 3, [3]), (4, 3, [3, 1]), (6, 3, [3, 3]), (3, 1, [1, 1, 1])]
)
def test_chunks_contain_the_requested_number_of_items(shard: Shard, count: int, size: int, sizes: list[int]) -> None:
    assert [len(chunk.samples) for chunk in chunked(images(count), shard, size)] == sizes


@pytest.mark.parametrize("count", [1, 3, 6, 7])
def test_only_the_last_chunk_is_marked_and_ordinals_start_at_zero(shard: Shard, count: int) -> None:
    chunks = list(chunked(images(count), shard, 3))
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_chunks_keep_the_order_of_items_and_their_shard(shard: Shard) -> None:
    chunks = list(chunked(images(7), shard, 3))
    assert [sample for chunk in chunks for sample in chunk.samples] == images(7)
    assert all(chunk.shard is shard for chunk in chunks)


def test_failures_count_for_the_size_of_a_chunk(shard: Shard) -> None:
    failed = Failure("f", "s.tar", "read", "label", "")
    (first, second) = chunked([failed, *images(3)], shard, 2)
    assert (first.samples, first.failures) == ((images(3)[0],), (failed,))
    assert (second.samples, second.failures) == (tuple(images(3)[1:]), ())


def test_a_shard_without_items_gives_one_chunk_with_one_row(shard: Shard) -> None:
    (chunk,) = chunked([], shard, 3)
    assert (chunk.ordinal, chunk.last, chunk.samples) == (0, True, ())
    assert chunk.failures == (Failure("s.tar@0", "s.tar", "shard", "empty", "the shard contains no image"),)


def test_chunks_are_yielded_before_all_items_are_read(shard: Shard) -> None:
    read: list[int] = []

    def items() -> Iterator[Item]:
        for i, item in enumerate(images(9)):
            read.append(i)
            yield item

    next(iter(chunked(items(), shard, 2)))
    assert len(read) == 3


def test_damage_rows_do_not_count_for_the_limit(shard: Shard) -> None:
    first, second, third = images(3)
    row = damage(shard, 512, "damaged", "")
    assert list(taking([row, first, row, second, row, third], 2)) == [row, first, row, second]


def test_failed_images_count_for_the_limit(shard: Shard) -> None:
    failed = Failure("f", "s.tar", "read", "label", "")
    assert list(taking([failed, *images(3)], 2)) == [failed, images(3)[0]]


@pytest.mark.parametrize(("limit", "count"), [(None, 5), (0, 0), (3, 3), (5, 5), (9, 5)])
def test_taking_stops_at_the_limit(limit: int | None, count: int) -> None:
    assert list(taking(images(5), limit)) == images(count)


def test_a_damage_row_is_not_an_image_and_its_key_contains_the_offset(shard: Shard) -> None:
    row = damage(shard, 1024, "damaged", "why")
    assert row == Failure("s.tar@1024", "s.tar", "shard", "damaged", "why")
    assert not row.is_image
    assert Failure("k", "s.tar", "read", "label", "").is_image


@pytest.mark.parametrize(
    ("name", "text"), [("plain/é🦊.jpg", "plain/é🦊.jpg"), ("caf\udce9", "caf\\xe9"), ("\udcff\udcfe", "\\xff\\xfe")]
)
def test_any_name_becomes_valid_text(name: str, text: str) -> None:
    assert clean_text(name) == text
    assert clean_text(name).encode()
