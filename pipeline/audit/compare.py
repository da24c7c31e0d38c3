"""Comparison of two runs over the same images: changed predictions, paired metric differences, maps of both runs.

Pairs are taken from the sample of the smaller run, and looked up among all images of the larger one.
"""

from typing import Any

import numpy as np

from pipeline.audit.absent import absent
from pipeline.audit.gallery import image_details
from pipeline.audit.statistics import differences, holm, paired_p, resampled
from pipeline.audit.tables import class_name
from pipeline.audit.values import Column, Place, Values, values_at
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run

MAX_PAIRS = 12


def compare_runs(run: Run, values: Values, other: Run, others: Values) -> dict[str, Any] | None:
    """Compare a run with another one, image by image (same shard name and image key); None without a common image."""
    sizes = [values.sample.of, others.sample.of]
    smaller = values if sizes[0] <= sizes[1] else others
    if not values.sample.is_whole and smaller is others:
        values = values_at(run, others.places)
    elif not others.sample.is_whole:
        others = values_at(other, values.places)
    rows, partners = _matched(values, others)
    if not len(rows):
        return None
    counted = smaller.sample.is_whole
    changed = np.flatnonzero(values.predicted_I[rows] != others.predicted_I[partners])
    raw = [kind for each in (run, other) if not (kind := OutputKind.of(each.manifest)).has_confidences]
    changed = changed[:0] if raw else changed
    return {
        "run": {"id": other.manifest.run_id, "model": other.manifest.identity.model["name"],
                "weights sha256": other.manifest.identity.model["weights_sha256"]},
        "images": len(rows),
        "only_here": sizes[0] - len(rows) if counted else None,
        "only_there": sizes[1] - len(rows) if counted else None,
        "drawn": smaller.sample.sentence,
        "same_images": len(rows) == smaller.sample.images and sizes[0] == sizes[1],
        "changed": len(changed),
        "answers": _correctness(values, others, rows, partners),
        "metrics": _metrics(run, values, others, rows, partners),
        "pairs": _pairs(run, other, values, others, rows[changed], partners[changed]),
        **({"not_compared": absent(raw[0])["compare"]} if raw else {}),
    }  # fmt: skip


def _matched(values: Values, others: Values) -> tuple[Any, Any]:
    other_row = {place: index for index, place in enumerate(others.places)}
    pairs = [(row, other_row[place]) for row, place in enumerate(values.places) if place in other_row]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _correctness(values: Values, others: Values, rows: Any, partners: Any) -> dict[str, Any]:  # noqa: ANN401 - numpy
    """Count the images that both, one or neither run predicts correctly, with the p of McNemar's exact test."""
    from scipy.stats import binomtest  # costs time to import

    mine, theirs = values.correct_I[rows], others.correct_I[partners]
    known = np.isfinite(mine) & np.isfinite(theirs)
    here, there = mine[known] == 1, theirs[known] == 1
    only_here, only_there = int((here & ~there).sum()), int((there & ~here).sum())
    discordant = only_here + only_there
    return {
        "judged": int(known.sum()),
        "both": int((here & there).sum()),
        "only_here": only_here,
        "only_there": only_there,
        "neither": int((~here & ~there).sum()),
        "p": float(binomtest(only_here, discordant).pvalue) if discordant else None,
    }


def _metrics(run: Run, values: Values, others: Values, rows: Any, partners: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Compare the mean of every column of both runs on images with a value in both; difference = run minus other."""
    shared = [column for column in values.columns if column in others.columns]
    if not shared:
        return []
    here = [_column(values, column, rows) for column in shared]
    there = [_column(others, column, partners) for column in shared]
    paired = [differences(one, other) for one, other in zip(here, there, strict=True)]
    common = [
        [(sums * known, known) for (sums, _), (_, known) in zip(side, paired, strict=True)] for side in (here, there)
    ]
    whole = [*common[0], *common[1], *paired]
    sums_IK, counts_IK = (np.stack([one[side] for one in whole], axis=1) for side in (0, 1))
    drawn = resampled(sums_IK, counts_IK, values.classes_I[rows], run.manifest.identity.seed)
    compared: list[dict[str, Any]] = []
    for index, (rule, method, metric) in enumerate(shared):
        difference = drawn.difference(2 * len(shared) + index)
        means = [float(drawn.mean_K[side * len(shared) + index]) for side in (0, 1)]
        compared.append({
            "target_rule": rule, "method": method, "metric": metric, "images": int(paired[index][1].sum()),
            "here": means[0], "there": means[1], "difference": difference.value, "low": difference.low,
            "high": difference.high, "p": paired_p(paired[index]),
        })  # fmt: skip
    tested = [row for row in compared if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p"] = p
    return compared


def _column(values: Values, column: Column, rows: Any) -> tuple[Any, Any]:  # noqa: ANN401 - numpy
    """Return the mean of a column for each image, and 1 where the image has a value, else 0."""
    index = values.columns[column]
    counts_I = values.counts_IK[rows, index]
    return values.sums_IK[rows, index] / np.maximum(counts_I, 1), (counts_I > 0).astype(np.float32)


def _pairs(run: Run, other: Run, values: Values, others: Values, rows: Any, partners: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return the changed predictions with the maps of both runs, ordered by the lower confidence of the two."""
    confidence = np.minimum(values.confidences_I[rows], others.confidences_I[partners])
    chosen: list[Place] = [values.places[rows[i]] for i in np.argsort(-confidence, kind="stable")[:MAX_PAIRS]]
    before, after = image_details(other, sorted(chosen)), image_details(run, sorted(chosen))
    return [
        {
            **{name: after[place][name] for name in ("shard", "image_key", "label_name")},
            "here": after[place],
            "there": {**before[place], "predicted_name": class_name(other, before[place]["predicted"])},
        }
        for place in chosen
        if place in before and place in after
    ]
