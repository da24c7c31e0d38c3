"""Exports a run as an Iceberg table that refers to the parts in place: no row is written again.

The table is `camatlas.parts` of the SQLite catalog `catalog.db`. It points to the files of the run by their absolute
paths, so it breaks when the run moves.
"""

from pathlib import Path

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.export.folders import check_plain, not_installed
from pipeline.results.query import Run

TABLE = "camatlas.parts"


def write_iceberg(run: Run, folder: Path) -> list[str]:
    """Register the parts of a run in a new catalog; all rows, failures included.

    Raises:
        ConfigError: pyiceberg is not installed, or the run is not in a local folder.
        DamagedRunError: a part cannot be read.
    """
    try:
        from pyiceberg.catalog.sql import SqlCatalog
    except ImportError:
        raise not_installed("pyiceberg with its SQL catalog") from None
    if "://" in run.store.url:
        raise ConfigError.one("RUN", f"'{run.store.url}' is not a local folder", "copy it, or use your own catalog")
    check_plain("RUN", run.store.url)
    run.refuse_damage()
    catalog = SqlCatalog("camatlas", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    try:
        catalog.create_namespace("camatlas")
        properties = {"camatlas.run_id": run.manifest.run_id}
        table = catalog.create_table(TABLE, _documented(run.schema), properties=properties)
        table.add_files([f"file://{run.store.url}/{part.file}" for part in run.parts])
    finally:
        catalog.close()
    return []


def _documented(schema: pa.Schema) -> pa.Schema:
    """Move the meaning of each column to the metadata key that Iceberg reads."""
    return pa.schema([field.with_metadata({"doc": _meaning(field)}) for field in schema])


def _meaning(field: "pa.Field[pa.DataType]") -> str:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return f"{metadata.get('meaning', '')} [{metadata.get('unit', '')}]".removesuffix(" []")
