"""Every number of the report, as plain JSON. The page is rendered from these facts and from the original images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.audit.absent import absent
from pipeline.audit.accuracy import accuracy
from pipeline.audit.binary import binary
from pipeline.audit.checked import NO_MODEL, Unasked
from pipeline.audit.claims import claim
from pipeline.audit.classes import classes
from pipeline.audit.compare import compare_runs
from pipeline.audit.drift import drift
from pipeline.audit.findings import GRADES
from pipeline.audit.gallery import describe_groups, groups
from pipeline.audit.intervals import correlation_interval
from pipeline.audit.leaderboard import metrics
from pipeline.audit.maps import Maps, load_maps
from pipeline.audit.metadata import metadata
from pipeline.audit.multilabel import multilabel
from pipeline.audit.regression import regression
from pipeline.audit.reliability import judgement
from pipeline.audit.tables import Table, query_table, rounded
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
from pipeline.results.sql_engine import quoted
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
        suspicions: what is suspected and could not be tested without the model, in sentences.
    """

    facts: dict[str, Any]
    pictures: Mapping[Place, Original]
    suspicions: Sequence[str] = ()


def audit(
    run: Run,
    other: Run | None = None,
    *,
    gallery: str = "normal",
    ask_model: bool = True,
    judged: JudgedRecord | None = None,
    unasked: Unasked = NO_MODEL,
) -> Audited:
    """Compute all facts of the report on a run.

    Args:
        run: the run.
        other: another run, to compare with: image by image where images are shared, else by distributions.
        gallery: size of the groups in the gallery, a key of `GALLERY_IMAGES`.
        ask_model: load the model and run it on modified images; without it, findings that need this are left out.
        judged: how far metrics can be believed; by default the record that comes with the package.
        unasked: why the model is not asked, and what asks it, where it is not.

    Raises:
        ConfigError: a run that is to be compared explained no image.
    """
    for each in (run, other):
        if each is not None:
            each.keep("images")
    values = load_values(run)
    maps = load_maps(run, values.places)
    grouped = groups(run, values, maps, GALLERY_IMAGES[gallery])
    comparison, drifted = (None, None) if other is None else _compared(run, values, maps, other)
    shown = {place for group in grouped for place in group.places}
    shown |= {(pair["shard"], pair["image_key"]) for pair in (comparison or {"pairs": []})["pairs"]}
    claims = claim(run, values, maps, shown, ask_model=ask_model, unasked=unasked)
    facts = {
        "facts_version": FACTS_VERSION,
        **_outputs(run),
        "sample": values.sample.to_json(),
        "run": {"id": run.manifest.run_id, "path": run.store.url, "started_at": run.manifest.started_at},
        "about": _about(run),
        **_labels(run),
        **claims.facts,
        "grades": dict(GRADES),
        "provenance": _provenance(run),
        "coverage": _coverage(run),
        "accuracy": accuracy(run),
        **({"metadata": metadata(run)} if run.manifest.has_metadata else {}),
        "metrics": metrics(run),
        "reliability": judgement(run, judged or shipped_record(), claims.facts["leaderboard"]["rows"]),
        "wins": _wins(run, values),
        "agreement": _agreement(run, values),
        "classes": classes(run, values, maps),
        "gallery": describe_groups(run, grouped),
        "compare": comparison,
        "drift": drifted,
        "failures": query_table(run, _FAILURES),
        "cost": query_table(run, _COST),
        "method_pages": _method_pages(run),
    }
    pictures = {place: original for place, original in claims.pictures.items() if place in shown | claims.shown}
    return Audited(rounded(facts), pictures, claims.suspicions)


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
    data = run.manifest.identity.data
    return run.manifest.identity.shards, (data.get("sample"), data.get("key_list"))


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
