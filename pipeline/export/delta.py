"""A run as a Delta table: hard links to its parts, and the log that makes them a table.

Delta keeps the log beside the data, and readers do not agree on absolute paths in it (delta-rs 1.6 takes them for
relative ones). The run folder must stay as it is, so the destination holds the parts once more, as hard links where it
lies on the same file system: no byte is written twice, and what Delta later rewrites or deletes there, the run keeps.
"""

import os
from pathlib import Path

from pipeline.export.folders import not_installed
from pipeline.results.query import Run
from pipeline.results.sql_engine import damage_named

_STATISTICS = "image_key,shard,chunk,label,predicted,target,method,error_code"
"""Columns by which readers may skip files; others, maps among them, would only swell the log."""


def write_delta(run: Run, folder: Path) -> list[str]:
    """Link the parts of a run into a folder and register them there as one table; all rows, failures included.

    Raises:
        ConfigError: deltalake is not installed.
        DamagedRunError: a part cannot be read.
    """
    try:
        from deltalake import convert_to_deltalake
    except ImportError:
        raise not_installed("deltalake") from None
    run.refuse_damage()
    copied = sum(not _linked(run, part.file, folder) for part in run.parts)
    convert_to_deltalake(
        str(folder),
        name="camatlas",
        description=f"run {run.manifest.run_id}",
        configuration={"delta.dataSkippingStatsColumns": _STATISTICS},
    )
    return [f"{copied} parts were copied: they cannot be linked from here"] if copied else []


def _linked(run: Run, name: str, folder: Path) -> bool:
    """Link one part into the folder, or copy it; tells which. A symbolic link is no part: reading it refuses."""
    part = Path(run.store.url, name)
    try:
        if not part.is_symlink():
            os.link(part, folder / name, follow_symlinks=False)
            return True
    except OSError:  # another file system, one without links, or an object store
        pass
    with damage_named(run.store, name):
        data = run.store.read(name)
    (folder / name).write_bytes(data)
    return False
