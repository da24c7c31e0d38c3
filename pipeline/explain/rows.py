"""The rows of a run: explanations, failed methods, failed images, and damage to shards.

This module does not import torch, so that a worker can make tables of rows while its model runs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.data.decode import DecodedSample
from pipeline.data.sources.shards import Failure, Metadata

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
    image_offset: int | None = None
    image_bytes: int | None = None
    image_row: int | None = None
    sample_offset: int | None = None
    sample_bytes: int | None = None


@dataclass(frozen=True)
class MethodFacts:
    """Column values shared by all rows of one method; the fields are column names."""

    method: str
    method_params: str
    layer: str


@dataclass(frozen=True)
class PairFacts:
    """What all methods' rows of (image, target) pairs share, of all pairs of a batch.

    Attributes:
        shard, chunk: name of the shard, and ordinal of the chunk in it.
        samples: the image of each pair.
        rules: how each target was chosen.
        targets_B: the targets.
        predicted_B: the predicted classes; None for raw outputs.
        confidences_B, target_confidences_B, target_logits_B: numbers, NaN where there is none.
    """

    shard: str
    chunk: int
    samples: tuple[DecodedSample, ...]
    rules: tuple[str, ...]
    targets_B: npt.NDArray[Any]
    predicted_B: npt.NDArray[Any] | None
    confidences_B: npt.NDArray[Any]
    target_confidences_B: npt.NDArray[Any]
    target_logits_B: npt.NDArray[Any]

    def each(self) -> list[ImageFacts]:
        """Return the facts of each pair."""
        predicted = [None] * len(self.samples) if self.predicted_B is None else self.predicted_B.tolist()
        numbers = (self.confidences_B, self.target_confidences_B, self.target_logits_B)
        confidences, target_confidences, target_logits = (_numbers(column_B) for column_B in numbers)
        return [
            ImageFacts(
                image_key=sample.key,
                shard=self.shard,
                chunk=self.chunk,
                image_height=sample.size[0],
                image_width=sample.size[1],
                label=sample.label,
                predicted=predicted[i],
                confidence=confidences[i],
                target=target,
                target_rule=self.rules[i],
                target_confidence=target_confidences[i],
                target_logit=target_logits[i],
                metadata=sample.metadata,
                **sample.extent._asdict(),
            )
            for i, (sample, target) in enumerate(zip(self.samples, self.targets_B.tolist(), strict=True))
        ]


def joined_pairs(parts: Sequence[PairFacts]) -> PairFacts:
    """Join the facts of pairs of one chunk."""
    first = parts[0]
    predicted = [part.predicted_B for part in parts if part.predicted_B is not None]
    return PairFacts(
        first.shard,
        first.chunk,
        tuple(sample for part in parts for sample in part.samples),
        tuple(rule for part in parts for rule in part.rules),
        np.concatenate([part.targets_B for part in parts]),
        np.concatenate(predicted) if predicted else None,
        np.concatenate([part.confidences_B for part in parts]),
        np.concatenate([part.target_confidences_B for part in parts]),
        np.concatenate([part.target_logits_B for part in parts]),
    )


def failed_method_row(image: ImageFacts, method: MethodFacts, code: str, detail: str) -> Row:
    """Return the failure row of one method on one image; other methods may have succeeded on it."""
    return asdict(image) | asdict(method) | _error("explain", code, detail)


def failure_row(failure: Failure, chunk: int, sample: DecodedSample | None = None) -> Row:
    """Return the only row of a failed image or of damage to a shard."""
    row: Row = {"image_key": failure.key, "shard": failure.shard, "chunk": chunk, "metadata": failure.metadata}
    if sample is not None:
        row |= {"image_height": sample.size[0], "image_width": sample.size[1], "label": sample.label}
        row["metadata"] = sample.metadata
    row |= (failure if sample is None else sample).extent._asdict()
    return row | _error(failure.stage, failure.code, failure.detail)


def to_table(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Convert rows to a table with the run's schema; columns that a row does not have are null."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def _numbers(column_B: npt.NDArray[Any]) -> list[float | None]:
    """Return numbers, None for those that do not exist, such as confidences of raw outputs."""
    return [None if value != value else value for value in column_B.tolist()]  # NaN alone differs from itself


def _error(stage: str, code: str, detail: str) -> Row:
    return {"error_stage": stage, "error_code": code, "error_detail": detail}
