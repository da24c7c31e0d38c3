"""The rows of a run: explanations, methods that failed on an image, images that failed, damage to shards."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.decode import DecodedSample
from pipeline.data.sources.shards import Failure
from pipeline.maps.codec import FloatArray, MapDtype, encode

Row = dict[str, Any]


@dataclass(frozen=True)
class ImageFacts:
    """What the rows of one (image, target) have in common; the fields are columns of the part."""

    image_key: str
    shard: str
    chunk: int
    image_height: int
    image_width: int
    label: int | None
    predicted: int
    confidence: float
    target: int
    target_rule: str
    target_confidence: float
    target_logit: float


@dataclass(frozen=True)
class MethodFacts:
    """What the rows of one method have in common; the fields are columns of the part."""

    method: str
    method_params: str
    layer: str


def explanation_row(
    image: ImageFacts,
    method: MethodFacts,
    map_uv: FloatArray,
    metrics: Mapping[str, float | list[float]],
    dtype: MapDtype,
) -> Row:
    """Make the row of one explanation; a map that is not finite makes a row with an error and no map."""
    if not np.isfinite(map_uv).all():
        return failed_method_row(image, method, "nonfinite", "the method gave NaN or infinity on this image")
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


def failed_method_row(image: ImageFacts, method: MethodFacts, code: str, detail: str) -> Row:
    """Make the row of a method that failed on an image on which others may have gone well."""
    return asdict(image) | asdict(method) | _error("explain", code, detail)


def failure_row(failure: Failure, chunk: int, sample: DecodedSample | None = None) -> Row:
    """Make the one row of an image that failed, or of damage to a shard."""
    row: Row = {"image_key": failure.key, "shard": failure.shard, "chunk": chunk}
    if sample is not None:
        row |= {"image_height": sample.size[0], "image_width": sample.size[1], "label": sample.label}
    return row | _error(failure.stage, failure.code, failure.detail)


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Put rows into the run's schema; columns a row does not name are null."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def _error(stage: str, code: str, detail: str) -> Row:
    return {"error_stage": stage, "error_code": code, "error_detail": detail}
