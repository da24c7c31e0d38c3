"""The pages of methods and metrics, for people: what each is, needs and costs."""

import dataclasses
import inspect
from typing import Any

from pipeline.cams import METHODS, CamMethod, LayerShape, NetShape
from pipeline.cams.base import Needs, Paper
from pipeline.metrics import METRICS, Metric

RESNET50 = NetShape(
    stages=(LayerShape(256, 56, 56), LayerShape(512, 28, 28), LayerShape(1024, 14, 14), LayerShape(2048, 7, 7)),
    linear_head=True,
)
"""Costs are printed for ResNet-50 at 224 pixels."""


def method_rows() -> list[dict[str, str]]:
    """Give one row a method: name, paper, what it needs, cost per image beside the shared pass."""
    rows = []
    for name, kind in METHODS.items():
        cost = kind().cost(RESNET50)
        rows.append(
            {
                "method": name + (" (interpretation)" if kind.interpretation else ""),
                "paper": _cited(kind.paper),
                "needs": _needs(kind().needs),
                "forwards": str(cost.forwards),
                "head passes": str(cost.head_passes),
                "backwards": str(cost.backwards),
            }
        )
    return rows


def metric_rows() -> list[dict[str, str]]:
    """Give one row a metric: name, paper, what it reads, its unit and direction, and what it costs."""
    return [
        {
            "metric": name,
            "paper": _cited(kind.paper),
            "reads": kind.reads,
            "unit": kind.unit,
            "better": kind.better,
            "forwards": _passes(kind()),
        }
        for name, kind in METRICS.items()
    ]


def method_page(kind: type[CamMethod]) -> str:
    """Give the page of a method: definition, parameters with defaults, presets, reference."""
    return _page(kind, [])


def metric_page(kind: type[Metric]) -> str:
    """Give the page of a metric: definition, what it reads, its unit and direction, its cost, parameters, reference."""
    facts = {"reads": kind.reads, "unit": kind.unit, "better": kind.better, "forwards": _passes(kind())}
    return _page(kind, [*(f"  {name}: {value}" for name, value in facts.items()), "", *_METRIC_WORDS])


_METRIC_WORDS = (
    "E is the heat map: the map enlarged to the image bilinearly, then scaled to [0, 1]. A degenerate (constant) map",
    "has E = 0 everywhere and, with some metrics, a good value; the leaderboard tells the share of such maps, and",
    "WHERE NOT degenerate leaves them out. G are the pixels of the object: those of its mask, or whose centre lies in",
    "one of its boxes. Boxes are the label's, or each of its own class where the data names it: where another class",
    "is explained there is no G. p is the softmax probability of the explained class.",
)


def _page(kind: type[Any], facts: list[str]) -> str:
    lines = [kind.name, "=" * len(kind.name), "", inspect.getdoc(kind) or "", "", *facts, *([""] if facts else [])]
    defaults = [f"  {field.name}: {field.default}" for field in dataclasses.fields(kind)]
    lines += ["Defaults:", *(defaults or ["  no parameters"])]
    if kind.presets:
        lines += ["", "Presets:", *(f"  {name}: {_settings(preset)}" for name, preset in kind.presets.items())]
    paper: Paper = kind.paper
    lines += ["", f"Reference: {paper.authors}. {paper.title}. {paper.venue} {paper.year}, {paper.link}."]
    return "\n".join(lines)


def _needs(needs: Needs) -> str:
    words = ["gradients"] * needs.gradients + ["stages"] * needs.stages + ["linear head"] * needs.linear_head
    return ", ".join(words) or ("activations" if needs.activations else "images")


def _passes(metric: Metric) -> str:
    """Forwards per map, those that all maps of an image share, and maps that are drawn again."""
    views = metric.views()
    own = sum(view.count() for view in views if view.scope == "map")
    shared = sum(view.count() for view in views if view.scope != "map")
    again = sum(rerun.times for rerun in metric.redrawn_maps())
    words = [f"{own} a map"] * bool(own) + [f"{shared} an image"] * bool(shared) + [f"{again} maps again"] * bool(again)
    return ", ".join(words) or "0"


def _settings(preset: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in preset.items()) or "the defaults"


def _cited(paper: Paper) -> str:
    first, *others = paper.authors.split(",")
    return f"{first}{' et al.' if others else ''}, {paper.venue} {paper.year}"
