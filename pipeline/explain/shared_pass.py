"""The forward pass that all methods share, and what it says of every (image, target) pair.

Legend: B rows (image, target).
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.cams import Adapter, CamMethod
from pipeline.explain.batches import ImageBatch
from pipeline.explain.rows import ImageFacts, Row
from pipeline.model.evidence import Evidence


class SharedPass(NamedTuple):
    """Results of the shared forward pass: (image, target) pairs (evidence is None without any), and failure rows."""

    pairs: ImageBatch
    evidence: Evidence | None
    rules: list[str]
    failed: list[Row]

    def parts(self, methods: Mapping[str, CamMethod]) -> "Iterator[SharedPass]":
        """Yield the rows whose maps have the same shapes together; all rows, unless methods say otherwise."""
        if self.evidence is None:
            return
        adapters = [method for method in methods.values() if isinstance(method, Adapter)]
        groups = list(zip(*(adapter.groups(self.evidence) for adapter in adapters), strict=True))
        if len(set(groups)) <= 1:
            yield self
            return
        for group in dict.fromkeys(groups):
            rows = [row for row, other in enumerate(groups) if other == group]
            device = self.evidence.targets_B.device
            evidence = self.evidence.select(torch.tensor(rows, device=device))
            yield SharedPass(self.pairs.rows(rows), evidence, [self.rules[row] for row in rows], [])

    def facts(self) -> list[ImageFacts]:
        """Return what all methods' rows of each (image, target) pair share."""
        if self.evidence is None:
            return []
        evidence, outputs = self.evidence, self.evidence.outputs
        confidence_B, predicted_B = outputs.predictions(evidence.logits_BN)
        columns = (confidence_B, evidence.target_confidences_B, evidence.target_logits_B)
        confidences, target_confidences, target_logits = (_numbers(column_B) for column_B in columns)
        predicted = predicted_B.tolist() if outputs.has_confidences else [None] * len(predicted_B)
        return [
            ImageFacts(
                image_key=sample.key,
                shard=self.pairs.shard,
                chunk=self.pairs.chunk,
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
            )
            for i, (sample, target) in enumerate(zip(self.pairs.samples, evidence.targets_B.tolist(), strict=True))
        ]


def _numbers(column_B: Tensor) -> list[float | None]:
    """Return numbers, None for those that do not exist, such as confidences of raw outputs."""
    return [None if math.isnan(value) else value for value in column_B.tolist()]
