"""An atlas: a folder of runs, queried as one. Methods and models are added as new runs, without recomputing old ones.

The views are those of `pipeline.results.query`; each row begins with `run` (the run id), `model` (the model's name) and
`dataset` (a digest of the list of shards, equal if two runs explain the same images). The view `runs` has one row per
run. Runs may differ in their metrics: a column that a run does not have is NULL in its rows.

    with pipeline.open_atlas("atlas") as atlas:
        atlas.sql('''
            SELECT a.image_key, a.average_drop, b.average_drop FROM explanations a JOIN explanations b
            USING (dataset, shard, image_key, target, method)
            WHERE a.model = 'torchvision/resnet50' AND b.model = 'timm/vit_tiny_patch16_224'
        ''')
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.results.class_names import class_table, name_columns, name_statements
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import has_scalar_metrics, sanity_table
from pipeline.results.sql_engine import RunFiles, Tables
from pipeline.results.views import RUN_COLUMNS, VIEWS, view_statements
from pipeline.storage.base import Store
from pipeline.storage.merged import Files, checked_files_of
from pipeline.storage.run_folder import MANIFEST, read_manifest, runs_below
from pipeline.storage.store import open_store
from schemas.explanation import described, explanation_schema
from schemas.manifest import RunManifest, canonical_json

ATLAS_VIEWS = (*VIEWS, "runs")
RUNS_SCHEMA = pa.schema(
    [
        described("run", pa.string(), "", "run id", nullable=False),
        described("model", pa.string(), "", "name of the model", nullable=False),
        described("dataset", pa.string(), "", "digest of the listing of shards", nullable=False),
        described("folder", pa.string(), "", "name of the run's folder within the atlas", nullable=False),
        described("weights_sha256", pa.string(), "", "digest of the weights"),
        described("layer", pa.string(), "", "target layer of the model"),
        described("targets", pa.string(), "", "rules by which classes were chosen", nullable=False),
        described("methods", pa.list_(pa.string()), "", "names of the methods within the run", nullable=False),
        described("metrics", pa.list_(pa.string()), "", "names of the metrics within the run", nullable=False),
        described("precision", pa.string(), "", "fp32, tf32 or bf16", nullable=False),
        described("maps", pa.string(), "", "encoding of the maps", nullable=False),
        described("seed", pa.int64(), "", "of everything random", nullable=False),
        described("started_at", pa.string(), "ISO 8601", "when the run was started", nullable=False),
    ]
)


@dataclass(frozen=True)
class _Member:
    """One run of an atlas."""

    folder: str
    store: Store
    manifest: RunManifest
    files: Files

    @property
    def rows(self) -> RunFiles | pa.Table:
        """Return the files of the run, or an empty table before its first chunk."""
        return RunFiles(self.store, self.files) if self.files.parts else explanation_schema().empty_table()

    @property
    def has_leaderboard(self) -> bool:
        """Return whether the run has finished chunks and a metric that the leaderboard can average."""
        return bool(self.files.parts) and has_scalar_metrics(self.manifest)

    @property
    def row(self) -> dict[str, object]:
        """Return the run's row in the view `runs`."""
        identity = self.manifest.identity
        return {
            "run": self.manifest.run_id, "folder": self.folder, "dataset": dataset_digest(self.manifest),
            "model": identity.model.get("name", ""), "weights_sha256": identity.model.get("weights_sha256"),
            "layer": identity.model.get("layer"), "targets": identity.targets, "methods": list(identity.methods),
            "metrics": list(identity.metrics), "precision": identity.precision, "maps": identity.maps,
            "seed": identity.seed, "started_at": self.manifest.started_at,
        }  # fmt: skip


class Atlas(Tables):
    """An open folder of runs; close it, or use it as a context manager.

    Attributes:
        manifests: the manifest of each run, by run id.
    """

    def __init__(self, store: Store) -> None:
        members = list(_members(store))
        _check_members(store, members)
        self.manifests: Mapping[str, RunManifest] = {member.manifest.run_id: member.manifest for member in members}
        rows = {f"parts_{place}": member.rows for place, member in enumerate(members)}
        runs = pa.Table.from_pylist([member.row for member in members], schema=RUNS_SCHEMA)
        sanity = pa.concat_tables([_with_run(sanity_table(member.store), member) for member in members])
        manifests = [member.manifest for member in members]
        classes = {f"classes_{place}": class_table(manifest) for place, manifest in enumerate(manifests)}
        of_runs = [_with_run(table, member) for table, member in zip(classes.values(), members, strict=True)]
        views = view_statements(
            scalar_metrics=any(member.has_leaderboard for member in members),
            correct=_correct(self.manifests),
            names=name_columns(manifests, {name for one in manifests for name in one.identity.metrics}),
            run_columns=RUN_COLUMNS,
            has_metadata=any(member.files.parts and member.manifest.has_metadata for member in members),
        )
        super().__init__(
            {"runs": runs, "sanity": sanity, "classes": pa.concat_tables(of_runs), **classes, **rows},
            (*name_statements(list(classes)), _union(list(self.manifests)), *views),
            ATLAS_VIEWS,
        )

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the parameters of each metric by its name; of a name with several meanings, those of the first run."""
        found: dict[str, Mapping[str, Any]] = {}
        for manifest in self.manifests.values():
            for label, fields in manifest.identity.metrics.items():
                found.setdefault(label, fields)
        return found


def open_atlas(folder: str | Path) -> Atlas:
    """Open a folder whose subfolders are runs; subfolders whose names begin with `_` or `.` are skipped.

    Raises:
        ConfigError: a subfolder is not a run, two hold the same run, or there is no run.
        DamagedRunError: a manifest or a part is damaged, or a part is missing.
    """
    return Atlas(open_store(str(folder)))


def is_atlas(folder: str | Path) -> bool:
    """Return whether a folder is not a run itself, but has a subfolder that is one."""
    store = open_store(str(folder))
    return MANIFEST not in store.names() and any(
        MANIFEST in store_of_run.names() for _, store_of_run in _folders(store)
    )


def dataset_digest(manifest: RunManifest) -> str:
    """Hash the listing of shards (first 16 hex digits of the sha256)."""
    shards = [shard.model_dump() for shard in manifest.identity.shards]
    return hashlib.sha256(canonical_json(shards).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _folders(store: Store) -> Iterator[tuple[str, Store]]:
    for name in store.names():
        if not name.startswith(("_", ".")):
            yield name, open_store(f"{store.url}/{name}")


def _members(store: Store) -> Iterator[_Member]:
    """Yield the runs of the folder; files and empty subfolders are skipped."""
    for name, store_of_run in _folders(store):
        names = store_of_run.names()
        if MANIFEST in names:
            manifest = read_manifest(store_of_run)
            files = checked_files_of(store_of_run, manifest.run_id, manifest.earlier_ids)
            yield _Member(name, store_of_run, manifest, files)
        elif names:
            runs = [f"'{store.url}/{run}'" for run in runs_below(store)]
            hint = f"to query a run, name it: {', '.join(runs[:3])}" if runs else "put run folders into it"
            hint += "; an atlas holds runs alone: move others elsewhere, or let their names start with _"
            raise ConfigError.one("FOLDER", f"'{store_of_run.url}' is not a run folder: it has no {MANIFEST}", hint)


def _check_members(store: Store, members: Sequence[_Member]) -> None:
    """Raise ConfigError if there is no run, a run occurs twice, or a metric has the name of an atlas column."""
    if not members:
        raise ConfigError.one("FOLDER", f"'{store.url}' holds no run", "put run folders into it")
    folders: dict[str, str] = {}
    for member in members:
        other = folders.setdefault(member.manifest.run_id, member.folder)
        if other != member.folder:
            raise ConfigError.one("FOLDER", f"'{other}' and '{member.folder}' are the same run", "move one elsewhere")
        for name in set(map(str.lower, member.manifest.identity.metrics)) & set(RUN_COLUMNS):
            hint = "an atlas has a column of that name; query this run by itself"
            raise ConfigError.one("FOLDER", f"a metric of '{member.folder}' is called '{name}'", hint)


def _union(run_ids: Sequence[str]) -> str:
    """Return the SQL of the view `parts`; constant run ids let DuckDB skip runs that a query excludes."""
    selects = [
        f"SELECT runs.run, runs.model, runs.dataset, parts_{place}.* FROM runs, parts_{place} "  # noqa: S608
        f"WHERE runs.run = '{run_id}'"
        for place, run_id in enumerate(run_ids)
    ]
    return f"CREATE VIEW parts AS {' UNION ALL BY NAME '.join(selects)}"


def _correct(manifests: Mapping[str, RunManifest]) -> str:
    """Return the SQL that tells whether a prediction is right, by the outputs of each run's model."""
    by_run = {run_id: OutputKind.of(manifest).correct_sql() for run_id, manifest in manifests.items()}
    if len(set(by_run.values())) == 1:
        return next(iter(by_run.values()))
    cases = " ".join(f"WHEN '{run_id}' THEN {sql}" for run_id, sql in by_run.items())
    return f"CASE run {cases} END"


def _with_run(table: pa.Table, member: _Member) -> pa.Table:
    """Prepend the columns that identify the run to a table."""
    for name in reversed(RUN_COLUMNS):
        table = table.add_column(0, RUNS_SCHEMA.field(name), pa.array([member.row[name]] * len(table), pa.string()))
    return table
