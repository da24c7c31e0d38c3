"""Drift between two runs over different images: classes, confidences, metrics and properties of maps.

Distributions are compared, not images. Classes are counted over all images of both runs. Numbers are compared on the
samples of the runs. A difference has a test and an effect size, since with many images every test is significant.

Legend: C classes, m images of this run, n images of the other run, I images, (u, v) cells.
"""

from typing import Any

import numpy as np

from pipeline.audit.maps import Bytes, Maps
from pipeline.audit.slice_tests import Z
from pipeline.audit.statistics import Numbers, holm
from pipeline.audit.tables import class_name
from pipeline.audit.values import Values
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run

LEAST = 8
"""Values of each run from which a number is compared."""

DRAWS, SHOWN_CLASSES = 999, 15
"""Random divisions of the images of both runs that give p, and classes that are shown, largest difference first."""

SIZES = ((0.474, "large"), (0.33, "medium"), (0.147, "small"), (0.0, "negligible"))
"""Sizes of Cliff's delta (Romano et al., 2006). The total variation distance has the same range and uses them, too."""

_CLASSES = {
    "predicted class": "SELECT predicted AS class, count(*) AS images FROM images WHERE maps > 0 AND predicted IS NOT "
    "NULL GROUP BY 1 ORDER BY 1",
    "label": "SELECT label AS class, count(*) AS images FROM images WHERE maps > 0 AND label IS NOT NULL GROUP BY 1 "
    "ORDER BY 1",
}
PROPERTIES = {
    "concentration": "share of the heat in the tenth of the cells that have most",
    "entropy": "of the heat over the cells, divided by its maximum",
    "height of the centre": "row of the centre of the heat, 0 at the top and 1 at the bottom",
    "side of the centre": "column of the centre of the heat, 0 at the left and 1 at the right",
}


def drift(run: Run, values: Values, maps: Maps, other: Run, others: Values, other_maps: Maps) -> dict[str, Any]:
    """Compare the distributions of two runs; the chapter holds the reason where a quantity cannot be compared."""
    same_classes = run.manifest.classes == other.manifest.classes
    categories = [row for name, sql in _CLASSES.items() if (row := _classes(run, other, name, sql)) is not None]
    rows = [row for row in _numbers(values, maps, others, other_maps) if row is not None]
    tested = [(row, name) for row in (*categories, *rows) for name in ("p", "p_shape") if row.get(name) is not None]
    for (row, name), p in zip(tested, holm([row[name] for row, name in tested]), strict=True):
        row[name] = p
    rows.sort(key=lambda row: (-abs(row["effect"]), row["quantity"], row["method"]))
    return {
        "run": {"id": other.manifest.run_id, "model": other.manifest.identity.model["name"],
                "weights sha256": other.manifest.identity.model["weights_sha256"]},
        "images": [values.sample.of, others.sample.of],
        "samples": [values.sample.to_json(), others.sample.to_json()],
        "classes": categories,
        "rows": rows,
        "tests": len(tested),
        "definitions": PROPERTIES,
        "notes": _notes(run, other, categories, same_classes=same_classes),
    }  # fmt: skip


def _notes(run: Run, other: Run, categories: list[dict[str, Any]], *, same_classes: bool) -> list[str]:
    """Say what limits the comparison."""
    notes = []
    if not same_classes:
        notes.append("The runs have different lists of classes: classes are matched by name.")
    if run.manifest.identity.model != other.manifest.identity.model:
        notes.append("The runs have different models: a difference may come from the model as well as from the images.")
    if "label" not in [row["quantity"] for row in categories] and OutputKind.of(run.manifest).has_confidences:
        notes.append("Labels were not compared: at least one of the runs has none.")
    missing = sorted(set(run.manifest.identity.methods) ^ set(other.manifest.identity.methods))
    if missing:
        notes.append(f"Not compared, because only one run has them: {', '.join(missing)}.")
    return notes


def _classes(run: Run, other: Run, name: str, sql: str) -> dict[str, Any] | None:
    """Compare how often each class occurs; None where a run has no class."""
    if not all(OutputKind.of(each.manifest).has_confidences for each in (run, other)):
        return None
    sides = [
        {class_name(each, row["class"]): row["images"] for row in each.arrow(sql).to_pylist()} for each in (run, other)
    ]
    if not all(sides):
        return None
    names = sorted(sides[0].keys() | sides[1].keys())
    counts_2C = np.array([[side.get(one, 0) for one in names] for side in sides], np.float64)
    totals_2 = counts_2C.sum(1)
    shares_2C = counts_2C / totals_2[:, None]
    order = np.argsort(-np.abs(shares_2C[0] - shares_2C[1]), kind="stable")[:SHOWN_CLASSES]
    distance = float(np.abs(shares_2C[0] - shares_2C[1]).sum() / 2)
    drawn_R = _drawn(counts_2C, run.manifest.identity.seed)
    by_chance = float(drawn_R.mean())
    here_C, there_C = shares_2C
    return {
        "quantity": name, "images": totals_2.astype(int).tolist(), "effect": distance, "by_chance": by_chance,
        "p": float((1 + (drawn_R >= distance - 1e-12).sum()) / (1 + DRAWS)), "cramer": _cramer(counts_2C),
        "classes": len(names), "size": size_of(max(0.0, distance - by_chance)), "sql": sql,
        "largest": [{"class": names[i], "here": float(here_C[i]), "there": float(there_C[i])} for i in order],
    }  # fmt: skip


def _drawn(counts_2C: Numbers, seed: int) -> Numbers:
    """Return the total variation distance of two samples of these sizes, drawn at random from all images, (R,)."""
    total_C, sizes_2 = counts_2C.sum(0).astype(np.int64), counts_2C.sum(1)
    random = np.random.default_rng(seed)
    distances = []
    for _ in range(DRAWS):
        here_C = random.multivariate_hypergeometric(total_C, int(sizes_2[0]), method="marginals")
        distances.append(np.abs(here_C / sizes_2[0] - (total_C - here_C) / sizes_2[1]).sum() / 2)
    return np.array(distances)


def _cramer(counts_2C: Numbers) -> float | None:
    """Return Cramér's V without its bias (Bergsma, Journal of the Korean Statistical Society 2013)."""
    total, freedom = counts_2C.sum(), counts_2C.shape[1] - 1
    if not freedom:
        return None
    expected_2C = counts_2C.sum(1, keepdims=True) * counts_2C.sum(0) / total
    chi_square = ((counts_2C - expected_2C) ** 2 / expected_2C).sum()
    phi = max(0.0, chi_square / total - freedom / (total - 1))
    return float(np.sqrt(phi / max(1e-12, min(1 - 1 / (total - 1), freedom - freedom**2 / (total - 1)))))


def _numbers(values: Values, maps: Maps, others: Values, other_maps: Maps) -> list[dict[str, Any] | None]:
    """Compare confidences, the metrics of both runs, and the properties of the maps of methods of both runs."""
    found = [compared("confidence", "", "", values.confidences_I, others.confidences_I)]
    for rule, method, metric in values.columns:
        if (rule, method, metric) in others.columns:
            pair = (_column(one, (rule, method, metric)) for one in (values, others))
            found.append(compared(metric, method, rule, *pair))
    for method in maps.by_method:
        if method in other_maps.by_method:
            here, there = (properties(one.by_method[method]) for one in (maps, other_maps))
            found += [compared(name, method, "", here[name], there[name]) for name in PROPERTIES]
    return found


def _column(values: Values, column: tuple[str, str, str]) -> Numbers:
    place = values.columns[column]
    counts_I = values.counts_IK[:, place]
    means_I: Numbers = np.where(counts_I > 0, values.sums_IK[:, place] / np.maximum(counts_I, 1), np.nan)
    return means_I


def compared(quantity: str, method: str, rule: str, here_m: Numbers, there_n: Numbers) -> dict[str, Any] | None:
    """Compare two samples of a number; None with fewer than LEAST values in either of them.

    The tests are those of Mann and Whitney (`p`: larger or smaller) and of Kolmogorov and Smirnov (`p_shape`: any
    difference).
    """
    from scipy.stats import ks_2samp, mannwhitneyu  # costs time to import

    here_m, there_n = (np.asarray(one[np.isfinite(one)], np.float64) for one in (here_m, there_n))
    if min(len(here_m), len(there_n)) < LEAST:
        return None
    delta, low, high = cliffs_delta(here_m, there_n)
    constant = not np.ptp(np.concatenate([here_m, there_n]))
    return {
        "quantity": quantity, "method": method, "target_rule": rule, "images": [len(here_m), len(there_n)],
        "here": float(np.median(here_m)), "there": float(np.median(there_n)),
        "effect": delta, "low": low, "high": high, "size": size_of(delta),
        "p": 1.0 if constant else float(mannwhitneyu(here_m, there_n, method="asymptotic").pvalue),
        "p_shape": 1.0 if constant else float(ks_2samp(here_m, there_n, method="asymp").pvalue),
    }  # fmt: skip


def cliffs_delta(here_m: Numbers, there_n: Numbers) -> tuple[float, float, float]:
    """Return Cliff's delta with its 95 % interval (Cliff, Psychological Bulletin 1993).

    delta = P(x > y) - P(x < y); its variance is estimated from d_i = the mean of sign(x_i - y) over y, and d_j
    likewise, as in DeLong's test. The interval is that of Fisher's z, so that it stays in [-1, 1].
    """
    sorted_m, sorted_n = np.sort(here_m), np.sort(there_n)
    own_m = _signs(here_m, sorted_n)
    delta = float(own_m.mean())
    other_n = -_signs(there_n, sorted_m)
    variance = own_m.var(ddof=1) / len(own_m) + other_n.var(ddof=1) / len(other_n)
    inner = float(np.clip(delta, -1 + 1e-9, 1 - 1e-9))
    half = Z * float(np.sqrt(variance)) / (1 - inner**2)
    if abs(delta) == 1:  # complete separation has no variance: half a pair counts as the other way round
        edge = 1 - 1 / min(len(own_m), len(other_n))
        return delta, *((edge, 1.0) if delta > 0 else (-1.0, -edge))
    return delta, float(np.tanh(np.arctanh(inner) - half)), float(np.tanh(np.arctanh(inner) + half))


def _signs(values_m: Numbers, sorted_n: Numbers) -> Numbers:
    """Return, for each value, the share of smaller minus the share of larger values of the other sample."""
    smaller_m = np.searchsorted(sorted_n, values_m, "left")
    larger_m = len(sorted_n) - np.searchsorted(sorted_n, values_m, "right")
    signs_m: Numbers = (smaller_m - larger_m) / len(sorted_n)
    return signs_m


def size_of(effect: float) -> str:
    """Name the size of an effect."""
    return next(name for least, name in SIZES if abs(effect) >= least)


def properties(maps_Iuv: Bytes, at_once: int = 4096) -> dict[str, Numbers]:
    """Measure the properties of maps; those of constant maps are NaN."""
    parts = [_properties(maps_Iuv[start : start + at_once]) for start in range(0, len(maps_Iuv), at_once)]
    return {name: np.concatenate([part[name] for part in parts] or [np.zeros(0)]) for name in PROPERTIES}


def _properties(maps_Iuv: Bytes) -> dict[str, Numbers]:
    count, height, width = maps_Iuv.shape
    heat_Iuv = maps_Iuv.astype(np.float64)
    total_I = heat_Iuv.sum((1, 2))
    heat_Iuv /= np.where(total_I > 0, total_I, np.nan)[:, None, None]
    cells_IP = heat_Iuv.reshape(count, -1)
    most = max(1, round(cells_IP.shape[1] / 10))
    logs_IP = np.log(np.where(cells_IP > 0, cells_IP, 1))
    return {
        "concentration": np.sort(cells_IP, axis=1)[:, -most:].sum(1),
        "entropy": -(cells_IP * logs_IP).sum(1) / np.log(cells_IP.shape[1]),
        "height of the centre": heat_Iuv.sum(2) @ np.linspace(0, 1, height),
        "side of the centre": heat_Iuv.sum(1) @ np.linspace(0, 1, width),
    }
