"""Measures what checks name, in SQL, so that memory does not grow with the run.

Means over images have 95 % intervals: Wilson's for shares of images, and the normal one otherwise. Where an image has
several maps, its values are kept together, since they are not independent:

    mean = S / C,   variance = n / (n - 1) sum_i (s_i - mean c_i)^2 / C^2

s_i and c_i are the sum and the number of the values of image i, S and C their sums over all n images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.audit.checks.file import Check
from pipeline.audit.checks.quantities import Quantity
from pipeline.audit.checks.selecting import Parameters, selection
from pipeline.audit.statistics import NORMAL, calibration_error, wilson
from pipeline.results.query import Run

BINS = 15
"""Bins of the calibration error, as in the report."""

_OF_IMAGES = """
SELECT {slice} AS slice, count(*) AS images, count(*) FILTER (maps > 0) AS explained, count(label) AS labelled,
  count(correct) AS judged, count(*) FILTER (correct) AS correct, count(confidence) AS confident,
  avg(confidence) AS mean_confidence, stddev_samp(confidence) AS spread
FROM images WHERE {where} GROUP BY ALL ORDER BY slice
"""
_BINS = f"""
SELECT {{slice}} AS slice, least(floor(confidence * {BINS}), {BINS - 1})::INT AS bin, count(*) AS images,
  avg(confidence) AS mean_confidence, avg(correct::INT) AS accuracy
FROM images WHERE correct IS NOT NULL AND {{where}} GROUP BY ALL ORDER BY slice, bin
"""  # noqa: S608 - constants only
_OF_ROWS = """
SELECT slice, count(*) FILTER (error_code IS NOT NULL) AS failures,
  count(DISTINCT (shard, image_key)) FILTER (error_code IS NOT NULL) AS failed,
  count(DISTINCT (shard, image_key)) AS places
FROM (SELECT {slice} AS slice, shard, image_key, error_code FROM explanations WHERE {where}
  UNION ALL SELECT {slice} AS slice, shard, image_key, error_code FROM failures WHERE {where})
GROUP BY slice ORDER BY slice
"""
_OF_MAPS = """
SELECT slice, count(*) AS images, sum(total) AS total, sum(known) AS known, sum(total * total) AS squares,
  sum(total * known) AS products, sum(known * known) AS counts, bool_and(known = 1 AND total IN (0, 1)) AS shares
FROM (SELECT {slice} AS slice, shard, image_key, sum({value}) AS total, count({value})::DOUBLE AS known
  FROM explanations WHERE {value} IS NOT NULL AND NOT isnan({value}) AND {maps} AND {where} GROUP BY ALL)
GROUP BY slice ORDER BY slice
"""


@dataclass(frozen=True)
class Measured:
    """A measured number.

    Attributes:
        value: the number; None if there is none.
        images: number of images that it is a mean over; None for counts.
        low, high: its 95 % interval, where it is a mean.
        problem: why there is no number.
        notes: what a reader must know.
    """

    value: float | None
    images: int | None = None
    low: float | None = None
    high: float | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()


Slices = dict[str | None, Measured]
"""What was measured of each slice, by its name; None is the name of images without a value."""

Findings = Callable[[], Measured]
"""Counts the findings of the report."""

_NOTHING = {
    "accuracy": "no image has both a label and a prediction that can be judged by it",
    "calibration_error": "no image has both a label and a prediction that can be judged by it",
    "mean_confidence": "no image has a confidence",
}


def measure(run: Run, check: Check, findings: Findings) -> Slices:
    """Measure a check: of each slice, or, without slices, of all images, under the name ""."""
    if check.quantity is None:
        return {"": _of_query(run, check.sql)}
    if check.quantity.name == "findings":
        return {"": findings()}
    measured = _quantity(run, check, check.quantity)
    if not check.by:
        return {"": next(iter(measured.values()), _empty(check.quantity))}
    return measured


def _quantity(run: Run, check: Check, quantity: Quantity) -> Slices:
    parameters = Parameters()
    filled = vars(selection(run, check, quantity, parameters.write))

    def rows(sql: str) -> list[dict[str, Any]]:
        text = sql.format(**filled)
        used = {name: value for name, value in parameters.items() if f"${name}" in text}
        found: list[dict[str, Any]] = run.arrow(text, used).to_pylist()
        return found

    if quantity.is_metric:
        return {row["slice"]: _mean(row) for row in rows(_OF_MAPS)}
    if quantity.name in ("failures", "failure_rate"):
        return {row["slice"]: _failures(quantity, row) for row in rows(_OF_ROWS)}
    if quantity.name == "calibration_error":
        return _calibration(rows(_BINS))
    return {row["slice"]: _of_images(quantity, row) for row in rows(_OF_IMAGES)}


def _of_images(quantity: Quantity, row: Mapping[str, Any]) -> Measured:
    if quantity.name == "accuracy":
        return _share(row["correct"], row["judged"], _NOTHING["accuracy"])
    if quantity.name == "mean_confidence":
        images, mean = row["confident"], _finite(row["mean_confidence"])
        if mean is None:
            return Measured(None, images, problem=_NOTHING["mean_confidence"])
        spread = _finite(row["spread"])
        half = None if spread is None else NORMAL * spread / math.sqrt(images)
        return Measured(mean, images, *_around(mean, half))
    return Measured(float(row[quantity.name]))


def _failures(quantity: Quantity, row: Mapping[str, Any]) -> Measured:
    if quantity.name == "failures":
        return Measured(float(row["failures"]))
    return _share(row["failed"], row["places"], "there is no image")


def _calibration(rows: Sequence[Mapping[str, Any]]) -> Slices:
    slices: dict[str | None, list[Mapping[str, Any]]] = {}
    for row in rows:
        slices.setdefault(row["slice"], []).append(row)
    measured: Slices = {}
    for name, bins in slices.items():
        images = [row["images"] for row in bins]
        confidences, accuracies = ([row[column] for row in bins] for column in ("mean_confidence", "accuracy"))
        error = _finite(calibration_error(confidences, accuracies, images))
        measured[name] = Measured(
            error, sum(images), problem="" if error is not None else _NOTHING["calibration_error"]
        )
    return measured


def _mean(row: Mapping[str, Any]) -> Measured:
    """Return the mean over the values of images, with its interval."""
    images, known, mean = row["images"], row["known"], row["total"] / row["known"]
    if row["shares"]:
        return _share(round(row["total"]), images, "")
    if not math.isfinite(mean):
        return Measured(None, images, problem="a value is not finite")
    if images < 2:
        return Measured(mean, images)
    squares = row["squares"] - 2 * mean * row["products"] + mean**2 * row["counts"]
    half = NORMAL * math.sqrt(max(0.0, squares) * images / (images - 1)) / known
    return Measured(mean, images, *_around(mean, half))


def _share(successes: int, trials: int, nothing: str) -> Measured:
    if not trials:
        return Measured(None, 0, problem=nothing)
    return Measured(successes / trials, trials, *wilson(successes, trials))


def _around(mean: float, half: float | None) -> tuple[float | None, float | None]:
    return (None, None) if half is None else (mean - half, mean + half)


def _empty(quantity: Quantity) -> Measured:
    """Return what is measured where no row meets the conditions."""
    if quantity.name in ("images", "explained", "labelled"):
        return Measured(0.0)
    if quantity.is_metric:
        return Measured(None, 0, problem="no map has a value: the metric does not apply to any image, or there is none")
    return Measured(None, 0, problem=_NOTHING.get(quantity.name, "there is no image"))


def _of_query(run: Run, sql: str) -> Measured:
    table = run.arrow(sql)
    if table.num_rows != 1:
        return Measured(None, problem=f"the query gave {table.num_rows} rows, not one number")
    value = table.column(0)[0].as_py()
    number = None if value is None else _finite(float(value))
    return Measured(number, problem="" if number is not None else f"the query gave {_word(value)}, not a number")


def _word(value: object) -> str:
    return "NULL" if value is None else str(value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
