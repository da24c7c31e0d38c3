"""Gallery of the report: groups of images worth inspecting, each image with the map of every method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.maps import Maps
from pipeline.audit.regression import is_single
from pipeline.audit.tables import class_name, label_name, target_name, tidy
from pipeline.audit.values import Place, Values, metric_label, metric_labels
from pipeline.maps.codec import FloatArray
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run, decode_row
from pipeline.results.sql_engine import quoted

_ORDERED = (
    "SELECT shard, image_key FROM images WHERE maps > 0 AND {condition} ORDER BY {order}, shard, image_key LIMIT {n}"
)
_RELIANCE = """
SELECT shard, image_key FROM explanations WHERE {right} AND target = predicted AND {energy} IS NOT NULL
  AND {removed} {sign} 0.5
GROUP BY shard, image_key ORDER BY avg({energy}), shard, image_key LIMIT {n}
"""
_ELSEWHERE = """
SELECT shard, image_key FROM explanations WHERE {right} AND {energy} IS NOT NULL
GROUP BY shard, image_key ORDER BY avg({energy}), shard, image_key LIMIT {n}
"""
_OUTPUTS = """
SELECT shard, image_key FROM explanations WHERE {order} IS NOT NULL
GROUP BY shard, image_key ORDER BY max({order}) DESC, shard, image_key LIMIT {n}
"""
_COUNT = "SELECT count(*) AS images FROM ({sql})"
_RIGHT_OF_LABELS = "(shard, image_key) IN (SELECT (shard, image_key) FROM images WHERE correct)"
_ROWS = """
SELECT * FROM explanations
JOIN (SELECT unnest(?::VARCHAR[]) AS shard, unnest(?::VARCHAR[]) AS image_key) USING (shard, image_key)
QUALIFY target = first_value(target) OVER (
  PARTITION BY shard, image_key ORDER BY target <> coalesce(label, predicted), target <> predicted, target)
ORDER BY shard, image_key, method
"""


@dataclass(frozen=True)
class Group:
    """One group of the gallery.

    Attributes:
        title: what the images have in common.
        note: what that means, or how the images were chosen.
        sql: the query that chose the images; "" for groups chosen by their maps.
        places: the images, in order.
        total: number of images that meet the condition.
    """

    title: str
    note: str
    sql: str
    places: list[Place]
    total: int


def groups(run: Run, values: Values, maps: Maps, size: int) -> list[Group]:
    """Choose the images of every group; groups without images are left out."""
    if not OutputKind.of(run.manifest).has_confidences:
        return [group for group in _by_output(run, size) if group.places]
    labelled = bool(np.isfinite(values.correct_I).any())
    chosen = [*_labelled(run, values, maps, size)] if labelled else [_most(run, "Most confident", "true", size)]
    note = "The confidence of the prediction is below 0.5."
    chosen.append(_ordered(run, "Least confident", note, "confidence < 0.5", "confidence", size))
    return [group for group in chosen if group.places]


def _by_output(run: Run, size: int) -> list[Group]:
    """Choose images by their raw outputs, and by the residuals where the label is the value of the only output."""
    orders = {"Largest outputs": "target_logit", "Smallest outputs": "-target_logit"}
    if is_single(run):
        orders = {"Largest residuals": "abs(target_logit - label)", **orders}
    sqls = {title: _OUTPUTS.format(order=order, n=size) for title, order in orders.items()}
    return [_group(run, title, "", sql) for title, sql in sqls.items()]


def _labelled(run: Run, values: Values, maps: Maps, size: int) -> list[Group]:
    agreement_I = maps.agreement()
    right_I, wrong_I = values.correct_I == 1, values.correct_I == 0
    suspects_I = np.where(wrong_I & (values.confidences_I >= 0.8), np.nan_to_num(agreement_I, nan=-1), -np.inf)
    disagreeing_I = np.where(right_I & np.isfinite(agreement_I), -agreement_I, -np.inf)
    return [
        _most(run, "Wrong predictions, most confident first", "NOT correct", size),
        *_elsewhere(run, size),
        _chosen(
            values, "Correct, but the methods disagree",
            "Lowest mean correlation between the maps of the methods. Do not rely on any one of these maps.",
            disagreeing_I, size,
        ),
        _chosen(
            values, "Possible label errors",
            "Wrong predictions with a confidence of at least 0.8, by falling agreement between the methods' maps.",
            suspects_I, size,
        ),
        _most(run, "Correct predictions, most confident first", "correct", size),
    ]  # fmt: skip


def _most(run: Run, title: str, condition: str, size: int) -> Group:
    return _ordered(run, title, "", condition, "confidence DESC", size)


def _ordered(run: Run, title: str, note: str, condition: str, order: str, size: int) -> Group:
    return _group(run, title, note, _ORDERED.format(condition=condition, order=order, n=size))


def _elsewhere(run: Run, size: int) -> list[Group]:
    """Choose correct predictions with the least energy in the box, split by the confidence without the object."""
    energy, removed = metric_label(run, "energy_in_box"), metric_label(run, "box_removed_confidence")
    if energy is None:
        return []
    right = _RIGHT_OF_LABELS if OutputKind.of(run.manifest).is_independent else "predicted = label"
    if removed is None:
        sql = _ELSEWHERE.format(right=right, energy=quoted(energy), n=size)
        return [
            _group(
                run,
                "Correct, with the least energy in the box",
                "Grade: seen. The run did not measure the confidence without the object.",
                sql,
            )
        ]
    columns = {"right": right, "energy": quoted(energy), "removed": quoted(removed)}
    sqls = [_RELIANCE.format(**columns, sign=sign, n=size) for sign in (">=", "<")]
    return [
        _group(
            run, "Right for the wrong reason",
            "Correct predictions with the least energy in the box, whose confidence without the object is 0.5 or more.",
            sqls[0],
        ),
        _group(
            run, "Correct, with the least energy in the box, and the object is needed",
            "The confidence without the object is below 0.5. Either the object is small for the grid of the maps, or "
            "the maps are misleading.",
            sqls[1],
        ),
    ]  # fmt: skip


def _chosen(values: Values, title: str, note: str, order_by_I: Any, size: int) -> Group:  # noqa: ANN401 - numpy
    order = np.argsort(-order_by_I, kind="stable")[:size]
    places = [values.places[row] for row in order if np.isfinite(order_by_I[row])]
    return Group(title, note, "", places, int(np.isfinite(order_by_I).sum()))


def _group(run: Run, title: str, note: str, sql: str) -> Group:
    """Run the query of a group, and count its images without the limit."""
    unlimited, _, _ = sql.rpartition(" LIMIT ")
    (counted,) = run.arrow(_COUNT.format(sql=unlimited)).to_pylist()
    return Group(title, note, sql, _places(run, sql), int(counted["images"]))


def _places(run: Run, sql: str) -> list[Place]:
    return [(row["shard"], row["image_key"]) for row in run.arrow(sql).to_pylist()]


def describe_groups(run: Run, chosen: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the groups as plain JSON, with the details of their images."""
    items = image_details(run, sorted({place for group in chosen for place in group.places}))
    return [
        {
            "title": group.title,
            "note": group.note,
            "sql": tidy(group.sql),
            "total": group.total,
            "images": [items[place] for place in group.places if place in items],
        }
        for group in chosen
    ]


def image_details(run: Run, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
    """Return label, prediction, and the map and metrics of every method for some images."""
    if not places:
        return {}
    items: dict[Place, dict[str, Any]] = {}
    labels = metric_labels(run)
    for row in run.arrow(_ROWS, [[shard for shard, _ in places], [key for _, key in places]]).to_pylist():
        place = (row["shard"], row["image_key"])
        item = items.setdefault(place, _item(run, row))
        item["methods"].append(
            {
                "method": row["method"],
                "map": _listed(decode_row(row)),
                "degenerate": row["degenerate"],
                "metrics": {name: row[name] for name in labels},
            }
        )
    return items


def _item(run: Run, row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("shard", "image_key", "label", "predicted", "confidence")},
        **({} if OutputKind.of(run.manifest).has_confidences else {"output": row["target_logit"]}),
        "label_name": label_name(run, row["label"]),
        "predicted_name": class_name(run, row["predicted"]),
        "target_name": target_name(run, row["target"]),
        "methods": [],
    }


def _listed(map_uv: FloatArray) -> list[list[float]]:
    """Scale a map to [0, 1] at its own grid; a constant map becomes zero."""
    low, span = float(map_uv.min()), float(np.ptp(map_uv))
    return [[round((float(value) - low) / span, 3) if span > 0 else 0.0 for value in row] for row in map_uv]
