"""Work units as blocks: arrays travel beside the pickle, and are copied once on their way to another process."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.data.arena import Arena
from pipeline.run.blocks import Block, pack, unpack

UINT8, FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)
LARGE = (4, 64, 64, 3)


def side_by_side(count: int, dtype: np.dtype[Any] = UINT8) -> list[Any]:
    arena = Arena(1 << 20)
    arrays = [arena.room(LARGE, dtype) for _ in range(count)]
    for number, array in enumerate(arrays):
        array[:] = np.random.default_rng(number).integers(0, 256, LARGE)
    return arrays


def address(buffer: Any) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


def arrays_of(block: Block) -> pa.Buffer:
    buffer: pa.Buffer = block["arrays"].chunk(0).buffers()[2]
    return buffer


@pytest.mark.parametrize("items", [[], ["a", {"b": 1}], [np.arange(5)]], ids=["nothing", "small", "a small array"])
def test_small_objects_stay_in_the_pickle(items: Sequence[Any]) -> None:
    block = pack(items)
    assert block.num_rows == 1
    assert arrays_of(block).size == 0
    assert str(list(unpack(block))) == str(list(items))


@pytest.mark.parametrize("dtype", [UINT8, FLOAT32])
def test_arrays_side_by_side_are_packed_and_unpacked_without_a_copy(dtype: np.dtype[Any]) -> None:
    arrays = side_by_side(3, dtype)
    block = pack([*arrays, "and more"])
    assert address(arrays_of(block)) == arrays[0].ctypes.data
    *found, more = unpack(block)
    assert more == "and more"
    for one, array in zip(found, arrays, strict=True):
        assert one.ctypes.data == array.ctypes.data
        assert one.dtype == dtype
        np.testing.assert_array_equal(one, array)
        assert not one.flags.writeable


def test_arrays_that_lie_apart_are_joined() -> None:
    arrays = [side_by_side(2)[1], side_by_side(1)[0], np.asfortranarray(side_by_side(1)[0]), side_by_side(1)[0][:, ::2]]
    for one, array in zip(unpack(pack(arrays)), arrays, strict=True):
        np.testing.assert_array_equal(one, array)


def test_a_block_holds_the_memory_of_its_arrays() -> None:
    block = pack(side_by_side(2))
    expected = side_by_side(2)
    for one, array in zip(unpack(block), expected, strict=True):
        np.testing.assert_array_equal(one, array)


def test_the_pickle_of_a_block_holds_no_pixels() -> None:
    block = pack(side_by_side(2))
    beside: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(block, protocol=5, buffer_callback=beside.append)
    assert len(stream) + block["items"].chunk(0).buffers()[2].size < 8192
    assert address(arrays_of(block)) in [address(buffer.raw()) for buffer in beside]


def test_rows_of_a_block_that_is_a_slice_are_found() -> None:
    blocks = pa.concat_tables([pack(side_by_side(count)) for count in (1, 2, 3)])
    for block in (blocks.slice(1, 2), blocks.combine_chunks().slice(1, 2)):
        found = list(unpack(block))
        assert len(found) == 5
        np.testing.assert_array_equal(found[4], side_by_side(3)[2])


def test_a_block_without_rows_has_no_objects() -> None:
    assert list(unpack(pa.table({}))) == []


def test_an_arena_gives_room_side_by_side_until_it_is_closed_or_full() -> None:
    arena = Arena(10)
    first, second = arena.room((2, 3), UINT8), arena.room((4,), UINT8)
    assert second.ctypes.data == first.ctypes.data + 6
    large = arena.room((25,), UINT8)
    assert large.shape == (25,)
    following = arena.room((4,), UINT8)
    arena.close()
    assert arena.room((4,), UINT8).ctypes.data != following.ctypes.data + 4
