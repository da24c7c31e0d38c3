"""Objects as blocks of Ray Data: one row that Ray cannot split, with large arrays beside the pickle instead of in it.

Arrays in a pickle are copied when it is written and when it is read, and that stops every thread of Python. Beside it,
Ray copies them once, into its store, and a worker reads them there: they are then read-only.
"""

import pickle
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Block: TypeAlias = pa.Table
_LEAST_BESIDE = 1 << 14
"""Smaller arrays stay in the pickle."""


def pack(items: Sequence[object]) -> Block:
    """Pickle objects into one row: the pickle, the bytes of their large arrays, and the length of each."""
    arrays: list[npt.NDArray[np.uint8]] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < _LEAST_BESIDE:
                return True
            arrays.append(np.frombuffer(raw, np.uint8))
            return False

    stream = pickle.dumps(items, protocol=5, buffer_callback=stays)
    lengths = [[array.nbytes for array in arrays]]
    return pa.table(
        {"items": _cell(pa.py_buffer(stream)), "arrays": _cell(_side_by_side(arrays)),
         "lengths": pa.array(lengths, pa.list_(pa.int64()))}
    )  # fmt: skip


def unpack(block: Block) -> Iterator[Any]:
    """Yield the objects of a block; their large arrays are views of it."""
    for row in range(block.num_rows):  # a task without work units yields a block without columns
        stream, arrays = block["items"][row].as_buffer(), block["arrays"][row].as_buffer()
        lengths = block["lengths"][row].as_py()
        starts = np.cumsum([0, *lengths]).tolist()
        buffers = [arrays.slice(start, length) for start, length in zip(starts, lengths, strict=False)]
        yield from pickle.loads(stream, buffers=buffers)  # noqa: S301 - only `pack` writes it


def _cell(data: pa.Buffer) -> pa.Array:
    """Return an array of one value without copying it."""
    ends = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, data])


def _side_by_side(arrays: Sequence[npt.NDArray[np.uint8]]) -> pa.Buffer:
    """Return arrays as one buffer; they are copied only if they do not lie side by side, as those of an `Arena` do."""
    starts = [array.ctypes.data for array in arrays]
    ends = [start + array.nbytes for start, array in zip(starts, arrays, strict=True)]
    if not arrays:
        return pa.py_buffer(b"")
    if starts[1:] == ends[:-1]:
        return pa.foreign_buffer(starts[0], ends[-1] - starts[0], base=arrays)
    return pa.py_buffer(np.concatenate(arrays))
