"""Anomalous shards: labels that disagree with the model more than in other shards, and excess failures."""

from typing import Any

from pipeline.audit.excess import Excess, excesses
from pipeline.audit.findings import Effect, Finding, percent
from pipeline.audit.statistics import holm, wilson
from pipeline.audit.tables import query_table
from pipeline.results.query import Run

MIN_EXCESS = 0.15
"""The error rate of a shard must exceed that of the same classes in other shards by at least this."""

MIN_FAILURE_EXCESS = 0.05
"""The failure rate of a shard must exceed that of the other shards by at least this."""

SHARDS = """
SELECT shard, count(*) AS images, count(*) FILTER ({failed}) AS failed, avg(correct::INT) AS accuracy,
  avg(confidence) AS mean_confidence FROM images GROUP BY shard ORDER BY failed DESC, accuracy, shard
"""
_CONFIDENCES = """
SELECT avg(confidence) AS overall, avg(confidence) FILTER (shard = ? AND NOT correct) AS wrong
FROM images WHERE maps > 0
"""
_DAMAGE = """
SELECT shard, count(*) AS damages, min(error_detail) AS detail FROM failures WHERE error_stage = 'shard'
GROUP BY shard ORDER BY shard
"""


def shards(run: Run) -> tuple[dict[str, Any], list[Finding]]:
    """Compute the section (the worst shards), and findings about wrong labels and failed images."""
    table, damage = query_table(run, SHARDS.format(failed=_failed(run))), query_table(run, _DAMAGE)
    findings = [*_labels(run), *_failures(table["rows"], damage["rows"])]
    return {"worst": {**table, "rows": table["rows"][:20]}, "damage": damage, "count": len(table["rows"])}, findings


def _failed(run: Run) -> str:
    """Return the SQL that tells whether an image failed; one without a class above the threshold did not."""
    above = run.manifest.identity.targets.startswith("above")
    return "maps = 0" + (" AND error_code IS DISTINCT FROM 'no_target'" if above else "")


def _labels(run: Run) -> list[Finding]:
    """Report shards with an excess of wrong predictions over the same classes elsewhere, on both halves."""
    first, second = excesses(run)
    findings = []
    for group in sorted(set(first) & set(second)):
        both = (first[group], second[group])
        if all(one.p < 0.01 and one.errors - one.elsewhere >= MIN_EXCESS for one in both):
            findings.append(_label_finding(run, group[1], second[group]))
    return findings


def _label_finding(run: Run, shard: str, excess: Excess) -> Finding:
    low, high = wilson(round(excess.errors * excess.images), excess.images)
    means = run.arrow(_CONFIDENCES, [shard]).to_pylist()[0]
    confident = means["wrong"] >= means["overall"] - 0.1
    why = (
        "Their confidence is at most 0.1 below the mean of the run, so the labels are suspect."
        if confident
        else "Their confidence is more than 0.1 below the mean of the run, so the images may differ too."
    )
    return Finding(
        "shard_labels", shard, shard, "shards", "replicated",
        f"The predictions disagree with {percent(excess.errors)} of the labels of shard {shard} "
        f"({percent(excess.elsewhere)} for the same classes in other shards). {why}",
        Effect("labels that disagree with the prediction", excess.errors, low or 0.0, high or 0.0, excess.images),
        "The error rates of all shards were tested on each half of the images (p < 0.01 on both, with Holm's "
        "correction for the number of shards). The value is that of the held-out half.",
        "See 'Possible label errors' in the gallery, and compare the labels of this shard with their source.",
    )  # fmt: skip


def _failures(rows: list[dict[str, Any]], damage: list[dict[str, Any]]) -> list[Finding]:
    """Report the worst shard with a damaged file, or with more failures than the other shards (Fisher's exact test)."""
    from scipy.stats import fisher_exact  # costs time to import

    damaged = dict.fromkeys(row["shard"] for row in damage)
    images, failed = sum(row["images"] for row in rows), sum(row["failed"] for row in rows)
    ps = holm([
        1.0 if not row["failed"] else float(fisher_exact([[row["failed"], row["images"] - row["failed"]],
                            [failed - row["failed"], images - row["images"] - failed + row["failed"]]],
                           alternative="greater").pvalue)
        for row in rows
    ])  # fmt: skip
    elsewhere = {row["shard"]: (failed - row["failed"]) / max(1, images - row["images"]) for row in rows}
    bad = [
        row
        for row, p in zip(rows, ps, strict=True)
        if row["shard"] in damaged
        or (p < 0.01 and row["failed"] / row["images"] - elsewhere[row["shard"]] >= MIN_FAILURE_EXCESS)
    ]
    listed = {row["shard"] for row in rows}
    bad += [{"shard": shard, "images": 0, "failed": 0} for shard in damaged if shard not in listed]
    if not bad:
        return []
    worst = max(bad, key=lambda row: (row["failed"] / max(1, row["images"]), row["shard"] in damaged, row["shard"]))
    return [_failure_finding(worst, worst["shard"] in damaged, len(bad) - 1)]


def _failure_finding(worst: dict[str, Any], damaged: bool, others: int) -> Finding:
    share = worst["failed"] / max(1, worst["images"])
    low, high = wilson(worst["failed"], worst["images"])
    lost = f"{worst['failed']} of {worst['images']} images of shard {worst['shard']} could not be explained"
    torn = "; its file is damaged, and images after the damage are missing" if damaged else ""
    also = f". {others + 1} shards are affected in total." if others else "."
    return Finding(
        "shard_failures", worst["shard"], worst["shard"], "failures", "recorded", f"{lost}{torn}{also}",
        Effect("failed images", share, low or 0.0, high or 0.0, worst["images"]),
        "Failures were counted in the rows of the run. A shard is reported when its file is damaged, or when its "
        "failure rate exceeds that of the other shards (Fisher's exact test, p < 0.01 with Holm's correction, by at "
        f"least {percent(MIN_FAILURE_EXCESS)}).",
        "Download the shard again, and explain it into a new run folder. The view `failures` lists the rows "
        "(`camatlas query`).",
    )  # fmt: skip
