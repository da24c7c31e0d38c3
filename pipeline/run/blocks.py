"""Objects as blocks of Ray Data: one row that Ray cannot split, with large arrays beside the pickle instead of in it.

Arrays in a pickle are copied when it is written and when it is read, and that stops every thread of Python. Beside it,
Ray copies them once, into its store, and a worker reads them there: they are then read-only.
"""

import itertools
import pickle
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

Block: TypeAlias = pa.Table
_LEAST_BESIDE = 1 << 14
"""Smaller arrays stay in the pickle."""


def pack(items: Sequence[object]) -> Block:
    """Pickle objects into one row: the pickle, the bytes of their large arrays, and the length of each."""
    arrays: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _LEAST_BESIDE:
            return True
        arrays.append(raw)
        return False

    stream = pickle.dumps(items, protocol=5, buffer_callback=stays)
    lengths = [[array.nbytes for array in arrays]]
    return pa.table(
        {"items": _cell(pa.py_buffer(stream)), "arrays": _cell(_side_by_side(arrays)),
         "lengths": pa.array(lengths, pa.list_(pa.int64()))}
    )  # fmt: skip


def unpack(block: Block) -> Iterator[Any]:
    """Yield the objects of a block; their large arrays are views of it."""
    if not block.num_rows:  # a task without work units yields a block without columns
        return
    columns = (_values(block["items"]), _values(block["arrays"]), block["lengths"].to_pylist())
    for stream, arrays, lengths in zip(*columns, strict=True):
        starts = itertools.accumulate(lengths, initial=0)
        buffers = [arrays.slice(start, length) for start, length in zip(starts, lengths, strict=False)]
        yield from pickle.loads(stream, buffers=buffers)  # noqa: S301 - only `pack` writes it


def _values(column: pa.ChunkedArray) -> Iterator[pa.Buffer]:
    """Yield the values of a column where they are; a scalar of Arrow would be a copy."""
    for chunk in column.chunks:
        _, ends, data = chunk.buffers()
        ends_R = np.frombuffer(ends, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        yield from (data.slice(start, end - start) for start, end in itertools.pairwise(ends_R))


def _cell(data: pa.Buffer) -> pa.Array:
    """Return an array of one value without copying it."""
    ends = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, data])


def _side_by_side(arrays: Sequence[memoryview]) -> pa.Buffer:
    """Return arrays as one buffer; they are copied only if they do not lie side by side, as those of an `Arena` do."""
    if not arrays:
        return pa.py_buffer(b"")
    buffers = [pa.py_buffer(array) for array in arrays]
    if all(left.address + left.size == right.address for left, right in itertools.pairwise(buffers)):
        return pa.foreign_buffer(buffers[0].address, sum(buffer.size for buffer in buffers), base=buffers)
    return pa.py_buffer(np.concatenate([np.frombuffer(array, np.uint8) for array in arrays]))
