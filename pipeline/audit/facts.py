"""Every number of the report, as plain JSON. The page is rendered from these facts and from the original images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.absent import absent
from pipeline.audit.accuracy import accuracy
from pipeline.audit.background import background
from pipeline.audit.binary import binary
from pipeline.audit.classes import classes
from pipeline.audit.clusters import strategies
from pipeline.audit.compare import compare_runs
from pipeline.audit.drift import drift
from pipeline.audit.findings import GRADES, MAX_FINDINGS, MIN_IMAGES, ranked
from pipeline.audit.gallery import describe_groups, groups
from pipeline.audit.interventions import Interventions
from pipeline.audit.leaderboard import leaderboard, metrics, passed_sanity, sanity
from pipeline.audit.maps import Maps, load_maps
from pipeline.audit.metadata import metadata
from pipeline.audit.methods import untrusted
from pipeline.audit.multilabel import multilabel
from pipeline.audit.regression import regression
from pipeline.audit.reliability import judgement
from pipeline.audit.shards import shards
from pipeline.audit.slices import slices
from pipeline.audit.tables import Table, class_name, query_table, quoted, rounded
from pipeline.audit.values import Place, Values, load_values, metric_label
from pipeline.cams import ADAPTERS, METHODS
from pipeline.errors import ConfigError
from pipeline.results.agreement import agreement
from pipeline.results.catalogue import method_page
from pipeline.results.label_tally import account_of
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.reliability import shipped_record
from pipeline.results.source_images import Original
from pipeline.results.verify import verify
from schemas.judged import JudgedRecord

FACTS_VERSION = 2
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
        other: another run, to compare with: image by image where images are shared, else by distributions.
        gallery: size of the groups in the gallery, a key of `GALLERY_IMAGES`.
        ask_model: load the model and run it on modified images; without it, findings that need this are left out.
        judged: how far metrics can be believed; by default the record that comes with the package.

    Raises:
        ConfigError: a run that is to be compared explained no image.
    """
    for each in (run, other):
        if each is not None:
            each.keep("images")
    values = load_values(run)
    maps = load_maps(run, values.places)
    passed = passed_sanity(run)
    trusted = [method for method in run.manifest.identity.methods if passed.get(method, True)]
    grouped = groups(run, values, maps, GALLERY_IMAGES[gallery])
    clustered = strategies(values, maps, trusted, run.manifest.identity.seed)
    comparison, drifted = (None, None) if other is None else _compared(run, values, maps, other)
    shown_places = {place for group in grouped for place in group.places}
    shown_places |= {place for entry in clustered for cluster in entry["clusters"] for place in cluster["nearest"]}
    shown_places |= {(pair["shard"], pair["image_key"]) for pair in (comparison or {"pairs": []})["pairs"]}
    interventions = Interventions(run, values, maps, trusted, shown_places, ask_model=ask_model)
    surroundings, background_findings = background(run, values, [method for method in trusted if passed.get(method)])
    shard_section, shard_findings = shards(run)
    sliced, slice_findings = slices(run) if run.manifest.has_metadata else (None, [])
    checked = sanity(run)
    board = leaderboard(run, values)
    findings = ranked(
        [
            *shard_findings,
            *slice_findings,
            *interventions.confirmed(background_findings),
            *interventions.findings(),
            *untrusted(checked["rows"], maps),
        ]
    )
    for entry in clustered:
        entry["name"] = class_name(run, entry["class"])
    facts = {
        "facts_version": FACTS_VERSION,
        **_outputs(run),
        "sample": values.sample.to_json(),
        "run": {"id": run.manifest.run_id, "path": run.store.url, "started_at": run.manifest.started_at},
        **_labels(run),
        "findings": [finding.to_json() for finding in findings[:MAX_FINDINGS]],
        "more_findings": [finding.sentence for finding in findings[MAX_FINDINGS:]],
        "grades": dict(GRADES),
        "unchecked": [*_unchecked(run, values, checked, surroundings), *interventions.unchecked],
        "provenance": _provenance(run),
        "coverage": _coverage(run),
        "accuracy": accuracy(run),
        **({"metadata": metadata(run), "slices": sliced} if run.manifest.has_metadata else {}),
        "leaderboard": board,
        "metrics": metrics(run),
        "reliability": judgement(run, judged or shipped_record(), board["rows"]),
        "sanity": checked,
        "wins": _wins(run, values),
        "agreement": _agreement(run, values),
        "classes": classes(run, values, maps),
        "gallery": describe_groups(run, grouped),
        "background": surroundings | {"associations": interventions.associated()},
        "strategies": clustered,
        "compare": comparison,
        "drift": drifted,
        "failures": query_table(run, _FAILURES),
        "shards": shard_section,
        "cost": query_table(run, _COST),
        "method_pages": _method_pages(run),
    }
    pictures = {place: original for place, original in interventions.pictures.items() if place in shown_places}
    return Audited(rounded(facts), pictures)


def _compared(run: Run, values: Values, maps: Maps, other: Run) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Compare images that two runs share, and the distributions of runs over different images.

    Raises:
        ConfigError: one of the runs explained no image.
    """
    others = load_values(other)
    if not len(values) or not len(others):
        empty = run if not len(values) else other
        raise ConfigError.one("--compare", f"no image of '{empty.store.url}' was explained", "see the view failures")
    paired = compare_runs(run, values, other, others)
    if paired is not None and (paired["same_images"] or _shards(run) == _shards(other)):
        return paired, None
    return paired, drift(run, values, maps, other, others, load_maps(other, others.places))


def _shards(run: Run) -> tuple[Any, Any]:
    """Return what determines which images a run explains."""
    return run.manifest.identity.shards, run.manifest.identity.data.get("sample")


def _labels(run: Run) -> dict[str, Any]:
    """Return the label account; nothing for runs of versions that made none."""
    account = account_of(run.manifest)
    if account is None:
        return {}
    return {"labels": {"summary": account.summary(), "lines": account.lines(), "account": account.to_json()}}


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


def _unchecked(run: Run, values: Values, checked: Table, surroundings: Mapping[str, Any]) -> list[str]:
    """List the checks that were not made, and what each of them needs."""
    if not len(values):
        return ["All checks: no image was explained."]
    kind, sentences = OutputKind.of(run.manifest), []
    if kind.has_confidences and np.unique(values.predicted_I, return_counts=True)[1].max() < 2 * MIN_IMAGES:
        sentences.append(
            f"Patches, colours and surroundings: no class was predicted for {2 * MIN_IMAGES} images, the minimum for a "
            "finding."
        )
    if not checked["rows"]:
        sentences.append("Whether the maps depend on the model: run `camatlas sanity RUN`, then audit again.")
    if not kind.has_confidences:
        sentences += [absent(kind)[section] for section in ("accuracy", "classes")]
    elif not surroundings["asked"]:
        sentences.append(
            "Reliance on surroundings: requires boxes, and the metrics box_removed_confidence and "
            "box_only_confidence in the run file."
        )
    if kind.has_confidences and not (values.correct_I == values.correct_I).any():
        several = ", or no row holds all labels of its image" if kind.is_independent else ""
        sentences.append(f"Accuracy, calibration and wrong labels: the dataset has no labels{several}.")
    if len(run.manifest.identity.methods) < 2:
        sentences.append("Agreement between methods: the run has a single method.")
    sentences.append(
        "Shortcuts other than a constant patch, a colour or the surroundings of a box: no test exists, so inspect the "
        "gallery."
    )
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
    return {"rows": agreement(run, AGREEMENT_IMAGES).to_pylist(), "sql": ""}


def _method_pages(run: Run) -> dict[str, str]:
    kinds = METHODS | ADAPTERS
    names = sorted({str(fields["name"]) for fields in run.manifest.identity.methods.values()})
    return {name: method_page(kinds[name]) for name in names if name in kinds}
