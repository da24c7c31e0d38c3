"""Every number of the report, as plain JSON. The page is rendered from this, and from the pictures, alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.accuracy import accuracy
from pipeline.audit.background import background
from pipeline.audit.classes import classes
from pipeline.audit.clusters import strategies
from pipeline.audit.compare import compared
from pipeline.audit.findings import ENOUGH, GRADES, MOST_FINDINGS, ranked
from pipeline.audit.gallery import groups, shown
from pipeline.audit.interventions import Interventions
from pipeline.audit.leaderboard import leaderboard, metrics, sane, sanity
from pipeline.audit.maps import load_maps
from pipeline.audit.methods import untrusted
from pipeline.audit.shards import shards
from pipeline.audit.tables import Table, asked, class_name, quoted, rounded
from pipeline.audit.values import Place, Values, load_values, metric_label
from pipeline.cams import METHODS
from pipeline.results.agreement import agreement
from pipeline.results.catalogue import method_page
from pipeline.results.query import Run
from pipeline.results.source_images import Original
from pipeline.results.verify import verify

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
SELECT one.method AS method, other.method AS other, count(*) AS images,
  avg((one.{drop} < other.{drop})::INT) AS wins
FROM explanations one JOIN explanations other USING (shard, image_key, target)
WHERE one.method <> other.method AND one.{drop} IS NOT NULL AND other.{drop} IS NOT NULL
GROUP BY ALL ORDER BY method, other
"""


@dataclass(frozen=True)
class Audited:
    """A run, audited.

    Attributes:
        facts: every number and text of the page.
        pictures: the originals that the page shows, by shard and image key; missing ones are shown as maps alone.
    """

    facts: dict[str, Any]
    pictures: Mapping[Place, Original]


def audit(run: Run, other: Run | None = None, *, gallery: str = "normal", ask_model: bool = True) -> Audited:
    """Audit a run.

    Args:
        run: the run.
        other: another run over the same images, to compare with.
        gallery: how many images a group of the gallery shows, see `GALLERY_IMAGES`.
        ask_model: load the model again and change images, so that suspicions can become findings.

    Raises:
        ConfigError: the runs have no image in common.
    """
    values = load_values(run)
    maps = load_maps(run, values.places)
    passed = sane(run)
    trusted = [method for method in run.manifest.identity.methods if passed.get(method, True)]
    grouped = groups(run, values, maps, GALLERY_IMAGES[gallery])
    kinds = strategies(values, maps, trusted, run.manifest.identity.seed)
    comparison = None if other is None else compared(run, values, other)
    shown_places = {place for group in grouped for place in group.places}
    shown_places |= {place for kind in kinds for cluster in kind["clusters"] for place in cluster["nearest"]}
    shown_places |= {(pair["shard"], pair["image_key"]) for pair in (comparison or {"pairs": []})["pairs"]}
    interventions = Interventions(run, values, maps, trusted, shown_places, ask_model=ask_model)
    surroundings, background_findings = background(run, values, [m for m in trusted if passed.get(m)])
    shard_section, shard_findings = shards(run, values)
    checked = sanity(run)
    findings = ranked(
        [
            *shard_findings,
            *interventions.confirmed(background_findings),
            *interventions.findings(),
            *untrusted(checked["rows"], maps),
        ]
    )
    for kind in kinds:
        kind["name"] = class_name(run, kind["class"])
    facts = {
        "facts_version": FACTS_VERSION,
        "run": {"id": run.manifest.run_id, "path": run.store.url, "started_at": run.manifest.started_at},
        "findings": [finding.to_json() for finding in findings[:MOST_FINDINGS]],
        "more_findings": [finding.sentence for finding in findings[MOST_FINDINGS:]],
        "grades": dict(GRADES),
        "unchecked": [*_unchecked(run, values, checked, surroundings), *interventions.unchecked],
        "provenance": _provenance(run),
        "coverage": _coverage(run),
        "accuracy": accuracy(run),
        "leaderboard": leaderboard(run, values),
        "metrics": metrics(run),
        "sanity": checked,
        "wins": _wins(run),
        "agreement": _agreement(run, values),
        "classes": classes(run, values, maps),
        "gallery": shown(run, grouped),
        "background": surroundings | {"associations": interventions.associated()},
        "strategies": kinds,
        "compare": comparison,
        "failures": asked(run, _FAILURES),
        "shards": shard_section,
        "cost": asked(run, _COST),
        "method_pages": {name: method_page(METHODS[name]) for name in _method_kinds(run) if name in METHODS},
    }
    pictures = {place: found for place, found in interventions.pictures.items() if place in shown_places}
    return Audited(rounded(facts), pictures)


def _provenance(run: Run) -> dict[str, Any]:
    identity = run.manifest.identity
    return {
        "model": identity.model["name"],
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
    found = verify(run.store)
    return {
        "verified": not found.problems,
        "problems": found.problems[:20],
        "images": found.images,
        "explained": found.explained,
        "failed": found.failed,
        "rows": found.rows,
        "parts": found.parts,
        "bytes": found.bytes,
    }


def _unchecked(run: Run, values: Values, checked: Table, surroundings: Mapping[str, Any]) -> list[str]:
    """Say what the report does not know, and how to know it."""
    if not len(values):
        return ["Anything: no image was explained."]
    found = []
    if np.unique(values.predicted_I, return_counts=True)[1].max() < 2 * ENOUGH:
        found.append(
            f"Patches, colours and surroundings: no class was said of {2 * ENOUGH} images, the least that a finding "
            "takes."
        )
    if not checked["rows"]:
        found.append("Whether the methods follow the model: run `camatlas sanity RUN`, then audit again.")
    if not surroundings["asked"]:
        found.append(
            "Whether the surroundings decide: that takes boxes, and the metrics box_removed_confidence and "
            "box_only_confidence in the run file."
        )
    if not (values.correct_I == values.correct_I).any():
        found.append("Accuracy, calibration and labels: the dataset has no labels.")
    if len(run.manifest.identity.methods) < 2:
        found.append("Whether another method would show the same: the run has a single method.")
    found.append(
        "Shortcuts that are neither in one place, nor a colour, nor the surroundings of a box: look at the gallery."
    )
    return found


def _wins(run: Run) -> Table:
    """How often each method drops less than each other; nothing without average_drop."""
    label = metric_label(run, "average_drop")
    if label is None or len(run.manifest.identity.methods) < 2:
        return {"rows": [], "sql": ""}
    return asked(run, _WINS.format(drop=quoted(label)))


def _agreement(run: Run, values: Values) -> Table:
    if len(run.manifest.identity.methods) < 2 or not len(values):
        return {"rows": [], "sql": ""}
    return {"rows": agreement(run, AGREEMENT_IMAGES).to_pylist(), "sql": ""}


def _method_kinds(run: Run) -> list[str]:
    return sorted({str(fields["name"]) for fields in run.manifest.identity.methods.values()})
