"""Describes methods and metrics for programs: what `catalogue` prints, as values of JSON."""

import dataclasses
import inspect
import json
from typing import Any

from pipeline.cams import ADAPTERS, METHODS
from pipeline.cams.base import Paper
from pipeline.metrics import METRICS
from pipeline.results.catalogue import RESNET50, VIT_B_16, adapter_rows, method_rows, metric_rows


def method_facts() -> list[dict[str, Any]]:
    """Return one object per method: name, paper, needs, cost per image, parameters with defaults, and presets."""
    facts = []
    for (name, kind), row in zip(METHODS.items(), method_rows(), strict=True):
        attentive = kind().needs.attention
        cost = kind().cost(VIT_B_16 if attentive else RESNET50)
        facts.append(
            {
                **_of(name, kind),
                "interpretation": bool(kind.interpretation),
                "needs": row["needs"].split(", "),
                "cost": {
                    "network": "ViT-B/16" if attentive else "ResNet-50",
                    "forwards": cost.forwards,
                    "head_passes": cost.head_passes,
                    "backwards": cost.backwards,
                },
            }
        )
    return [*facts, *(_of(row["method"], ADAPTERS[row["method"]]) for row in adapter_rows())]


def metric_facts() -> list[dict[str, Any]]:
    """Return one object per metric: name, paper, what it reads, unit, direction, cost, verdict and parameters."""
    rows = metric_rows()
    words = ("reads", "unit", "better", "forwards")
    return [
        {**_of(name, kind), **{word: row[word] for word in words}, "ranks_methods": row["ranks methods"]}
        for (name, kind), row in zip(METRICS.items(), rows, strict=True)
    ]


def _of(name: str, kind: type[Any]) -> dict[str, Any]:
    """Return what methods and metrics have in common; a parameter without a default has the value None."""
    paper: Paper | None = getattr(kind, "paper", None)
    defaults = {field.name: _default(field) for field in dataclasses.fields(kind)}
    return {
        "name": name,
        "summary": (inspect.getdoc(kind) or "").partition("\n")[0],
        "paper": None if paper is None else dataclasses.asdict(paper),
        "parameters": json.loads(json.dumps(defaults, default=str)),
        "presets": json.loads(json.dumps(getattr(kind, "presets", {}), default=str)),
    }


def _default(field: "dataclasses.Field[Any]") -> object:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()
