"""Checks run files, and parts of run files, in the YAML blocks of pages."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import yaml

from pipeline.cams import build_methods
from pipeline.errors import ConfigError
from pipeline.metrics import build_metrics
from pipeline.settings.run_file import RunConfig, parse_config

_INCOMPLETE = ("is required", "is empty")
"""Mistakes of a part of a run file that are none on a page."""
_FILES = ".path"
"""The parameter of methods that names files, which only the reader has."""


def mistakes(text: str) -> Iterator[str]:
    """Yield the mistakes in a block that shows a run file; other YAML has none."""
    raw = yaml.safe_load(text)
    if not isinstance(raw, dict) or not set(raw) <= set(RunConfig.model_fields):
        return
    config, found = parse_config(raw)
    yield from (str(mistake) for mistake in found if mistake.what not in _INCOMPLETE)
    yield from _names(config.explain.methods, build_methods)
    yield from _names(config.explain.metrics, build_metrics)


def _names(specs: Iterable[Any], build: Callable[[list[Any]], object]) -> Iterator[str]:
    """Check names and parameters; classes of a page itself are left out, since its tests run them."""
    for spec in specs:
        if ":" in (spec if isinstance(spec, str) else next(iter(spec), "")):
            continue
        try:
            build([spec])
        except ConfigError as error:
            yield from (str(mistake) for mistake in error.mistakes if not mistake.where.endswith(_FILES))
