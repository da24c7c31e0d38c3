"""Checks the names of methods and metrics in a run file by the text of their pages, without importing torch.

The registries in `pipeline/cams/` and `pipeline/metrics/` check names, parameters and values. They import torch, which
takes seconds. A wrong name is told before that.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.errors import Mistake
from pipeline.settings.entry_points import METHOD_GROUP, METRIC_GROUP, entries
from pipeline.settings.explain import ExplainConfig, Spec
from pipeline.settings.registry import unknown_name

_PLACES = {"methods": ("cams", METHOD_GROUP), "metrics": ("metrics", METRIC_GROUP)}
"""The package of the pages, and the entry points of plug-ins, by the key of the run file."""
_NAME = re.compile(r'^    name: ClassVar\[str\] = "(\w+)"$', re.MULTILINE)


def unknown_names(config: ExplainConfig) -> Iterator[Mistake]:
    """Find the names of methods and metrics that do not exist, as the registries would report them."""
    for key, (package, group) in _PLACES.items():
        ours = names_in(package)
        for name in [_name_of(spec) for spec in getattr(config, key)] if ours else ():
            if name is not None and name not in ours and name not in entries(group):
                yield unknown_name(f"explain.{key}", name, [*ours, *entries(group)])


def names_in(package: str) -> frozenset[str]:
    """Return the names of the classes in the pages of a package; none if there is no source to read."""
    pages = (Path(__file__).resolve().parents[1] / package).rglob("*.py")
    return frozenset(name for page in pages for name in _NAME.findall(page.read_text(encoding="utf-8")))


@cache
def sentences_in(package: str) -> dict[str, str]:
    """Return the first sentence of each class in the pages of a package by its name, such as what a metric measures."""
    found: dict[str, str] = {}
    for page in sorted((Path(__file__).resolve().parents[1] / package).rglob("*.py")):
        text = page.read_text(encoding="utf-8")
        for node in ast.parse(text).body if _NAME.search(text) else ():
            if isinstance(node, ast.ClassDef) and (named := _NAME.search(ast.get_source_segment(text, node) or "")):
                found[named[1]] = (ast.get_docstring(node) or "").partition("\n")[0]
    return found


def _name_of(spec: Spec) -> str | None:
    """Return the name in an entry of a list; None where the registry must judge the entry, such as a user's class."""
    name = spec if isinstance(spec, str) else next(iter(spec)) if len(spec) == 1 else ":"
    return None if ":" in name else name
