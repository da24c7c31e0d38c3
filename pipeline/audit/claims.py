"""The claims of a report: findings with their evidence and pictures, what was checked, and what was not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.absent import absent
from pipeline.audit.background import background
from pipeline.audit.checked import NOTHING_EXPLAINED, Checked, Unasked, not_checked
from pipeline.audit.clusters import check as check_clusters
from pipeline.audit.clusters import strategies
from pipeline.audit.exhibits import Exhibits, label_examples
from pipeline.audit.findings import MAX_FINDINGS, MIN_IMAGES, Finding, ranked
from pipeline.audit.follows import answers, check_follows, sanity
from pipeline.audit.interventions import Interventions
from pipeline.audit.label_check import label_order
from pipeline.audit.leaderboard import leaderboard
from pipeline.audit.maps import Maps
from pipeline.audit.merged import merged, to_json
from pipeline.audit.methods import untrusted, without_controls
from pipeline.audit.shards import shards
from pipeline.audit.slice_check import check_slices
from pipeline.audit.slices import slices
from pipeline.audit.tables import class_name
from pipeline.audit.values import Place, Values
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.source_images import Original

_OTHERS = not_checked(
    "others", "Other shortcuts", "gallery", "no test exists for them", "inspect the gallery and the clusters of maps"
)


@dataclass(frozen=True)
class Claims:
    """What the detectors found, and the sections that they compute.

    Attributes:
        facts: the findings, the lines of what was checked, and the sections.
        shown: the images of findings and clusters.
        pictures: the original images that could be read.
        suspicions: what is suspected and could not be tested without the model.
    """

    facts: dict[str, Any]
    shown: set[Place]
    pictures: Mapping[Place, Original]
    suspicions: list[str]


def claim(run: Run, values: Values, maps: Maps, shown: set[Place], *, ask_model: bool, unasked: Unasked) -> Claims:
    """Run every detector.

    Args:
        run: the run.
        values: the values of its sample.
        maps: the maps of its sample.
        shown: images of other sections of the page, which are read together with those of the findings.
        ask_model: load the model and run it on modified images.
        unasked: why the model is not asked, where it is not.
    """
    checked = sanity(run)
    followed, methods = answers(checked["rows"]), without_controls(run.manifest.identity.methods)
    trusted = [method for method in methods if followed.get(method) != "no"]
    following = [method for method in methods if followed.get(method) == "yes"]
    clustered = strategies(values, maps, trusted, run.manifest.identity.seed)
    for entry in clustered:
        entry["name"] = class_name(run, entry["class"])
    shard_section, shard_findings, shard_checks = shards(run)
    sliced, slice_findings = slices(run) if run.manifest.has_metadata else (None, [])
    order_findings, order_check = label_order(run)
    examples = label_examples(run, shard_findings)
    own = {place for entry in clustered for cluster in entry["clusters"] for place in cluster["nearest"]}
    own |= {(image["shard"], image["image_key"]) for images in examples.values() for image in images}
    known = following if checked["rows"] else None
    interventions = Interventions(run, values, maps, trusted, known, shown | own, ask_model=ask_model, unasked=unasked)
    board, context = leaderboard(run, values, checked["rows"]), background(run, values, following)
    found = [
        *order_findings,
        *shard_findings,
        *slice_findings,
        *interventions.findings(),
        *interventions.confirmed(context),
    ]
    of_methods, method_checks = untrusted(checked["rows"], maps, board["rows"], len(values))
    exhibits = Exhibits(run, values, maps, interventions, examples)
    checks = [
        *interventions.checks, order_check, *shard_checks, check_slices(sliced, slice_findings),
        check_follows(checked["rows"]), *method_checks, check_clusters(clustered), _OTHERS,
    ]  # fmt: skip
    checks = checks if len(values) else [_nothing(check) for check in checks]
    findings = _findings([*found, *of_methods], exhibits)
    facts = {
        "checked": [check.to_json() for check in checks],
        **findings,
        "unchecked": [*_unchecked(run, values, checks), *interventions.unchecked],
        **({} if sliced is None else {"slices": sliced}),
        "shards": shard_section,
        "leaderboard": board,
        "sanity": checked,
        "background": context.section | {"associations": interventions.associated()},
        "strategies": clustered,
    }
    pictures = [one["picture"] for one in findings["findings"] if one["picture"]]
    own |= {(image["shard"], image["image_key"]) for picture in pictures for image in picture["images"]}
    return Claims(facts, own, interventions.pictures, interventions.suspicions)


def _findings(found: list[Finding], exhibits: Exhibits) -> dict[str, Any]:
    """Return the merged findings with their pictures, and the sentences of those beyond MAX_FINDINGS."""
    groups = merged(ranked(found))
    return {
        "findings": [to_json(group, exhibits.picture(group[0])) for group in groups[:MAX_FINDINGS]],
        "more_findings": [group[0].sentence for group in groups[MAX_FINDINGS:]],
    }


def _nothing(check: Checked) -> Checked:
    """Replace the line of a detector that had nothing to look at; failures are counted all the same."""
    if check.detector == "failures":
        return check
    return not_checked(check.detector, check.name, check.section, NOTHING_EXPLAINED, "see the failures")


def _unchecked(run: Run, values: Values, checks: Sequence[Checked]) -> list[str]:
    """List the checks that were not made, and what each of them needs."""
    if not len(values):
        return ["All checks: no image was explained."]
    kind = OutputKind.of(run.manifest)
    sentences = [check.sentence() for check in checks if check.verdict == "not checked"]
    if kind.has_confidences and np.unique(values.predicted_I, return_counts=True)[1].max() < 2 * MIN_IMAGES:
        sentences.append(
            f"Patches, colours and context reliance: no class was predicted for {2 * MIN_IMAGES} images, the minimum "
            "for a finding."
        )
    if not kind.has_confidences:
        sentences += [absent(kind)[section] for section in ("accuracy", "classes")]
    if kind.has_confidences and not (values.correct_I == values.correct_I).any():
        several = ", or no row holds all labels of its image" if kind.is_independent else ""
        sentences.append(f"Accuracy, calibration and wrong labels: the dataset has no labels{several}.")
    if len(run.manifest.identity.methods) < 2:
        sentences.append("Agreement between methods: the run has a single method.")
    return sentences
