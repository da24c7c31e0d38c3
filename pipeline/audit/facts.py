"""Every number of the report, as plain JSON. The page is rendered from this alone."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.cams import METHODS
from pipeline.catalogue import method_page
from pipeline.codec import FloatArray
from pipeline.metrics import METRICS
from pipeline.query import Run, decode_row, decode_table
from pipeline.verify import verify
from schemas.explanation import is_curve

FACTS_VERSION = 1
MOST_CLASSES = 50
GALLERY_IMAGES = 12

_COUNTS = """
SELECT count(*) AS images, count(*) FILTER (maps > 0) AS explained, count(label) AS labelled,
  count(*) FILTER (correct) AS correct, avg(confidence) AS mean_confidence FROM images
"""
_FAILURES = """
SELECT error_stage, error_code, count(*) AS rows, min(image_key) AS example, min(error_detail) AS detail
FROM failures GROUP BY error_stage, error_code ORDER BY rows DESC, error_stage, error_code
"""
_CLASSES = """
SELECT coalesce(label, predicted) AS class, count(*) AS images, avg(correct::INT) AS accuracy,
  avg(confidence) AS mean_confidence
FROM images WHERE maps > 0 GROUP BY class ORDER BY images DESC, class
"""
_MAPS = """
SELECT *, coalesce(label, predicted) AS class FROM explanations WHERE method = ?
QUALIFY row_number() OVER (PARTITION BY shard, image_key ORDER BY target <> class, target <> predicted, target) = 1
"""
_ROWS = """
SELECT * FROM explanations WHERE shard = ? AND image_key = ?
QUALIFY target = first_value(target) OVER (ORDER BY target <> coalesce(label, predicted), target <> predicted, target)
ORDER BY method
"""
_WRONG = """
SELECT shard, image_key, label, predicted, confidence FROM images
WHERE maps > 0 AND NOT correct ORDER BY confidence DESC, image_key LIMIT ?
"""
_RIGHT = """
SELECT shard, image_key, label, predicted, confidence FROM images
WHERE maps > 0 AND correct ORDER BY confidence DESC, image_key LIMIT ?
"""
_ANY = """
SELECT shard, image_key, label, predicted, confidence FROM images
WHERE maps > 0 ORDER BY confidence DESC, image_key LIMIT ?
"""
_WINS = """
SELECT one.method AS method, other.method AS other, count(*) AS images,
  avg((one.average_drop < other.average_drop)::INT) AS wins
FROM explanations one JOIN explanations other USING (shard, image_key, target)
WHERE one.method <> other.method AND one.average_drop IS NOT NULL AND other.average_drop IS NOT NULL
GROUP BY ALL ORDER BY method, other
"""
_ELSEWHERE = """
SELECT shard, image_key, label, predicted, confidence FROM explanations
WHERE predicted = label AND energy_in_box IS NOT NULL
GROUP BY ALL ORDER BY avg(energy_in_box), image_key LIMIT ?
"""


def collect(run: Run) -> dict[str, Any]:
    """Collect the facts of a run: provenance, coverage, accuracy, leaderboard, classes, gallery, failures."""
    (counts,) = run.arrow(_COUNTS).to_pylist()
    return {
        "facts_version": FACTS_VERSION,
        "run": {"id": run.manifest.run_id, "path": run.store.url, "started_at": run.manifest.started_at},
        "provenance": _provenance(run),
        "coverage": _coverage(run),
        "counts": counts,
        "leaderboard": _leaderboard(run),
        "metrics": _metrics(run),
        "wins": _wins(run),
        "classes": {"rows": _classes(run), "sql": _tidy(_CLASSES)},
        "gallery": _gallery(run),
        "failures": {"rows": run.arrow(_FAILURES).to_pylist(), "sql": _tidy(_FAILURES)},
        "method_pages": {name: method_page(METHODS[name]) for name in _method_kinds(run) if name in METHODS},
    }


def class_name(run: Run, index: int | None) -> str:
    """Name a class by index; the index itself when names are unknown."""
    if index is None:
        return "-"
    names = run.manifest.classes
    return names[index] if 0 <= index < len(names) else f"class {index}"


def _provenance(run: Run) -> dict[str, Any]:
    identity = run.manifest.identity
    return {
        "model": identity.model["name"],
        "weights sha256": identity.model["weights_sha256"],
        "target layer": identity.model["layer"],
        "targets": identity.targets,
        "precision": identity.precision,
        "seed": identity.seed,
        "preprocessing": identity.data["preprocess"],
        "shards": len(identity.shards),
        "shard bytes": sum(shard.size for shard in identity.shards),
        "annotations digest": identity.data["annotations"],
        "code": run.manifest.code,
        "packages": run.manifest.packages,
        "run file": run.manifest.config,
    }


def _coverage(run: Run) -> dict[str, Any]:
    findings = verify(run.store)
    return {
        "verified": not findings.problems,
        "problems": findings.problems[:20],
        "images": findings.images,
        "explained": findings.explained,
        "failed": findings.failed,
        "rows": findings.rows,
        "parts": findings.parts,
        "bytes": findings.bytes,
    }


APPROXIMATE = ("clusters", "channels")
"""Parameters of methods that save passes at a price."""


def _leaderboard(run: Run) -> dict[str, Any]:
    sql = "SELECT * FROM leaderboard"
    rows = run.arrow(sql).to_pylist()
    kinds = {label: METHODS.get(str(fields["name"])) for label, fields in run.manifest.identity.methods.items()}
    for row in rows:
        kind = kinds[row["method"]]
        row["interpretation"] = kind is not None and kind.interpretation
        fields = run.manifest.identity.methods[row["method"]]
        row["approximate"] = any(fields.get(name) is not None for name in APPROXIMATE)
    best: dict[str, float | None] = {}
    for name, metric in _metrics(run).items():
        known = [row[name] for row in rows if row[name] is not None]
        pick = {"higher": max, "lower": min}.get(metric["better"])
        best[name] = pick(known) if pick and known else None
    return {"rows": rows, "best": best, "sql": sql}


def _metrics(run: Run) -> dict[str, dict[str, Any]]:
    return {
        label: {
            "unit": METRICS[fields["name"]].unit,
            "better": METRICS[fields["name"]].better,
            "reads": METRICS[fields["name"]].reads,
        }
        for label, fields in run.manifest.identity.metrics.items()
        if not is_curve(label)
    }


def _wins(run: Run) -> dict[str, Any]:
    """How often each method drops less than each other; nothing without average_drop."""
    if "average_drop" not in _metrics(run) or len(run.manifest.identity.methods) < 2:
        return {"rows": [], "sql": _tidy(_WINS)}
    return {"rows": run.arrow(_WINS).to_pylist(), "sql": _tidy(_WINS)}


def _classes(run: Run) -> list[dict[str, Any]]:
    """One row a class, the largest first, with the mean of each metric and of each method's maps."""
    rows: list[dict[str, Any]] = run.arrow(_CLASSES).to_pylist()[:MOST_CLASSES]
    metrics = list(_metrics(run))
    for row in rows:
        row |= {"name": class_name(run, row["class"]), "metrics": {}, "mean_maps": {}}
    by_class = {row["class"]: row for row in rows}
    for method in run.manifest.identity.methods:
        table = run.arrow(_MAPS, [method])
        classes_N = table["class"].to_numpy()
        maps_Nuv = _scaled(decode_table(table))
        for index, row in by_class.items():
            chosen_N = classes_N == index
            row["mean_maps"][method] = _rounded(maps_Nuv[chosen_N])
            values = {name: table[name].to_numpy(zero_copy_only=False)[chosen_N] for name in metrics}
            row["metrics"][method] = {name: _mean(found) for name, found in values.items()}
    return rows


def _scaled(maps_Nuv: FloatArray) -> FloatArray:
    """Scale each map to [0, 1], so that no image outweighs another in the mean; constant maps become zero."""
    low_N11 = maps_Nuv.min((1, 2), keepdims=True, initial=np.inf)
    span_N11 = maps_Nuv.max((1, 2), keepdims=True, initial=-np.inf) - low_N11
    scaled: FloatArray = np.where(span_N11 > 0, (maps_Nuv - low_N11) / np.where(span_N11 > 0, span_N11, 1), 0)
    return scaled


def _rounded(maps_Nuv: FloatArray) -> list[list[float]]:
    if not len(maps_Nuv):
        return []
    return [[round(float(value), 4) for value in row] for row in maps_Nuv.mean(0)]


def _mean(values: npt.NDArray[np.floating[Any]]) -> float | None:
    known = values[np.isfinite(values.astype(np.float64))]
    return float(known.mean()) if len(known) else None


def _gallery(run: Run) -> list[dict[str, Any]]:
    """Groups of images that are worth a look, each with its rows of every method."""
    (counts,) = run.arrow(_COUNTS).to_pylist()
    groups = [("Wrong, and most confident", _WRONG), ("Right, and most confident", _RIGHT)]
    if "energy_in_box" in run.manifest.identity.metrics:
        groups.insert(1, ("Right, with the least energy in the box", _ELSEWHERE))
    if not counts["labelled"]:
        groups = [("Most confident", _ANY)]
    found = [(title, sql, run.arrow(sql, [GALLERY_IMAGES]).to_pylist()) for title, sql in groups]
    return [
        {"title": title, "sql": _tidy(sql), "images": [_item(run, image) for image in images]}
        for title, sql, images in found
        if images
    ]


def _item(run: Run, image: dict[str, Any]) -> dict[str, Any]:
    rows = run.arrow(_ROWS, [image["shard"], image["image_key"]]).to_pylist()
    metrics = _metrics(run)
    return {
        **image,
        "label_name": None if image["label"] is None else class_name(run, image["label"]),
        "predicted_name": class_name(run, image["predicted"]),
        "target_name": class_name(run, rows[0]["target"]),
        "methods": [
            {
                "method": row["method"],
                "map": _rounded(_scaled(decode_row(row)[None])),
                "degenerate": row["degenerate"],
                "metrics": {name: row[name] for name in metrics},
            }
            for row in rows
        ],
    }


def _method_kinds(run: Run) -> list[str]:
    return sorted({str(fields["name"]) for fields in run.manifest.identity.methods.values()})


def _tidy(sql: str) -> str:
    return " ".join(sql.split())
