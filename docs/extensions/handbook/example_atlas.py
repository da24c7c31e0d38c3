"""Writes an atlas of one run without images, so that its views can be described as users see them."""

from pathlib import Path

import pyarrow as pa

from pipeline.metrics import METRICS
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import Footer, publish_part
from schemas.explanation import SCHEMA_VERSION, explanation_schema
from schemas.manifest import RunIdentity, RunManifest, ShardEntry


def schema_of_parts() -> pa.Schema:
    """Return the columns of a run with every metric and with columns of the user's."""
    fields = [pa.field(name, pa.list_(pa.float32()) if kind.curve else pa.float32()) for name, kind in METRICS.items()]
    return explanation_schema(fields, has_metadata=True)


def write_atlas(folder: Path) -> None:
    """Write an atlas with one run."""
    store, manifest = LocalStore(folder / "run"), _manifest()
    take_ownership(store, manifest)
    publish_part(store, schema_of_parts().empty_table(), Footer(manifest.run_id, 0, 0, True, 0))


def _manifest() -> RunManifest:
    identity = RunIdentity(
        code_version="0", schema_version=SCHEMA_VERSION,
        shards=(ShardEntry(name="images.tar", kind="tar", size=0, fingerprint=""),), chunk_images=1,
        data={"metadata": ["column"]}, model={"name": "none"}, targets="predicted", methods={"gradcam": {}},
        metrics={name: {} for name in METRICS}, seed=0, precision="fp32", maps="u8",
    )  # fmt: skip
    return RunManifest(
        identity=identity, locations=("",), classes=("class",), config={}, packages={}, code={}, started_at=""
    )
