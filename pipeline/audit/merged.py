"""Merges findings that share their images: one finding with several kinds of evidence, and one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.audit.findings import Finding

_IMAGES_OF: Mapping[str, str] = {
    "watermark": "class", "background": "class", "colour": "class", "shard_labels": "shard", "shard_failures": "shard",
    "failures": "run", "method": "method", "slice": "slice", "label_order": "labels",
}  # fmt: skip
"""Which images a kind of finding is about: findings about the same class, shard or method share them."""


def merged(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Group ranked findings that are about the same images; the first of a group is the one that explains most.

    The groups keep the order of their highest ranked finding. A patch comes first in its group, because it says most
    precisely where to look. Other kinds keep their rank, so that the larger effect leads.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((_IMAGES_OF[finding.kind], finding.subject), []).append(finding)
    return [sorted(group, key=lambda finding: finding.kind != "watermark") for group in groups.values()]


def to_json(group: Sequence[Finding], picture: Mapping[str, Any] | None) -> dict[str, Any]:
    """Convert a merged finding to plain JSON: the fields of the first, all kinds of evidence, and the picture."""
    return {**group[0].to_json(), "evidence": [finding.to_json() for finding in group], "picture": picture}
