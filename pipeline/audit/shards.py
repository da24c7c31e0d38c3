"""Anomalous shards: labels that disagree with the model more than in other shards, and excess failures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.audit.checks import Check, Verdict, not_checked
from pipeline.audit.findings import MIN_IMAGES, Effect, Finding, percent
from pipeline.audit.intervals import side
from pipeline.audit.statistics import Indices, Numbers, holm, wilson
from pipeline.audit.tables import query_table
from pipeline.audit.values import Flags, Values
from pipeline.results.query import Run

MIN_EXCESS = 0.15
"""The error rate of a shard must exceed that of the same classes in other shards by at least this."""

MIN_FAILURE_EXCESS = 0.05
"""The failure rate of a shard must exceed that of the other shards by at least this."""

_FEW = f"no shard has {MIN_IMAGES} labelled images in each half whose classes also occur in other shards"

SHARDS = """
SELECT shard, count(*) AS images, count(*) FILTER ({failed}) AS failed, avg(correct::INT) AS accuracy,
  avg(confidence) AS mean_confidence FROM images GROUP BY shard ORDER BY failed DESC, accuracy, shard
"""
_DAMAGE = """
SELECT shard, count(*) AS damages, min(error_detail) AS detail FROM failures WHERE error_stage = 'shard'
GROUP BY shard ORDER BY shard
"""


NAME_LABELS, NAME_FAILURES = "Wrong labels of a shard", "Lost images"


def shards(run: Run, values: Values) -> tuple[dict[str, Any], list[Finding], list[Check]]:
    """Compute the section (the worst shards), findings about wrong labels and lost images, and their lines."""
    table, damage = query_table(run, SHARDS.format(failed=_failed(run))), query_table(run, _DAMAGE)
    excesses = [_excesses(values, half) for half in (False, True)]
    labels, lost = _labels(values, excesses), _failures(table["rows"], damage["rows"])
    checks = [_check_labels(values, excesses, labels, len(table["rows"])), _check_failures(table["rows"], lost)]
    section = {"worst": {**table, "rows": table["rows"][:20]}, "damage": damage, "count": len(table["rows"])}
    return section, [*labels, *lost], checks


def _failed(run: Run) -> str:
    """Return the SQL that tells whether an image failed; one without a class above the threshold did not."""
    above = run.manifest.identity.targets.startswith("above")
    return "maps = 0" + (" AND error_code IS DISTINCT FROM 'no_target'" if above else "")


@dataclass(frozen=True)
class _Excess:
    """Error rate of one shard, and the rate expected from the same classes in other shards.

    Attributes:
        shard: the shard.
        errors: its error rate.
        elsewhere: the expected rate, and `spread` its standard error.
        p: one-sided, adjusted for the number of shards.
        images: number of its images whose class occurs elsewhere, and `others` that of the images there.
    """

    shard: str
    errors: float
    elsewhere: float
    spread: float
    p: float
    images: int
    others: int

    def effect(self) -> Effect:
        """Return the error rate of the shard."""
        low, high = wilson(round(self.errors * self.images), self.images)
        what = f"labels of shard {self.shard} that disagree with the prediction"
        return Effect(what, self.errors, low, high, self.images)

    def control(self) -> Effect:
        """Return the rate of the same classes in other shards."""
        low, high = (min(1.0, max(0.0, self.elsewhere + sign * 1.96 * self.spread)) for sign in (-1, 1))
        return Effect("the same classes in other shards", self.elsewhere, low, high, self.others)

    def side(self) -> str:
        """Tell on which side of the limit the excess lies."""
        effect = self.effect()
        return side((effect.low or 0.0) - self.elsewhere, (effect.high or 0.0) - self.elsewhere, MIN_EXCESS)


Excesses = Mapping[str, _Excess]


def _labels(values: Values, excesses: Sequence[Excesses] = ()) -> list[Finding]:
    """Report shards with an excess of wrong predictions over the same classes elsewhere, on both halves."""
    first, second = excesses or [_excesses(values, half) for half in (False, True)]
    findings = []
    for shard in sorted(set(first) & set(second)):
        both = (first[shard], second[shard])
        if all(one.p < 0.01 and one.errors - one.elsewhere >= MIN_EXCESS for one in both):
            findings.append(_label_finding(values, second[shard]))
    return findings


def _check_labels(values: Values, excesses: Sequence[Excesses], found: Sequence[Finding], shards: int) -> Check:
    """Return the line about labels; it shows the shard with the largest excess on the half that is searched."""
    base = ("labels", NAME_LABELS)
    first, second = excesses
    tested = sorted(set(first) & set(second))
    if not np.isfinite(values.correct_I).any():
        return not_checked(*base, "shards", "the dataset has no labels", "add data.labels and explain again")
    if not tested:
        why = "the run has a single shard" if shards < 2 else _FEW
        return not_checked(*base, "shards", why)
    sides = [{first[shard].side(), second[shard].side()} for shard in tested]
    undecided = sum("below" not in one for one in sides) - len(found)
    names = [finding.subject for finding in found] or tested
    worst = min(names, key=lambda shard: (first[shard].elsewhere - first[shard].errors, shard))
    verdict: Verdict = "found" if found else "undecided" if undecided > 0 else "not found"
    return Check(
        *base, verdict, "shards", sum(one.images for half in excesses for one in half.values()),
        second[worst].effect(), second[worst].control(), f"limit: {percent(MIN_EXCESS)} more than the control",
        f"{len(tested)} of {shards} shards tested, {max(0, undecided)} undecided",
        "explain more images of each shard" if verdict == "undecided" else "",
    )  # fmt: skip


def _excesses(values: Values, half: bool) -> dict[str, _Excess]:
    """Test every shard on one half of the images; p is adjusted for the number of shards (Holm)."""
    rows = np.flatnonzero(np.isfinite(values.correct_I) & (values.held_out_I == half))
    shards_N = np.array([values.places[row][0] for row in rows], dtype=object)
    wrong_N, classes_N = 1 - values.correct_I[rows], values.classes_I[rows]
    excesses = []
    for shard in sorted(set(shards_N)):
        inside_N = shards_N == shard
        expected_n, outside_n = _expected(wrong_N, classes_N, inside_N)
        known_n = outside_n > 0
        observed_n = wrong_N[inside_N][known_n]
        if len(observed_n) >= MIN_IMAGES:
            p = _excess_p(observed_n, expected_n[known_n])
            expected = float(expected_n[known_n].mean())
            spread, others = _spread(classes_N[inside_N][known_n], expected_n[known_n], outside_n[known_n])
            excesses.append(_Excess(shard, float(observed_n.mean()), expected, spread, p, len(observed_n), others))
    adjusted = holm([excess.p for excess in excesses])
    return {excess.shard: replace(excess, p=p) for excess, p in zip(excesses, adjusted, strict=True)}


def _expected(wrong_N: Numbers, classes_N: Any, inside_N: Flags) -> tuple[Numbers, Indices]:  # noqa: ANN401
    """Return the error rate of each image's class in other shards, and the number of its images there."""
    size = int(classes_N.max()) + 1
    outside = np.bincount(classes_N[~inside_N], minlength=size)
    wrong = np.bincount(classes_N[~inside_N], weights=wrong_N[~inside_N], minlength=size)
    own_n = classes_N[inside_N]
    expected_n: Numbers = (wrong[own_n] + 0.5) / (outside[own_n] + 1)
    return expected_n, outside[own_n]


def _spread(own_n: Any, expected_n: Numbers, outside_n: Indices) -> tuple[float, int]:  # noqa: ANN401 - numpy
    """Return the standard error of the mean expected rate, a weighted sum of shares, and the images it rests on."""
    _, first, counts = np.unique(own_n, return_index=True, return_counts=True)
    weights, rates, images = counts / counts.sum(), expected_n[first], outside_n[first]
    return float(np.sqrt((weights**2 * rates * (1 - rates) / images).sum())), int(images.sum())


def _excess_p(observed_n: Numbers, expected_n: Numbers) -> float:
    """Return the one-sided p of the number of errors (sum of Bernoulli trials, normal approximation)."""
    from scipy.stats import norm  # costs time to import

    spread = float(np.sqrt((expected_n * (1 - expected_n)).sum()))
    return float(norm.sf((observed_n.sum() - 0.5 - expected_n.sum()) / spread)) if spread else 1.0


def _label_finding(values: Values, excess: _Excess) -> Finding:
    inside_I = np.array([shard == excess.shard for shard, _ in values.places])
    confident = values.confidences_I[inside_I & (values.correct_I == 0)].mean() >= values.confidences_I.mean() - 0.1
    why = (
        "Their confidence is at most 0.1 below the mean of the run, so the labels are suspect."
        if confident
        else "Their confidence is more than 0.1 below the mean of the run, so the images may differ too."
    )
    return Finding(
        "shard_labels", excess.shard, excess.shard, "shards", "replicated",
        f"The predictions disagree with {percent(excess.errors)} of the labels of shard {excess.shard} "
        f"({percent(excess.elsewhere)} for the same classes in other shards). {why}",
        excess.effect(),
        "The error rates of all shards were tested on each half of the images (p < 0.01 on both, with Holm's "
        "correction for the number of shards). The value is that of the held-out half.",
        "See 'Possible label errors' in the gallery, and compare the labels of this shard with their source.",
        excess.control(),
    )  # fmt: skip


def _failures(rows: list[dict[str, Any]], damage: list[dict[str, Any]]) -> list[Finding]:
    """Report the worst shard with a damaged file, or with more failures than the other shards (Fisher's exact test)."""
    from scipy.stats import fisher_exact  # costs time to import

    damaged = dict.fromkeys(row["shard"] for row in damage)
    images, failed = sum(row["images"] for row in rows), sum(row["failed"] for row in rows)
    ps = holm([
        float(fisher_exact([[row["failed"], row["images"] - row["failed"]],
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


def _check_failures(rows: list[dict[str, Any]], found: Sequence[Finding]) -> Check:
    """Return the line about lost images."""
    images, failed = sum(row["images"] for row in rows), sum(row["failed"] for row in rows)
    if found:
        effect, control = found[0].effect, found[0].control
    else:
        effect, control = Effect("images that failed", failed / max(1, images), *wilson(failed, images), images), None
    return Check(
        "failures", NAME_FAILURES, "found" if found else "not found", "failures", images, effect, control,
        f"limit {percent(MIN_FAILURE_EXCESS)}", f"{failed} of {images} images failed",
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
