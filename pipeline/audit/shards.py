"""Anomalous shards: labels that disagree with the model more than in other shards, and excess failures."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.audit.checked import Checked, Verdict, not_checked
from pipeline.audit.excess import Excess, Group, excesses
from pipeline.audit.findings import MIN_IMAGES, Effect, Finding, percent
from pipeline.audit.intervals import side
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


NAME_LABELS, NAME_FAILURES = "Wrong labels of a shard", "Lost images"
_FEW = f"no shard has {MIN_IMAGES} labelled images in each half whose classes also occur in other shards"
_CONTROL = "the same classes in other shards"
Halves = Sequence[Mapping[Group, Excess]]


def shards(run: Run) -> tuple[dict[str, Any], list[Finding], list[Checked]]:
    """Compute the section (the worst shards), findings about wrong labels and lost images, and their lines."""
    table, damage = query_table(run, SHARDS.format(failed=_failed(run))), query_table(run, _DAMAGE)
    halves = excesses(run)
    labels, lost = _labels(run, halves), _failures(table["rows"], damage["rows"])
    checks = [_check_labels(table["rows"], halves, labels), _check_failures(table["rows"], lost)]
    section = {"worst": {**table, "rows": table["rows"][:20]}, "damage": damage, "count": len(table["rows"])}
    return section, [*labels, *lost], checks


def _failed(run: Run) -> str:
    """Return the SQL that tells whether an image failed; one without a class above the threshold did not."""
    above = run.manifest.identity.targets.startswith("above")
    return "maps = 0" + (" AND error_code IS DISTINCT FROM 'no_target'" if above else "")


def _labels(run: Run, halves: Halves | None = None) -> list[Finding]:
    """Report shards with an excess of wrong predictions over the same classes elsewhere, on both halves."""
    first, second = halves or excesses(run)
    findings = []
    for group in sorted(set(first) & set(second)):
        both = (first[group], second[group])
        if all(one.p < 0.01 and one.errors - one.elsewhere >= MIN_EXCESS for one in both):
            findings.append(_label_finding(run, group[1], second[group]))
    return findings


def _check_labels(rows: Sequence[Mapping[str, Any]], halves: Halves, found: Sequence[Finding]) -> Checked:
    """Return the line about labels; it shows the shard with the largest excess on the half that is searched."""
    first, second = halves
    tested = sorted(set(first) & set(second))
    if all(row["accuracy"] is None for row in rows):
        why = "the dataset has no labels"
        return not_checked("labels", NAME_LABELS, "shards", why, "add data.labels and explain again")
    if not tested:
        return not_checked("labels", NAME_LABELS, "shards", "the run has a single shard" if len(rows) < 2 else _FEW)
    undecided = sum("below" not in (_side(first[group]), _side(second[group])) for group in tested) - len(found)
    names = {finding.subject for finding in found}
    worst = min(
        (group for group in tested if not names or group[1] in names),
        key=lambda group: (first[group].elsewhere - first[group].errors, group),
    )
    verdict: Verdict = "found" if found else "undecided" if undecided > 0 else "not found"
    return Checked(
        "labels", NAME_LABELS, verdict, "shards", sum(one.images for half in halves for one in half.values()),
        _effect(worst[1], second[worst]), second[worst].control(_CONTROL),
        f"limit: {percent(MIN_EXCESS)} more than the control",
        f"{len(tested)} of {len(rows)} shards tested, {max(0, undecided)} undecided",
        "explain more images of each shard" if verdict == "undecided" else "",
    )  # fmt: skip


def _effect(shard: str, excess: Excess) -> Effect:
    low, high = wilson(round(excess.errors * excess.images), excess.images)
    return Effect(f"labels of shard {shard} that disagree with the prediction", excess.errors, low, high, excess.images)


def _side(excess: Excess) -> str:
    """Tell on which side of the limit the excess of a shard lies."""
    effect = _effect("", excess)
    return side((effect.low or 0.0) - excess.elsewhere, (effect.high or 0.0) - excess.elsewhere, MIN_EXCESS)


def _label_finding(run: Run, shard: str, excess: Excess) -> Finding:
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
        _effect(shard, excess),
        "The error rates of all shards were tested on each half of the images (p < 0.01 on both, with Holm's "
        "correction for the number of shards). The value is that of the held-out half.",
        "See 'Possible label errors' in the gallery, and compare the labels of this shard with their source.",
        excess.control(_CONTROL),
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
        return _everywhere(images, failed)
    worst = max(bad, key=lambda row: (row["failed"] / max(1, row["images"]), row["shard"] in damaged, row["shard"]))
    control = Effect(
        "images of other shards that failed",
        elsewhere.get(worst["shard"], 0.0),
        *wilson(failed - worst["failed"], images - worst["images"]),
        images - worst["images"],
    )
    return [_failure_finding(worst, worst["shard"] in damaged, len(bad) - 1, control)]


def _everywhere(images: int, failed: int) -> list[Finding]:
    """Report failures that no single shard explains, if they are many."""
    if failed < MIN_FAILURE_EXCESS * images or not failed:
        return []
    counted = "No image" if failed == images else f"{images - failed} of {images} images"
    return [Finding(
        "failures", "", "all shards", "failures", "recorded",
        f"{counted} could be explained. The failures are spread over the shards.",
        Effect("images that failed", failed / images, *wilson(failed, images), images),
        "Failures were counted in the rows of the run. They are reported when they reach "
        f"{percent(MIN_FAILURE_EXCESS)} of all images.",
        "See the codes under Failures: with one cause for all of them, such as a decoder, correct the run file and "
        "explain into a new run folder.",
    )]  # fmt: skip


def _check_failures(rows: list[dict[str, Any]], found: Sequence[Finding]) -> Checked:
    """Return the line about lost images."""
    images, failed = sum(row["images"] for row in rows), sum(row["failed"] for row in rows)
    if found:
        effect, control = found[0].effect, found[0].control
    else:
        effect, control = Effect("images that failed", failed / max(1, images), *wilson(failed, images), images), None
    return Checked(
        "failures", NAME_FAILURES, "found" if found else "not found", "failures", images, effect, control,
        f"limit {percent(MIN_FAILURE_EXCESS)}", f"{failed} of {images} images failed, counted in all rows",
    )  # fmt: skip


def _failure_finding(worst: dict[str, Any], damaged: bool, others: int, control: Effect) -> Finding:
    share = worst["failed"] / max(1, worst["images"])
    low, high = wilson(worst["failed"], worst["images"])
    lost = f"{worst['failed']} of {worst['images']} images of shard {worst['shard']} could not be explained"
    torn = "; its file is damaged, and images after the damage are missing" if damaged else ""
    also = f". {others + 1} shards are affected in total." if others else "."
    return Finding(
        "shard_failures", worst["shard"], worst["shard"], "failures", "recorded", f"{lost}{torn}{also}",
        Effect("images of this shard that failed", share, low, high, worst["images"]),
        "Failures were counted in the rows of the run. A shard is reported when its file is damaged, or when its "
        "failure rate exceeds that of the other shards (Fisher's exact test, p < 0.01 with Holm's correction, by at "
        f"least {percent(MIN_FAILURE_EXCESS)}).",
        "Download the shard again, and explain it into a new run folder. The view `failures` lists the rows "
        "(`camatlas query`).",
        control if control.images else None,
    )  # fmt: skip
