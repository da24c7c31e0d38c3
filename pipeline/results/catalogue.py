"""Formats tables and pages that describe methods and metrics: definition, requirements and cost."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cams import ADAPTERS, METHODS, CamMethod, LayerShape, NetShape
from pipeline.cams.base import Needs, Paper
from pipeline.cams.plugged import NO_PAPER
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS, Metric
from pipeline.results.marks import percent
from pipeline.results.reliability import Reliability, reliability, shipped_record
from pipeline.settings.entry_points import entries, package_of
from pipeline.settings.plugins import Found, Room, find
from pipeline.settings.registry import parameters
from schemas.judged import JudgedRecord

RESNET50 = NetShape(
    stages=(LayerShape(256, 56, 56), LayerShape(512, 28, 28), LayerShape(1024, 14, 14), LayerShape(2048, 7, 7)),
    linear_head=True,
)
"""The network whose costs are printed: ResNet-50 at 224 pixels."""


VIT_B_16 = NetShape(stages=(LayerShape(768, 14, 14),), linear_head=False, attention_layers=12)
"""The network whose costs are printed for methods that need attention: ViT-B/16 at 224 pixels."""


def method_rows() -> list[dict[str, str]]:
    """Return one row per method: name, paper, requirements, and cost per image in addition to the shared pass."""
    rows = []
    for name, kind in METHODS.items():
        cost = kind().cost(VIT_B_16 if kind().needs.attention else RESNET50)
        rows.append(
            {
                "method": name + (" (interpretation)" if kind.interpretation else ""),
                "paper": _cite(kind.paper),
                "needs": _format_needs(kind().needs),
                "forwards": str(cost.forwards),
                "head passes": str(cost.head_passes),
                "backwards": str(cost.backwards),
            }
        )
    return rows


def adapter_rows() -> list[dict[str, str]]:
    """Return one row per method of others: name, and what it is."""
    return [
        {"method": name, "maps": (inspect.getdoc(kind) or "").partition("\n")[0]} for name, kind in ADAPTERS.items()
    ]


def metric_rows(record: JudgedRecord | None = None) -> list[dict[str, str]]:
    """Return one row per metric: name, paper, what it reads, its unit, its direction, its cost, and its verdict.

    The record says how far metrics can be believed; by default it is the one that comes with the package.
    """
    return [
        {
            "metric": name,
            "paper": _cite(kind.paper),
            "reads": kind.reads,
            "unit": kind.unit,
            "better": kind.better,
            "forwards": _format_passes(kind()),
            "ranks methods": _format_verdict(_reliability(kind, record)),
        }
        for name, kind in METRICS.items()
    ]


def method_page(kind: type[CamMethod]) -> str:
    """Format the page of a method: definition, parameters with defaults, presets, reference."""
    return _page(kind, [])


def metric_page(kind: type[Metric], record: JudgedRecord | None = None) -> str:
    """Format the page of a metric: definition, what it reads, unit, direction, cost, reliability, parameters, paper."""
    facts = {
        "reads": kind.reads,
        "unit": kind.unit,
        "better": kind.better,
        "forwards": _format_passes(kind()),
        "reliability": f"{_reliability(kind, record).line()} (see docs/metrics.md)",
    }
    return _page(kind, [*(f"  {name}: {value}" for name, value in facts.items()), "", *_METRIC_NOTES])


_METRIC_NOTES = (
    "E is the heat map: the map upsampled bilinearly to the image, then scaled to [0, 1]. A degenerate (constant) map",
    "has E = 0 everywhere and gets a good value from some metrics. The leaderboard shows the share of such maps, and",
    "WHERE NOT degenerate excludes them. G is the set of the object's pixels: those of its mask, or those whose centre",
    "lies in one of its boxes. Boxes belong to the image's label, or to the class that the data names for each box. If",
    "another class is explained, there is no G. p is the confidence of the explained class.",
)


def plugin_page(plugin: Found) -> str:
    """Format the page of a method or metric of the user's: definition, class, facts, parameters, presets, reference."""
    kind = plugin.kind
    facts = {"class": plugin.origin, **{name: text for name, text in _plugin_facts(kind) if text}}
    return _page(kind, [f"  {fact}: {text}" for fact, text in facts.items()], plugin.default)


def plugin_rows(room: Room[Any], registry: Mapping[str, type]) -> list[dict[str, str]]:
    """Return one row per entry point of installed packages: name, class, package, and whether it can be used."""
    return [
        {
            room.noun: name,
            "class": declared[0].value,
            "package": package_of(declared[0]),
            "state": _plugin_state(name, room, registry),
        }
        for name, declared in entries(room.group).items()
    ]


def _plugin_state(name: str, room: Room[Any], registry: Mapping[str, type]) -> str:
    """Say whether an entry point can be used, and why not."""
    try:
        find(name, room, registry, name)
    except ConfigError as error:
        return "; ".join(mistake.what for mistake in error.mistakes)
    return "ready"


def _plugin_facts(kind: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield what a class says of itself, as far as that shows without making an object."""
    needs = getattr(kind, "needs", None)
    yield "needs", _format_needs(needs) if isinstance(needs, Needs) else ""
    for name in ("reads", "unit", "better"):
        fact = getattr(kind, name, "")
        yield name, fact if isinstance(fact, str) else ""


def _page(kind: type[Any], facts: list[str], title: str = "") -> str:
    title = title or kind.name
    lines = [title, "=" * len(title), "", inspect.getdoc(kind) or "", "", *facts, *([""] if facts else [])]
    defaults = [f"  {field.name}: {_format_default(field)}" for field in dataclasses.fields(kind)]
    lines += ["Defaults:", *(defaults or ["  no parameters"])]
    presets = getattr(kind, "presets", {})
    if presets:
        lines += ["", "Presets:", *(f"  {name}: {_format_preset(preset)}" for name, preset in presets.items())]
    paper: Paper = getattr(kind, "paper", NO_PAPER)
    if paper != NO_PAPER and paper.link:
        lines += ["", f"Reference: {paper.authors}. {paper.title}. {paper.venue} {paper.year}, {paper.link}."]
    return "\n".join(lines)


def _format_default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return str(field.default)
    return "none, it must be given" if field.default_factory is dataclasses.MISSING else str(field.default_factory())


def _format_needs(needs: Needs) -> str:
    words = ["attention"] * needs.attention + ["gradients"] * (needs.gradients or needs.readouts)
    words += ["stages"] * needs.stages + ["linear head"] * needs.linear_head
    return ", ".join(words) or ("activations" if needs.activations else "images")


def _format_passes(metric: Metric) -> str:
    """Format a metric's cost: forwards per map, forwards shared by all maps of an image, and maps computed again."""
    views = metric.views()
    own = sum(view.count() for view in views if view.scope == "map")
    shared = sum(view.count() for view in views if view.scope != "map")
    again = sum(rerun.times for rerun in metric.redrawn_maps())
    words = (
        [f"{own} per map"] * bool(own) + [f"{shared} per image"] * bool(shared) + [f"{again} maps again"] * bool(again)
    )
    return ", ".join(words) or "0"


def _reliability(kind: type[Metric], record: JudgedRecord | None) -> Reliability:
    """Look up what is known of a metric with its default parameters."""
    return reliability(record or shipped_record(), kind.name, kind.better, parameters(kind()))


def _format_verdict(known: Reliability) -> str:
    """Format whether a metric can rank methods, with the shares of pairs that it orders as each truth does."""
    shares = [percent(share) for share in known.pairs().values() if share is not None]
    if not shares:
        return known.faults()[0].short
    return f"{'yes' if known.carries() else 'no'}: {', '.join(shares)}"


def _format_preset(preset: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in preset.items()) or "the defaults"


def _cite(paper: Paper) -> str:
    first, *others = paper.authors.split(",")
    return f"{first}{' et al.' if others else ''}, {paper.venue} {paper.year}"
