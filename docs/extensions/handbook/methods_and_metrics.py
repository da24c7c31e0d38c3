"""The references of methods and metrics: one section each, from the class and `docs/formulas.toml`."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from handbook.markdown import escaped, fence
from handbook.pages_of_classes import docstring, parameter_table, preset_table, prose
from pipeline.cams import ADAPTERS, METHODS
from pipeline.cams.base import Paper
from pipeline.metrics import METRICS
from pipeline.results.catalogue import method_rows, metric_rows
from pipeline.results.reliability import reliability, shipped_record
from pipeline.settings.registry import parameters

FORMULAS = Path(__file__).resolve().parents[2] / "formulas.toml"


@cache
def formulas() -> Mapping[str, list[str]]:
    """Read the formulas by the name of the method or metric: lines of LaTeX."""
    return tomllib.loads(FORMULAS.read_text(encoding="utf-8"))


def methods_page() -> str:
    """Write the page of the methods."""
    facts = {row["method"].split()[0]: row for row in method_rows()}
    return "\n".join(_section(name, kind, _costs(facts.get(name, {}))) for name, kind in (METHODS | ADAPTERS).items())


def metrics_page() -> str:
    """Write the page of the metrics."""
    facts = {row["metric"]: row for row in metric_rows()}
    return "\n".join(_section(name, kind, _facts(kind, facts[name])) for name, kind in METRICS.items())


def _section(name: str, kind: type[Any], facts: Mapping[str, str]) -> str:
    page = docstring(kind)
    lines = [*_math(name), *[fence("\n".join(page.formula))] * (name not in formulas() and bool(page.formula))]
    presets = getattr(kind, "presets", {})
    parts = [
        f"({name})=\n## `{name}`",
        escaped(page.sentence),
        *lines,
        prose(page.paragraphs),
        "\n".join(f"* {fact}: {escaped(text)}" for fact, text in facts.items() if text),
        parameter_table(kind),
        *[preset_table(presets)] * bool(presets),
        _reference(getattr(kind, "paper", None)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _math(name: str) -> Iterator[str]:
    for line in formulas().get(name, ()):
        yield f"$$\n{line}\n$$"


def _costs(row: Mapping[str, str]) -> dict[str, str]:
    """Name what a method needs and costs, for the networks of `camatlas methods`."""
    passes = [f"{row[name]} {name}" for name in ("forwards", "head passes", "backwards") if row.get(name, "0") != "0"]
    network = "ViT-B/16" if "attention" in row.get("needs", "") else "ResNet-50"
    cost = f"{', '.join(passes) or 'no further pass'} per image, for {network} at 224 pixels" if row else ""
    return {"Needs": row.get("needs", ""), "Cost": cost}


def _facts(kind: type[Any], row: Mapping[str, str]) -> dict[str, str]:
    known = reliability(shipped_record(), kind.name, kind.better, parameters(kind()))
    return {
        "Reads": row["reads"],
        "Unit": row["unit"],
        "Better": row["better"],
        "Forward passes": row["forwards"],
        "Reliability": known.line(),
    }


def _reference(paper: Paper | None) -> str:
    if paper is None or not paper.link:
        return ""
    return escaped(f"Reference: {paper.authors}. {paper.title}. {paper.venue} {paper.year}, {paper.link}.")
