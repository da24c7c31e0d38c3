"""Builds the rows of a run: explanations, failed methods, failed images, and damage to shards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.cams import Adapter, CamMethod
from pipeline.data.decode import DecodedSample
from pipeline.data.sources.shards import Failure, Metadata
from pipeline.maps.codec import FloatArray, MapDtype, encode

Row = dict[str, Any]
NONFINITE = ("nonfinite", "the method's map contains NaN or infinity")


@dataclass(frozen=True)
class ImageFacts:
    """Column values shared by all rows of one (image, target); the fields are column names.

    A run that names no metadata has no such column.
    """

    image_key: str
    shard: str
    chunk: int
    image_height: int
    image_width: int
    label: int | None
    predicted: int | None
    confidence: float | None
    target: int
    target_rule: str
    target_confidence: float | None
    target_logit: float | None
    metadata: Metadata = ()


@dataclass(frozen=True)
class MethodFacts:
    """Column values shared by all rows of one method; the fields are column names."""

    method: str
    method_params: str
    layer: str


def explanation_row(
    image: ImageFacts,
    method: MethodFacts,
    map_uv: FloatArray,
    metrics: Mapping[str, float | list[float]],
    dtype: MapDtype,
    failure: Callable[[], tuple[str, str]] = lambda: NONFINITE,
) -> Row:
    """Return the row of one explanation; for a map that is not finite, a failure row without map and metrics.

    Args:
        image, method: the columns that rows share.
        map_uv: the map.
        metrics: the values of the metrics, by name.
        dtype: encoding of the map.
        failure: returns the code and the detail of a map that is not finite.
    """
    if not np.isfinite(map_uv).all():
        return failed_method_row(image, method, *failure())
    encoded = encode(map_uv, dtype)
    values = {name: value if np.isfinite(value).all() else None for name, value in metrics.items()}
    return asdict(image) | asdict(method) | values | {
        "map": encoded.data,
        "map_height": encoded.height,
        "map_width": encoded.width,
        "map_dtype": encoded.dtype,
        "map_min": encoded.low,
        "map_max": encoded.high,
        "degenerate": encoded.low == encoded.high,
    }  # fmt: skip


def failure_of(method: CamMethod, image: ImageFacts) -> Callable[[], tuple[str, str]]:
    """Return a function that says why a method has no finite map of an image and class: a code and a sentence."""

    def reason() -> tuple[str, str]:
        said = method.failure(image.image_key, image.target) if isinstance(method, Adapter) else ""
        return (method.name, said) if said else NONFINITE

    return reason


def failed_method_row(image: ImageFacts, method: MethodFacts, code: str, detail: str) -> Row:
    """Return the failure row of one method on one image; other methods may have succeeded on it."""
    return asdict(image) | asdict(method) | _error("explain", code, detail)


def failure_row(failure: Failure, chunk: int, sample: DecodedSample | None = None) -> Row:
    """Return the only row of a failed image or of damage to a shard."""
    row: Row = {"image_key": failure.key, "shard": failure.shard, "chunk": chunk, "metadata": failure.metadata}
    if sample is not None:
        row |= {"image_height": sample.size[0], "image_width": sample.size[1], "label": sample.label}
        row["metadata"] = sample.metadata
    return row | _error(failure.stage, failure.code, failure.detail)


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Convert rows to a table with the run's schema; columns that a row does not have are null."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def _error(stage: str, code: str, detail: str) -> Row:
    return {"error_stage": stage, "error_code": code, "error_detail": detail}
