"""Writes the record of the judge: `judge.json`, and the table `metrics.md` made from it."""

import json
import math
from pathlib import Path
from typing import Any

from pipeline.judge.table import metrics_page
from pipeline.results.reliability import load_record


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Write both files, each whole or not at all, and return the path of the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "judge.json"
    _write(path, as_text(record) + "\n")
    _write(folder / "metrics.md", metrics_page(load_record(path, "judge.json")))
    return path


def as_text(record: dict[str, Any]) -> str:
    """Return the record as JSON, in which a number that does not exist is null."""
    return json.dumps(_without_nan(record), indent=1, allow_nan=False)


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - plain JSON
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
