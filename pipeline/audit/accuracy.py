"""Accuracy section: accuracy with its interval, calibration, histogram of confidences, confusions."""

from typing import Any

from pipeline.audit.statistics import calibration_error, wilson
from pipeline.audit.tables import class_name, query_table
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run

_COUNTS = """
SELECT count(*) AS images, count(*) FILTER (maps > 0) AS explained, count(label) AS labelled,
  count(correct) AS judged, count(*) FILTER (correct) AS correct, avg(confidence) AS mean_confidence FROM images
"""
_RELIABILITY = """
SELECT least(floor(confidence * 15), 14)::INT AS bin, count(*) AS images, avg(confidence) AS mean_confidence,
  avg(correct::INT) AS accuracy FROM images WHERE correct IS NOT NULL GROUP BY bin ORDER BY bin
"""
_HISTOGRAM = """
SELECT least(floor(confidence * 20), 19)::INT AS bin, count(*) AS images, count(*) FILTER (correct) AS "right",
  count(*) FILTER (NOT correct) AS wrong FROM images WHERE confidence IS NOT NULL GROUP BY bin ORDER BY bin
"""
_CONFUSIONS = """
SELECT label, predicted, count(*) AS images, avg(confidence) AS mean_confidence FROM images
WHERE NOT correct GROUP BY label, predicted ORDER BY images DESC, label, predicted LIMIT 15
"""


def accuracy(run: Run) -> dict[str, Any]:
    """Compute the accuracy section. Entries that need labels are empty or None when the dataset has none."""
    overall, reliability, confusions = (query_table(run, sql) for sql in (_COUNTS, _RELIABILITY, _CONFUSIONS))
    if OutputKind.of(run.manifest).is_independent:
        confusions = {"rows": [], "sql": ""}
    (counts,) = overall["rows"]
    counts["accuracy"] = counts["correct"] / counts["judged"] if counts["judged"] else None
    counts["low"], counts["high"] = wilson(counts["correct"], counts["judged"])
    bins = reliability["rows"]
    for row in bins:
        row["low"], row["high"] = wilson(round(row["accuracy"] * row["images"]), row["images"])
    for row in confusions["rows"]:
        row["label_name"], row["predicted_name"] = class_name(run, row["label"]), class_name(run, row["predicted"])
    return {
        "overall": overall,
        "calibration_error": calibration_error(
            *([row[name] for row in bins] for name in ("mean_confidence", "accuracy", "images"))
        ),
        "reliability": reliability,
        "histogram": query_table(run, _HISTOGRAM),
        "confusions": confusions,
    }
