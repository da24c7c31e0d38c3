"""Slices: accuracy, calibration and metrics of the images with each value of `data.metadata`, against the rest.

Everything is counted over all images. A column whose values are all numbers, more than MAX_PLAIN different ones, is cut
at its quintiles. A slice of fewer than LEAST images is counted, not judged.

Legend: S slices, B bins of confidence.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.audit.excess import Group, excesses
from pipeline.audit.findings import Effect, Finding, percent
from pipeline.audit.leaderboard import metrics
from pipeline.audit.slice_tests import Tested, calibration, means, shares
from pipeline.audit.statistics import holm, wilson
from pipeline.audit.tables import tidy
from pipeline.audit.values import HELD_OUT, group_sql
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.sql_engine import quoted

LEAST, MAX_PLAIN, MAX_VALUES, SHOWN = 30, 20, 10_000, 20
"""Images from which a slice is judged, different numbers that are not yet cut, slices of a column that are judged (the
largest), and slices of a column that are shown."""

CONFIDENT = 0.8
"""Confidence from which a wrong prediction counts as confidently wrong."""

MIN_EXCESS, MAX_FINDINGS = 0.1, 3
"""The error rate of a slice must exceed that of the same classes elsewhere by at least this; most findings."""

_SLICED = f"""
entries AS (
  SELECT entry.key AS name, entry.value AS value, try_cast(entry.value AS DOUBLE) AS number, shard, image_key, correct,
    confidence, {{group}} AS class, {HELD_OUT} AS held_out
  FROM (SELECT *, unnest(map_entries(metadata)) AS entry FROM images WHERE maps > 0) WHERE entry.value IS NOT NULL),
kinds AS (
  SELECT name, count(DISTINCT value) > {MAX_PLAIN} AND bool_and(coalesce(isfinite(number), false)) AS numeric,
    quantile_disc(number, [0.2, 0.4, 0.6, 0.8]) AS cuts FROM entries GROUP BY name),
sliced AS (
  SELECT entries.*, numeric, CASE WHEN numeric
    THEN (1 + len(list_filter(cuts, lambda cut: cut < number)))::VARCHAR ELSE value END AS slice
  FROM entries JOIN kinds USING (name))
"""  # noqa: S608 - constants only
"""The images of each slice; a slice is a value, or the number of a fifth of the numbers (bounds belong below)."""

_COUNTS = f"""
WITH {_SLICED}
SELECT name, slice, any_value(numeric) AS numeric, min(number) AS smallest, max(number) AS largest, count(*) AS images,
  count(correct) AS judged, count(*) FILTER (correct) AS correct, avg(confidence) AS mean_confidence,
  count(*) FILTER (NOT correct AND confidence >= {CONFIDENT}) AS confidently_wrong
FROM sliced GROUP BY name, slice HAVING count(*) >= {LEAST}
QUALIFY row_number() OVER (PARTITION BY name ORDER BY images DESC, slice) <= {MAX_VALUES}
ORDER BY name, images DESC, slice
"""  # noqa: S608 - constants only
_COLUMNS = f"""
WITH {_SLICED}, sizes AS (
  SELECT name, slice, any_value(numeric) AS numeric, count(*) AS images FROM sliced GROUP BY name, slice)
SELECT name, any_value(numeric) AS numeric, count(*) AS slices, sum(images)::BIGINT AS images,
  count(*) FILTER (images < {LEAST}) AS small,
  coalesce(sum(images) FILTER (images < {LEAST}), 0)::BIGINT AS small_images
FROM sizes GROUP BY name ORDER BY name
"""  # noqa: S608 - constants only
_BINS = f"""
WITH {_SLICED}
SELECT name, known.number AS number, least(floor(confidence * 15), 14)::INT AS bin, count(*)::DOUBLE AS images,
  count(*) FILTER (correct)::DOUBLE AS correct, sum(confidence)::DOUBLE AS confidence
FROM sliced LEFT JOIN judged_slices known USING (name, slice) WHERE correct IS NOT NULL GROUP BY ALL
"""  # noqa: S608 - constants only
_MEANS = f"""
WITH {_SLICED}, valued AS (
  SELECT shard, image_key, method, target_rule, {{averages}} FROM explanations
  GROUP BY shard, image_key, method, target_rule)
SELECT name, known.number AS number, method, target_rule, {{sums}}
FROM valued JOIN sliced USING (shard, image_key) LEFT JOIN judged_slices known USING (name, slice)
GROUP BY ALL ORDER BY name, method, target_rule, number
"""  # noqa: S608 - constants only
_GROUPS = f"""
{_SLICED}, judged AS (
  SELECT name AS family, slice AS unit, held_out, class, correct
  FROM sliced JOIN judged_slices USING (name, slice) WHERE correct IS NOT NULL)
"""  # noqa: S608 - constants only

_KNOWN = pa.schema([pa.field("name", pa.string()), pa.field("slice", pa.string()), pa.field("number", pa.int64())])

Chapter = dict[str, Any]


def slices(run: Run) -> tuple[Chapter, list[Finding]]:
    """Compute the chapter of a run that has metadata, and findings about slices with an excess of errors."""
    group = group_sql(OutputKind.of(run.manifest))
    counts = run.sql(_COUNTS.format(group=group))
    columns = run.arrow(_COLUMNS.format(group=group)).to_pylist()
    counts["number"] = np.arange(len(counts))
    known = pa.Table.from_pandas(counts[["name", "slice", "number"]], schema=_KNOWN, preserve_index=False)
    with run.with_table("judged_slices", known):
        tested = [*_outcomes(run, counts, group), *_metrics(run, counts, group)]
        halves = excesses(run, _GROUPS)
    _adjust(tested)
    rows = _ordered([_row(count, tested) for count in counts.to_dict(orient="records")])
    shown = [row for name in sorted({row["name"] for row in rows}) for row in _of(rows, name)[:SHOWN]]
    chapter = {
        "columns": [_column(column, _of(rows, column["name"])) for column in columns],
        "slices": _ordered(shown),
        "least": LEAST, "shown": SHOWN, "confident": CONFIDENT,
        "tests": sum(int(np.isfinite(one.p_S).sum()) for one in tested),
        "sql": tidy(_COUNTS.format(group=group)),
    }  # fmt: skip
    return chapter, _findings(halves, {(row["name"], row["slice"]): row["value"] for row in rows})


def _of(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["name"] == name]


def _outcomes(run: Run, counts: pd.DataFrame, group: str) -> list[Tested]:
    """Test the shares of correct and of confidently wrong predictions, and the calibration error."""
    bins = run.sql(_BINS.format(group=group))
    if not len(bins):
        return []
    totals = bins.groupby("name")[["images", "correct"]].sum()
    judged_S, correct_S = (counts[name].to_numpy(np.float64) for name in ("judged", "correct"))
    all_S, right_S = (totals[name].reindex(counts["name"]).fillna(0).to_numpy() for name in ("images", "correct"))
    wrong_S = counts["confidently_wrong"].to_numpy(np.float64)
    confident = run.sql(f"WITH {_SLICED.format(group=group)} {_CONFIDENTLY_WRONG}").set_index("name")["images"]
    bad_S = confident.reindex(counts["name"]).fillna(0).to_numpy()
    return [
        shares("accuracy", "higher", (correct_S, judged_S), (right_S - correct_S, all_S - judged_S)),
        calibration("calibration_error", *_binned(bins, counts)),
        shares("confidently_wrong", "lower", (wrong_S, judged_S), (bad_S - wrong_S, all_S - judged_S)),
    ]


_CONFIDENTLY_WRONG = f"""
SELECT name, count(*)::DOUBLE AS images FROM sliced WHERE NOT correct AND confidence >= {CONFIDENT} GROUP BY name
"""  # noqa: S608 - constants only


def _binned(bins: pd.DataFrame, counts: pd.DataFrame) -> tuple[Any, Any]:
    """Return images, correct predictions and summed confidences by slice and bin, (3, S, B), and those of the rest."""
    whole = bins.groupby(["name", "bin"])[["images", "correct", "confidence"]].sum()
    own = bins.dropna(subset=["number"]).set_index(["number", "bin"])
    inside, rest = np.zeros((3, len(counts), 15)), np.zeros((3, len(counts), 15))
    for place, name in enumerate(("images", "correct", "confidence")):
        numbers, columns = (own.index.get_level_values(level).to_numpy(np.int64) for level in (0, 1))
        inside[place, numbers, columns] = own[name]
        table = whole[name].unstack().reindex(columns=range(15))
        rest[place] = table.reindex(counts["name"]).fillna(0.0).to_numpy() - inside[place]
    return inside, rest


def _metrics(run: Run, counts: pd.DataFrame, group: str) -> list[Tested]:
    """Test the mean of every metric of every method, image by image."""
    labels = list(metrics(run))
    if not labels or not len(counts):
        return []
    known = {label: f"avg({quoted(label)}) FILTER (NOT isnan({quoted(label)}))" for label in labels}
    averages = ", ".join(f"{value} AS v{place}" for place, value in enumerate(known.values()))
    sums = ", ".join(
        f"count(v{place})::DOUBLE AS n{place}, sum(v{place}) AS s{place}, sum(v{place} * v{place}) AS q{place}"
        for place in range(len(labels))
    )
    frame = run.sql(_MEANS.format(group=group, averages=averages, sums=sums))
    described = metrics(run)
    tested = []
    for (rule, method), own in sorted(frame.groupby(["target_rule", "method"]), key=lambda pair: pair[0]):
        for place, label in enumerate(labels):
            moments = own[[f"n{place}", f"s{place}", f"q{place}"]].fillna(0.0).set_axis(["n", "s", "q"], axis=1)
            totals = moments.groupby(own["name"]).sum().reindex(counts["name"]).fillna(0.0).to_numpy()
            inside = moments.assign(number=own["number"]).dropna().set_index("number")
            inside_S3 = inside.reindex(range(len(counts))).fillna(0.0).to_numpy()
            tested.append(
                means(label, described[label]["better"], (str(rule), str(method)), inside_S3, totals - inside_S3)
            )
    return tested


def _adjust(tested: list[Tested]) -> None:
    """Adjust p of all measures of all slices together (Holm)."""
    p_N = np.concatenate([one.p_S for one in tested]) if tested else np.zeros(0)
    known_N = np.isfinite(p_N)
    p_N[known_N] = holm(p_N[known_N].tolist())
    start = 0
    for one in tested:
        one.p_S[:] = p_N[start : start + len(one.p_S)]
        start += len(one.p_S)


def _row(count: Mapping[Any, Any], tested: list[Tested]) -> dict[str, Any]:
    """Return one slice, with the result of every measure."""
    value = f"{count['smallest']:g} to {count['largest']:g}" if count["numeric"] else count["slice"]
    judged, correct = int(count["judged"]), int(count["correct"])
    low, high = wilson(correct, judged)
    return {
        "name": count["name"], "value": value, "slice": count["slice"], "images": int(count["images"]),
        "judged": judged, "accuracy": correct / judged if judged else None, "low": low, "high": high,
        "mean_confidence": count["mean_confidence"],
        "model": {one.measure: one.to_json(count["number"]) for one in tested if not one.method},
        "metrics": [
            {"measure": one.measure, "target_rule": one.target_rule, "method": one.method, **measured}
            for one in tested if one.method and (measured := one.to_json(count["number"]))
        ],
    }  # fmt: skip


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort slices, worst first: by the least difference that the intervals leave in the worse direction.

    Accuracy decides; without it, and among equals, the metric with the largest such difference in standard deviations.
    """
    return sorted(rows, key=lambda row: (*_harm(row), row["name"], -row["images"], row["value"]))


def _harm(row: dict[str, Any]) -> tuple[float, float]:
    accuracy = row["model"].get("accuracy") or {}
    metrics_harm = [one["harm"] for one in row["metrics"] if one["harm"] is not None]
    return -(accuracy.get("harm") or 0.0), -max(metrics_harm, default=0.0)


def _column(column: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Describe a column: its slices, those that are judged, and how many are not shown."""
    small = {"small": column["small"], "small_images": column["small_images"]}
    left = column["slices"] - column["small"] - len(rows)
    return {
        "name": column["name"], "numeric": bool(column["numeric"]), "slices": column["slices"],
        "images": column["images"], "judged": len(rows), **small, "beyond": left,
        "not_shown": max(0, len(rows) - SHOWN),
    }  # fmt: skip


def _findings(halves: tuple[dict[Group, Any], dict[Group, Any]], values: dict[Group, str]) -> list[Finding]:
    """Report the slices with the largest excess of errors over the same classes elsewhere, shown by both halves."""
    first, second = halves
    found = [
        group for group in first.keys() & second.keys()
        if all(one.p < 0.01 and one.errors - one.elsewhere >= MIN_EXCESS for one in (first[group], second[group]))
    ]  # fmt: skip
    found.sort(key=lambda group: (second[group].elsewhere - second[group].errors, group))
    also = f" {len(found)} slices are affected in total." if len(found) > 1 else ""
    return [
        _finding(group, values[group], second[group], "" if rank else also)
        for rank, group in enumerate(found[:MAX_FINDINGS])
    ]


def _finding(group: Group, value: str, excess: Any, also: str) -> Finding:  # noqa: ANN401 - Excess
    low, high = wilson(round(excess.errors * excess.images), excess.images)
    title = f"{group[0]} = {value}"
    return Finding(
        "slice", title, title, "slices", "replicated",
        f"{percent(excess.errors)} of the predictions are wrong where {title} ({percent(excess.elsewhere)} for the "
        f"same classes in the other images).{also}",
        Effect("wrong predictions in the slice", excess.errors, low, high, excess.images),
        "The error rates of all slices were tested on each half of the images, against those of the same classes in "
        "the rest (p < 0.01 on both, with Holm's correction for the number of slices). The value is that of the "
        "held-out half. Why they differ is not tested.",
        "Compare images of the slice with others: acquisition, labels and classes. Collect or reweight such images.",
        excess.control("the same classes in the other images"),
    )  # fmt: skip
