"""Helpers that damage small runs and read the problems found by verify."""

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from handmade import PARTS, RunMaker

from pipeline.results.verify import verify
from pipeline.storage.parts import Footer, encode_part
from pipeline.storage.run_folder import PartName, Receipt

FIRST, SECOND, OTHER_SHARD = PARTS


def replace_part(run: RunMaker, part: PartName, table: pa.Table, footer: Footer | None = None) -> None:
    """Replace the rows of a part and write a matching receipt, so that only the rows reveal the change."""
    data = encode_part(table, footer or run.footer(part))
    (run.folder / part.file).write_bytes(data)
    (run.folder / part.receipt).write_bytes(Receipt.of(part, data, table.num_rows).to_json())


def with_column(table: pa.Table, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    place = table.column_names.index(name)
    field = table.schema.field(place)
    return table.set_column(place, field, pa.array(change(table[name].to_pylist()), field.type))


def only_problem(run: RunMaker) -> str:
    (problem,) = verify(run.store).problems
    return problem


def flipped(data: bytes, chance: random.Random, *, footer: bool) -> bytes:
    """Return a Parquet file with one bit flipped, in its footer or anywhere before it."""
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    damaged = bytearray(data)
    damaged[chance.randrange(start, len(data)) if footer else chance.randrange(start)] ^= 1 << chance.randrange(8)
    return bytes(damaged)
