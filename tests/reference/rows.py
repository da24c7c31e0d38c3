"""Rows one by one, as the schema describes them: the slow reference of `pipeline.explain.row_columns`."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from pipeline.explain.rows import NONFINITE, ImageFacts, MethodFacts, Row, failed_method_row
from pipeline.maps.codec import STORED, FloatArray, MapDtype


def explanation_row(
    image: ImageFacts,
    method: MethodFacts,
    map_uv: FloatArray,
    metrics: Mapping[str, float | list[float]],
    dtype: MapDtype,
    failure: tuple[str, str] | None = None,
) -> Row:
    """Return the row of one explanation; for a failure, or a map that is not finite, one without map and metrics."""
    if failure is not None or not np.isfinite(map_uv).all():
        return failed_method_row(image, method, *(failure or NONFINITE))
    low, high = float(map_uv.min()), float(map_uv.max())
    values = {name: value if np.isfinite(value).all() else None for name, value in metrics.items()}
    return asdict(image) | asdict(method) | values | {
        "map": stored(map_uv, low, high, dtype),
        "map_height": map_uv.shape[0],
        "map_width": map_uv.shape[1],
        "map_dtype": dtype,
        "map_min": low,
        "map_max": high,
        "degenerate": low == high,
    }  # fmt: skip


def stored(map_uv: FloatArray, low: float, high: float, dtype: MapDtype) -> bytes:
    """Return the bytes of a map, value by value of its range."""
    if dtype == "f32":
        return np.ascontiguousarray(map_uv, STORED["f32"]).tobytes()
    unit_uv = (map_uv.astype(np.float64) - low) / (high - low) if high > low else np.zeros(map_uv.shape)
    return np.ascontiguousarray(np.rint(unit_uv * 255) if dtype == "u8" else unit_uv, STORED[dtype]).tobytes()
