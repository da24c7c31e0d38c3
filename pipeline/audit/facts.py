"""Every number of the report, as plain JSON. The page is rendered from these facts and from the original images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.absent import absent
from pipeline.audit.accuracy import accuracy
from pipeline.audit.background import background
from pipeline.audit.binary import binary
from pipeline.audit.checks import NOTHING_EXPLAINED, Check, not_checked
from pipeline.audit.classes import classes
from pipeline.audit.clusters import check as check_clusters
from pipeline.audit.clusters import strategies
from pipeline.audit.compare import compare_runs
from pipeline.audit.exhibits import Exhibits, label_examples
from pipeline.audit.findings import GRADES, MAX_FINDINGS, MIN_IMAGES, ranked
from pipeline.audit.follows import answers, check_follows, sanity
from pipeline.audit.gallery import describe_groups, groups
from pipeline.audit.intervals import correlation_interval
from pipeline.audit.interventions import Interventions
from pipeline.audit.leaderboard import leaderboard, metrics
from pipeline.audit.maps import load_maps
from pipeline.audit.merged import merged, to_json
from pipeline.audit.metadata import metadata
from pipeline.audit.methods import untrusted
from pipeline.audit.multilabel import multilabel
from pipeline.audit.regression import regression
from pipeline.audit.reliability import judgement
from pipeline.audit.shards import shards
from pipeline.audit.tables import Table, class_name, query_table, quoted, rounded
from pipeline.audit.values import Place, Values, load_values, metric_label
from pipeline.cams import ADAPTERS, METHODS
from pipeline.results.agreement import agreement
from pipeline.results.catalogue import method_page
from pipeline.results.label_tally import account_of
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.reliability import shipped_record
from pipeline.results.source_images import Original
from pipeline.results.verify import verify
from pipeline.settings.about import AboutConfig
from schemas.judged import JudgedRecord

FACTS_VERSION = 3
GALLERY_IMAGES = {"normal": 16, "large": 48}
AGREEMENT_IMAGES = 100

_FAILURES = """
SELECT error_stage, error_code, count(*) AS rows, min(image_key) AS example, min(error_detail) AS detail
FROM failures GROUP BY error_stage, error_code ORDER BY rows DESC, error_stage, error_code
"""
_COST = """
SELECT method, count(*) AS maps, any_value(map_height) AS rows, any_value(map_width) AS columns,
  avg(octet_length(map)) AS bytes_a_map FROM explanations GROUP BY method ORDER BY method
"""
_WINS = """
WITH own AS (SELECT * FROM explanations WHERE {drop} IS NOT NULL AND {drawn})
SELECT one.method AS method, other.method AS other, count(*) AS images,
  avg((one.{drop} < other.{drop})::INT) AS wins
FROM own one JOIN own other USING (shard, image_key, target) WHERE one.method <> other.method
GROUP BY ALL ORDER BY method, other
"""


@dataclass(frozen=True)
class Audited:
    """Result of an audit.

    Attributes:
        facts: every number and text of the page.
        pictures: original images of the page by (shard, image key); an image without an entry is shown as maps only.
    """

    facts: dict[str, Any]
    pictures: Mapping[Place, Original]


def audit(
    run: Run,
    other: Run | None = None,
    *,
    gallery: str = "normal",
    ask_model: bool = True,
    judged: JudgedRecord | None = None,
) -> Audited:
    """Compute all facts of the report on a run.

    Args:
        run: the run.
        other: another run over the same images, to compare with.
        gallery: size of the groups in the gallery, a key of `GALLERY_IMAGES`.
        ask_model: load the model and run it on modified images; without it, findings that need this are left out.
        judged: how far metrics can be believed; by default the record that comes with the package.

    Raises:
        ConfigError: the runs have no image in common.
    """
    for each in (run, other):
        if each is not None:
            each.keep("images")
    values = load_values(run)
    maps = load_maps(run, values.places)
    checked = sanity(run)
    followed = answers(checked["rows"])
    methods = list(run.manifest.identity.methods)
    trusted = [method for method in methods if followed.get(method) != "no"]
    following = [method for method in methods if followed.get(method) == "yes"]
    grouped = groups(run, values, maps, GALLERY_IMAGES[gallery])
    clustered = strategies(values, maps, trusted, run.manifest.identity.seed)
    for entry in clustered:
        entry["name"] = class_name(run, entry["class"])
    comparison = None if other is None else compare_runs(run, values, other)
    shard_section, shard_findings, shard_checks = shards(run)
    examples = label_examples(run, shard_findings)
    shown_places = {place for group in grouped for place in group.places}
    shown_places |= {place for entry in clustered for cluster in entry["clusters"] for place in cluster["nearest"]}
    shown_places |= {(pair["shard"], pair["image_key"]) for pair in (comparison or {"pairs": []})["pairs"]}
    shown_places |= {(image["shard"], image["image_key"]) for images in examples.values() for image in images}
    interventions = Interventions(run, values, maps, trusted, following, shown_places, ask_model=ask_model)
    board = leaderboard(run, values, checked["rows"])
    context = background(run, values, following)
    intervened = [*interventions.findings(), *interventions.confirmed(context)]
    of_methods, method_checks = untrusted(checked["rows"], maps, board["rows"], len(values))
    found = merged(ranked([*shard_findings, *intervened, *of_methods]))
    exhibits = Exhibits(run, values, maps, interventions, examples)
    pictured = [to_json(group, exhibits.picture(group[0])) for group in found[:MAX_FINDINGS]]
    checks = [
        *interventions.checks, *shard_checks, check_follows(checked["rows"]), *method_checks, check_clusters(clustered),
        _OTHERS,
    ]  # fmt: skip
    checks = checks if len(values) else [_nothing(check) for check in checks]
    facts = {
        "facts_version": FACTS_VERSION,
        **_outputs(run),
        "sample": values.sample.to_json(),
        "run": {"id": run.manifest.run_id, "path": run.store.url, "started_at": run.manifest.started_at},
        "about": _about(run),
        **_labels(run),
        "checked": [check.to_json() for check in checks],
        "findings": pictured,
        "more_findings": [group[0].sentence for group in found[MAX_FINDINGS:]],
        "grades": dict(GRADES),
        "unchecked": [*_unchecked(run, values, checks), *interventions.unchecked],
        "provenance": _provenance(run),
        "coverage": _coverage(run),
        "accuracy": accuracy(run),
        **({"metadata": metadata(run)} if run.manifest.has_metadata else {}),
        "leaderboard": board,
        "metrics": metrics(run),
        "reliability": judgement(run, judged or shipped_record(), board["rows"]),
        "sanity": checked,
        "wins": _wins(run, values),
        "agreement": _agreement(run, values),
        "classes": classes(run, values, maps),
        "gallery": describe_groups(run, grouped),
        "background": context.section | {"associations": interventions.associated()},
        "strategies": clustered,
        "compare": comparison,
        "failures": query_table(run, _FAILURES),
        "shards": shard_section,
        "cost": query_table(run, _COST),
        "method_pages": _method_pages(run),
    }
    shown_places |= {
        (i["shard"], i["image_key"]) for one in pictured if one["picture"] for i in one["picture"]["images"]
    }
    pictures = {place: original for place, original in interventions.pictures.items() if place in shown_places}
    return Audited(rounded(facts), pictures)


_OTHERS = not_checked(
    "others", "Other shortcuts", "gallery", "no test exists for them", "inspect the gallery and the clusters of maps"
)


def _nothing(check: Check) -> Check:
    """Replace the line of a detector that had nothing to look at; failures are counted all the same."""
    if check.detector == "failures":
        return check
    return not_checked(check.detector, check.name, check.section, NOTHING_EXPLAINED, "see the failures")


def _labels(run: Run) -> dict[str, Any]:
    """Return the label account; nothing for runs of versions that made none."""
    account = account_of(run.manifest)
    if account is None:
        return {}
    return {"labels": {"summary": account.summary(), "lines": account.lines(), "account": account.to_json()}}


def _about(run: Run) -> list[dict[str, str]]:
    """Return the entries of the section `about` of the run file: the known ones in their order, then others by name."""
    about = run.manifest.config.get("about") or {}
    names = [*AboutConfig.model_fields, *sorted(set(about) - set(AboutConfig.model_fields))]
    return [{"name": name.replace("_", " "), "text": about[name]} for name in names if about.get(name) is not None]


def _outputs(run: Run) -> dict[str, Any]:
    """Return the chapter of a kind of outputs other than softmax, and why sections are not there."""
    kind = OutputKind.of(run.manifest)
    if kind.kind == "softmax":
        return {}
    chapters: dict[str, Any] = {"kind": kind.kind, "independent": kind.is_independent, "absent": absent(kind)}
    if kind.kind == "binary":
        chapters["binary"] = binary(run)
    if kind.is_independent:
        chapters["multilabel"] = multilabel(run)
    if not kind.has_confidences:
        chapters["regression"] = regression(run)
    return {"outputs": chapters}


def _provenance(run: Run) -> dict[str, Any]:
    identity = run.manifest.identity
    return {
        "model": identity.model["name"],
        **({"outputs": kind.kind} if (kind := OutputKind.of(run.manifest)).kind != "softmax" else {}),
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
    result = verify(run.store)
    return {
        "verified": not result.problems,
        "problems": result.problems[:20],
        "images": result.images,
        "explained": result.explained,
        "failed": result.failed,
        "rows": result.rows,
        "parts": result.parts,
        "bytes": result.bytes,
    }


def _unchecked(run: Run, values: Values, checks: Sequence[Check]) -> list[str]:
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


def _wins(run: Run, values: Values) -> Table:
    """Compute how often each method has the smaller average_drop of a pair; empty when the run lacks that metric."""
    label = metric_label(run, "average_drop")
    if label is None or len(run.manifest.identity.methods) < 2:
        return {"rows": [], "sql": ""}
    return query_table(run, _WINS.format(drop=quoted(label), drawn=values.sample.condition))


def _agreement(run: Run, values: Values) -> Table:
    if len(run.manifest.identity.methods) < 2 or not len(values):
        return {"rows": [], "sql": ""}
    rows = agreement(run, AGREEMENT_IMAGES).to_pylist()
    for row in rows:
        for name in ("spearman", "ssim"):
            row[f"{name}_low"], row[f"{name}_high"] = correlation_interval(row[name], row[f"{name}_half_width"])
    return {"rows": rows, "sql": ""}


def _method_pages(run: Run) -> dict[str, str]:
    kinds = METHODS | ADAPTERS
    names = sorted({str(fields["name"]) for fields in run.manifest.identity.methods.values()})
    return {name: method_page(kinds[name]) for name in names if name in kinds}
