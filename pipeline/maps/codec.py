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
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

MapDtype = Literal["u8", "f16", "f32"]
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


def encode(map_uv: FloatArray, dtype: MapDtype = "u8") -> EncodedMap:
    """Encode one finite map (u, v) of any sign and range.

    Raises:
        ValueError: the map is not two-dimensional, is empty, or contains NaN or infinity.
    """
    if map_uv.ndim != 2 or not map_uv.size or not np.isfinite(map_uv).all():
        raise ValueError(f"a map must be two-dimensional and finite, this one has shape {map_uv.shape}")
    low, high = np.float32(map_uv.min()), np.float32(map_uv.max())
    stored = map_uv if dtype == "f32" else _quantised(_unit(map_uv, low, high), dtype)
    data = np.ascontiguousarray(stored, STORED[dtype]).tobytes()
    height, width = map_uv.shape
    return EncodedMap(data, height, width, dtype, float(low), float(high))


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


def _unit(map_uv: FloatArray, low: np.float32, high: np.float32) -> npt.NDArray[np.float64]:
    """Scale to [0, 1] in double precision, because the largest and smallest ranges overflow or vanish in float32."""
    span = float(high) - float(low)
    return (map_uv.astype(np.float64) - float(low)) / span if span > 0 else np.zeros(map_uv.shape)


def _quantised(unit: npt.NDArray[np.float64], dtype: MapDtype) -> npt.NDArray[np.float64]:
    return np.rint(unit * 255) if dtype == "u8" else unit
