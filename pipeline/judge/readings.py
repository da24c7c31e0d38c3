"""python -m pipeline.judge.readings RUN...: compares readings of a method with Grad-CAM, on finished runs.

The images that the model classifies rightly are split into two halves by a hash of their keys, the same ones for every
run of the same images: readings are chosen on one half, and their figures are reported on the other. Differences from
Grad-CAM are paired: those of an image are taken before their mean.

Legend: S images, N rows.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, get_args

import numpy as np
import typer

from pipeline.errors import CamatlasError, ConfigError
from pipeline.judge.output import as_text
from pipeline.maps.codec import FloatArray
from pipeline.maps.similarity import Numbers, enlarged, mean_interval, pearson
from pipeline.results.query import Run, decode_row, open_run
from schemas.explanation import is_curve

Half = Literal["choose", "report"]
BASE = "gradcam"
CORRELATION = "correlation"
_ROWS = """
SELECT explanations.* FROM explanations JOIN images USING (shard, image_key)
WHERE images.correct IS NOT FALSE AND method = ? ORDER BY shard, image_key, target
"""
Image = tuple[str, str]


@dataclass(frozen=True)
class Estimate:
    """A mean over images, and that of the paired difference from Grad-CAM with half of its 95 % interval."""

    mean: float | None
    difference: float | None
    half_width: float | None
    images: int


@dataclass(frozen=True)
class Comparison:
    """The methods of a run on one half of its images: an estimate for every metric, and the correlation of the maps."""

    run: str
    half: Half
    images: int
    methods: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class _Measured:
    """What one method gave for each image: its metrics, as means over the targets, and its heat maps by target."""

    values: Mapping[Image, Mapping[str, float]]
    heatmaps: Mapping[Image, Mapping[int, FloatArray]]


def half_of(image_key: str) -> Half:
    """Assign an image to a half by a hash of its key."""
    halves: tuple[Half, ...] = get_args(Half)
    return halves[hashlib.md5(image_key.encode(), usedforsecurity=False).digest()[0] % 2]


def compare(run: Run, half: Half) -> Comparison:
    """Compare every method of a run with Grad-CAM on one half of the images.

    Raises:
        ConfigError: the run does not have Grad-CAM.
    """
    methods = sorted(run.manifest.identity.methods, key=lambda name: (name != BASE, name))
    if BASE not in methods:
        raise ConfigError.one("RUN", f"'{run.store.url}' has no '{BASE}' to compare with", "add it to explain.methods")
    metrics = [name for name in run.manifest.identity.metrics if not is_curve(name)]
    base = _measured(run, BASE, metrics, half)
    found = {
        name: _estimates(base if name == BASE else _measured(run, name, metrics, half), base, metrics)
        for name in methods
    }
    return Comparison(run.store.url, half, len(base.values), found)


def _measured(run: Run, method: str, metrics: Sequence[str], half: Half) -> _Measured:
    by_image: dict[Image, list[dict[str, float]]] = {}
    heatmaps: dict[Image, dict[int, FloatArray]] = {}
    for row in run.arrow(_ROWS, [method]).to_pylist():
        if half_of(row["image_key"]) == half:
            image = (row["shard"], row["image_key"])
            by_image.setdefault(image, []).append({name: _number(row[name]) for name in metrics})
            heatmaps.setdefault(image, {})[row["target"]] = enlarged(decode_row(row)[None])[0]
    means = {image: {name: _mean([row[name] for row in rows]) for name in metrics} for image, rows in by_image.items()}
    return _Measured(means, heatmaps)


def _estimates(one: _Measured, base: _Measured, metrics: Sequence[str]) -> dict[str, Estimate]:
    shared = [image for image in base.values if image in one.values]
    found = {}
    for name in metrics:
        own_S, base_S = (np.array([each.values[image][name] for image in shared]) for each in (one, base))
        mean, _, count = mean_interval(own_S)
        found[name] = Estimate(mean, *mean_interval(own_S - base_S)[:2], count)
    alike_S = np.array([_correlation(one.heatmaps[image], base.heatmaps[image]) for image in shared])
    mean, half_width, count = mean_interval(alike_S)
    return found | {CORRELATION: Estimate(mean, None, half_width, count)}


def _correlation(one: Mapping[int, FloatArray], base: Mapping[int, FloatArray]) -> float:
    """Return the mean correlation of the heat maps of the same targets of an image."""
    shared = [target for target in one if target in base]
    if not shared:
        return float("nan")
    return _mean(pearson(*(np.stack([each[target] for target in shared]) for each in (one, base))).tolist())


def _mean(values: Sequence[float]) -> float:
    known: Numbers = np.array([value for value in values if np.isfinite(value)])
    return float(known.mean()) if len(known) else float("nan")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def as_table(comparison: Comparison) -> str:
    """Lay out a comparison as text: mean, and difference from Grad-CAM with half of its interval."""
    columns = list(next(iter(comparison.methods.values())))
    cells = [["method", *columns]]
    for method, estimates in comparison.methods.items():
        cells.append([method, *(_cell(estimates[name], paired=method != BASE) for name in columns)])
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    title = f"{comparison.run}: {comparison.images} images of the half '{comparison.half}'"
    return "\n".join([title, *lines])


def _cell(estimate: Estimate, *, paired: bool) -> str:
    if estimate.mean is None:
        return "none"
    if not paired or estimate.difference is None:
        return f"{estimate.mean:.3f}"
    width = "" if estimate.half_width is None else f" ± {estimate.half_width:.3f}"
    return f"{estimate.mean:.3f} ({estimate.difference:+.3f}{width})"


def main(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    half: Annotated[str | None, typer.Option(help="choose or report; both if not given")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Compare the methods of finished runs with Grad-CAM, on images that the model classifies rightly."""
    halves: tuple[Half, ...] = tuple(name for name in get_args(Half) if half in (None, name))
    try:
        if not halves:
            raise ConfigError.one("--half", f"'{half}' is not a half", f"one of {', '.join(get_args(Half))}")
        found = [compare(run, name) for run in map(open_run, runs) for name in halves]
    except CamatlasError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    typer.echo(as_text({"comparisons": list(map(asdict, found))}) if as_json else "\n\n".join(map(as_table, found)))


if __name__ == "__main__":
    typer.run(main)
