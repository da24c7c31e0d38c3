"""Encodes saliency maps as bytes and decodes them within a stated error bound.

A map is stored at its own grid resolution, row by row, together with its range [map_min, map_max].
With r = map_max - map_min, a value v and its decoded value v', the error |v' - v| is at most

    u8   r / 510      8-bit code round(255 (v - map_min) / r)
    f16  r / 4096     half precision of (v - map_min) / r
    f32  0            the values themselves

plus the rounding error of float32. The bytes are not compressed here; Parquet compresses its pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from pipeline.maps.dtypes import MapDtype

MAP_DTYPES: tuple[str, ...] = get_args(MapDtype)
STORED: dict[str, Any] = {"u8": np.dtype("u1"), "f16": np.dtype("<f2"), "f32": np.dtype("<f4")}

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EncodedMap:
    """An encoded map, with the values of the map columns of a row."""

    data: bytes
    height: int
    width: int
    dtype: MapDtype
    low: float
    high: float


@dataclass(frozen=True)
class EncodedStack:
    """Encoded maps of one grid: the bytes of each, and their smallest and largest values, (N,) float32."""

    data: list[bytes]
    low_N: FloatArray
    high_N: FloatArray


def encode(map_uv: FloatArray, dtype: MapDtype = "u8") -> EncodedMap:
    """Encode one finite map (u, v) of any sign and range.

    Raises:
        ValueError: the map is not two-dimensional, is empty, or contains NaN or infinity.
    """
    one = encode_stack(map_uv[None], dtype)
    height, width = map_uv.shape
    return EncodedMap(one.data[0], height, width, dtype, float(one.low_N[0]), float(one.high_N[0]))


def encode_stack(maps_Nuv: FloatArray, dtype: MapDtype = "u8") -> EncodedStack:
    """Encode finite maps (N, u, v) of one grid, each with its own range; bit for bit as each alone.

    Raises:
        ValueError: the maps are not two-dimensional, are empty, or contain NaN or infinity.
    """
    if maps_Nuv.ndim != 3 or 0 in maps_Nuv.shape[1:] or not np.isfinite(maps_Nuv).all():
        raise ValueError(f"a map must be two-dimensional and finite, this one has shape {maps_Nuv.shape[1:]}")
    cells = maps_Nuv.shape[1] * maps_Nuv.shape[2]
    flat_NP = np.ascontiguousarray(maps_Nuv, np.float32).reshape(len(maps_Nuv), cells)
    low_N, high_N = _ranges(maps_Nuv, flat_NP)
    stored_NP = flat_NP if dtype == "f32" else _quantised(_unit(flat_NP, low_N, high_N), dtype)
    data = np.ascontiguousarray(stored_NP, STORED[dtype]).tobytes()
    step = cells * STORED[dtype].itemsize
    return EncodedStack([data[start : start + step] for start in range(0, len(data), step)], low_N, high_N)


def decode(encoded: EncodedMap) -> FloatArray:
    """Decode a map to float32 (u, v), within the stated error bound.

    Raises:
        ValueError: the dtype is unknown, or the number of bytes does not fit the shape and dtype.
    """
    ranges_12 = np.array([[encoded.low, encoded.high]], dtype=np.float32)
    maps_1uv = decode_stack([encoded.data], encoded.height, encoded.width, encoded.dtype, ranges_12)
    return maps_1uv.reshape(encoded.height, encoded.width)


def decode_stack(data: Sequence[bytes], height: int, width: int, dtype: str, ranges_N2: FloatArray) -> FloatArray:
    """Decode N maps of the same grid and dtype, (N, u, v); `ranges_N2` holds (map_min, map_max) of each.

    Raises:
        ValueError: the dtype is unknown, or the number of bytes does not fit the shape and dtype.
    """
    if dtype not in STORED:
        raise ValueError(f"unknown map dtype '{dtype}', known: {', '.join(STORED)}")
    needed = height * width * STORED[dtype].itemsize
    if any(len(item) != needed for item in data):
        raise ValueError(f"a {dtype} map of {height} x {width} cells has {needed} bytes")
    stored = np.frombuffer(b"".join(data), STORED[dtype])
    values_NP = stored.reshape(len(data), height * width).astype(np.float64)
    if dtype != "f32":
        low_N1, high_N1 = ranges_N2[:, :1].astype(np.float64), ranges_N2[:, 1:].astype(np.float64)
        values_NP = low_N1 + (values_NP / 255 if dtype == "u8" else values_NP) * (high_N1 - low_N1)
    return values_NP.reshape(len(data), height, width).astype(np.float32)


def _ranges(maps_Nuv: FloatArray, flat_NP: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the smallest and the largest value of each map; of two zeros, the order in memory chooses the sign."""
    if maps_Nuv.flags.c_contiguous:
        return flat_NP.min(1), flat_NP.max(1)
    lows, highs = [map_uv.min() for map_uv in maps_Nuv], [map_uv.max() for map_uv in maps_Nuv]
    return np.array(lows, np.float32), np.array(highs, np.float32)


def _unit(flat_NP: FloatArray, low_N: FloatArray, high_N: FloatArray) -> npt.NDArray[np.float64]:
    """Scale to [0, 1] in double precision, because the largest and smallest ranges overflow or vanish in float32."""
    low_N1 = low_N[:, None].astype(np.float64)
    span_N1 = high_N[:, None].astype(np.float64) - low_N1
    varies_N1 = span_N1 > 0
    unit_NP: npt.NDArray[np.float64] = (flat_NP - low_N1) / np.where(varies_N1, span_N1, 1.0)
    unit_NP[~varies_N1[:, 0]] = 0.0
    return unit_NP


def _quantised(unit_NP: npt.NDArray[np.float64], dtype: MapDtype) -> npt.NDArray[np.float64]:
    return np.rint(unit_NP * 255) if dtype == "u8" else unit_NP
