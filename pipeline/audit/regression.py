"""The chapter of a model with one raw output, such as a regression: R2 and residuals against the labels.

Legend: I labelled images, R resamples.
"""

from typing import Any

import numpy as np

from pipeline.audit.ranking import UNDEFINED, estimate
from pipeline.audit.statistics import Numbers, Weights, bootstrap
from pipeline.audit.tables import Table, query_table
from pipeline.results.query import Run

MAX_POINTS, BINS = 400, 20

_OUTPUTS = """
SELECT shard, image_key, any_value(label) AS label, any_value(target_logit) AS output FROM parts
WHERE label IS NOT NULL AND target_logit IS NOT NULL GROUP BY shard, image_key ORDER BY shard, image_key
"""


def regression(run: Run) -> dict[str, Any]:
    """Compute the chapter; where outputs cannot be judged it holds the reason."""
    sentence = "" if is_single(run) else (
        "The outputs cannot be judged: the run lists the outputs that it explains, and its rows do not tell which of "
        "them the label belongs to. For a model with one output, targets: predicted gives R2 and residuals."
    )  # fmt: skip
    table: Table = {"rows": [], "sql": ""} if sentence else query_table(run, _OUTPUTS)
    label_I, output_I = (np.array([row[name] for row in table["rows"]], np.float64) for name in ("label", "output"))
    if not sentence and len(label_I) < 2:
        sentence = (
            "The outputs cannot be judged: fewer than two explained images have a label. A label is an integer, which "
            "is compared with the output."
        )
    measured = {} if sentence else _measured(label_I, output_I, run.manifest.identity.seed)
    return {
        "sentence": sentence,
        "images": len(label_I),
        "r2": UNDEFINED, "mean_absolute": UNDEFINED, "root_mean_square": UNDEFINED, "mean_residual": UNDEFINED,
        "quantiles": [], "histogram": [], "points": [],
        **measured,
        "outputs_sql": table["sql"],
    }  # fmt: skip


def is_single(run: Run) -> bool:
    """Tell whether the model has a single output: only then raw outputs may have targets other than a list."""
    return not run.manifest.identity.targets.startswith("classes")


def _measured(label_I: Numbers, output_I: Numbers, seed: int) -> dict[str, Any]:
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score  # costs time to import

    residual_I = output_I - label_I
    columns_I4 = np.stack([residual_I**2, np.abs(residual_I), residual_I, label_I - label_I.mean()], axis=1)
    spread_I = columns_I4[:, 3] ** 2

    def statistic(weights_RI: Weights) -> Numbers:
        weights_RI = weights_RI.astype(np.float64) / weights_RI.sum(1, keepdims=True)
        means_R4 = weights_RI @ columns_I4
        variance_R = weights_RI @ spread_I - means_R4[:, 3] ** 2
        known_R = variance_R > 1e-12 * max(1.0, float(spread_I.max()))
        r2_R = np.where(known_R, 1 - means_R4[:, 0] / np.where(known_R, variance_R, 1), np.nan)
        found_R4: Numbers = np.stack([r2_R, means_R4[:, 1], np.sqrt(means_R4[:, 0]), means_R4[:, 2]], axis=1)
        return found_R4

    drawn_R4 = bootstrap(statistic, np.zeros(len(label_I), np.int64), seed)
    r2 = r2_score(label_I, output_I) if spread_I.any() else None
    return {
        "r2": UNDEFINED if r2 is None else estimate(r2, drawn_R4[:, 0]),
        "mean_absolute": estimate(mean_absolute_error(label_I, output_I), drawn_R4[:, 1]),
        "root_mean_square": estimate(mean_squared_error(label_I, output_I) ** 0.5, drawn_R4[:, 2]),
        "mean_residual": estimate(residual_I.mean(), drawn_R4[:, 3]),
        "quantiles": [
            {"share": share, "residual": float(np.quantile(residual_I, share))}
            for share in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
        ],
        "histogram": _histogram(residual_I),
        "points": _points(label_I, output_I),
    }


def _histogram(residual_I: Numbers) -> list[dict[str, float]]:
    counts, edges = np.histogram(residual_I, BINS)
    return [
        {"from": float(low), "to": float(high), "images": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _points(label_I: Numbers, output_I: Numbers) -> list[dict[str, float]]:
    step = max(1, -(-len(label_I) // MAX_POINTS))
    return [
        {"label": float(label), "output": float(output)}
        for label, output in zip(label_I[::step], output_I[::step], strict=True)
    ]
