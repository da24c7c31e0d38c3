"""The pages of methods and metrics, for people: what each is, needs and costs."""

import dataclasses
import inspect
from typing import Any

from pipeline.cams import METHODS, LayerShape
from pipeline.cams.base import Paper
from pipeline.metrics import METRICS

EXAMPLE_LAYER = LayerShape(2048, 7, 7)
"""Costs are printed for ResNet-50's layer4."""


def method_rows() -> list[dict[str, str]]:
    """Give one row a method: name, paper, what it needs, cost per image beside the shared pass."""
    rows = []
    for name, kind in METHODS.items():
        cost = kind().cost(EXAMPLE_LAYER)
        rows.append(
            {
                "method": name + (" (interpretation)" if kind.interpretation else ""),
                "paper": _cited(kind.paper),
                "needs": "gradients" if kind.needs.gradients else "activations",
                "forwards": str(cost.forwards),
                "head passes": str(cost.head_passes),
                "backwards": str(cost.backwards),
            }
        )
    return rows


def metric_rows() -> list[dict[str, str]]:
    """Give one row a metric: name, paper, what it reads, its unit and direction, masked forwards per map."""
    return [
        {
            "metric": name,
            "paper": _cited(kind.paper),
            "reads": kind.reads,
            "unit": kind.unit,
            "better": kind.better,
            "forwards": str(len(kind().passes())),
        }
        for name, kind in METRICS.items()
    ]


def page(kind: type[Any]) -> str:
    """Give the page of a method or metric: definition, parameters with defaults, presets, reference."""
    lines = [kind.name, "=" * len(kind.name), "", inspect.getdoc(kind) or "", "", "Defaults:"]
    defaults = [f"  {field.name}: {field.default}" for field in dataclasses.fields(kind)]
    lines += defaults or ["  no parameters"]
    lines += ["", f"Presets: {', '.join(kind.presets)}"] if kind.presets else []
    paper: Paper = kind.paper
    lines += ["", f"Reference: {paper.authors}. {paper.title}. {paper.venue} {paper.year}, {paper.link}."]
    return "\n".join(lines)


def _cited(paper: Paper) -> str:
    return f"{paper.authors.split(',')[0]} et al., {paper.venue} {paper.year}"
