"""Maps in rows of a run and in Arrow tables, decoded to arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.maps.codec import EncodedMap, FloatArray, decode, decode_stack

MAP_COLUMNS = ("map", "map_height", "map_width", "map_dtype", "map_min", "map_max")


def decode_row(row: Mapping[str, Any]) -> FloatArray:
    """Decode the map of a row with the map columns, (u, v)."""
    return decode(EncodedMap(*(row[name] for name in MAP_COLUMNS)))


def decode_table(table: pa.Table) -> FloatArray:
    """Decode the maps of a table with the map columns, (N, u, v), in its order.

    Raises:
        ValueError: the maps do not all have the same grid and dtype.
    """
    if not table.num_rows:
        return np.empty((0, 0, 0), np.float32)
    kinds = {tuple(row.values()) for row in table.select(["map_height", "map_width", "map_dtype"]).to_pylist()}
    if len(kinds) > 1:
        raise ValueError("the maps have several grids or encodings; narrow the condition to one layer")
    ((height, width, dtype),) = kinds
    ranges_N2 = np.stack([table["map_min"].to_numpy(), table["map_max"].to_numpy()], axis=1)
    return decode_stack(table["map"].to_pylist(), height, width, dtype, ranges_N2)


def enlarged_maps(maps_Nuv: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Upsample maps (N, u, v) to (N, H, W), bilinearly, like heat maps."""
    import torch  # slow to import, and not needed to read tables

    from pipeline.maps.heatmaps import upsample

    if not len(maps_Nuv):
        return np.empty((0, *size), np.float32)
    enlarged: FloatArray = upsample(torch.from_numpy(maps_Nuv)[:, None], size)[:, 0].numpy()
    return enlarged
