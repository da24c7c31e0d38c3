"""Queries that a reader of a failed check can run, to see what it is about; they are printed, and never run here."""

from pipeline.audit.checks.file import Check
from pipeline.audit.checks.quantities import DEGENERATE
from pipeline.audit.checks.selecting import literal, selection
from pipeline.results.query import Run
from pipeline.results.sql_engine import quoted

_IMAGES = "SELECT shard, image_key, label_name, predicted_name, confidence FROM images WHERE"
_OF_IMAGES = {
    "accuracy": _IMAGES + " NOT correct AND {where} ORDER BY confidence DESC",
    "calibration_error": _IMAGES + " correct IS NOT NULL AND {where} ORDER BY abs(confidence - correct::INT) DESC",
    "mean_confidence": _IMAGES + " {where} ORDER BY confidence",
    "failures": "SELECT * FROM failures WHERE {where}",
    "failure_rate": "SELECT * FROM failures WHERE {where}",
}
_COUNTS = (
    "SELECT shard, count(*) AS images, count(*) FILTER (maps > 0) AS explained, count(label) AS labelled FROM images "
    "WHERE {where} GROUP BY shard ORDER BY shard"
)
_OF_MAPS = (
    "SELECT shard, image_key, target_name, {column} FROM explanations WHERE {column} IS NOT NULL AND {maps} AND "
    "{where} ORDER BY {column} {order}"
)
_CONSTANT = "SELECT shard, image_key, target_name FROM explanations WHERE degenerate AND {maps} AND {where}"
_WHOLE = ""


def closer(run: Run, check: Check, slice_name: str | None = _WHOLE) -> str:
    """Return a query that lists the images of a check, or of one slice, the worst first; or the check's own query."""
    quantity = check.quantity
    if quantity is None:
        return " ".join(check.sql.split())
    if quantity.name == "findings":
        return ""
    chosen = selection(run, check, quantity, literal)
    where = chosen.where
    if check.by and slice_name != _WHOLE:
        known = "IS NULL" if slice_name is None else f"= {literal(slice_name)}"
        where = f"{where} AND {chosen.slice} {known}"
    if not quantity.is_metric:
        return _tidy(_OF_IMAGES.get(quantity.name, _COUNTS).format(where=where))
    if quantity.name == DEGENERATE:
        return _tidy(_CONSTANT.format(maps=chosen.maps, where=where))
    order = "DESC" if check.bounds[0].operator.startswith("<") else "ASC"
    return _tidy(_OF_MAPS.format(column=quoted(quantity.name), maps=chosen.maps, where=where, order=order))


def _tidy(sql: str) -> str:
    """Leave out conditions that always hold."""
    return sql.replace(" AND true", "").replace(" WHERE true", "")
