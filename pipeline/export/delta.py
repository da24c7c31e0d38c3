"""Exports a run as a Delta table: hard links to its parts, and the log that makes them a table.

Delta keeps the log next to the data, and readers disagree on absolute paths in it (delta-rs 1.6 takes them for relative
ones). The run folder must not change, so the destination gets the parts as well: as hard links where it is on the same
file system, without copying any bytes. What Delta later rewrites or deletes there stays in the run.
"""

import os
from pathlib import Path

from pipeline.export.folders import not_installed
from pipeline.results.query import Run
from pipeline.results.sql_engine import damage_named

_STATISTICS = "image_key,shard,chunk,label,predicted,target,method,error_code"
"""Columns whose statistics let readers skip files; those of others, such as maps, would only enlarge the log."""


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
    copied = sum(not _link_or_copy(run, part.file, folder) for part in run.parts)
    convert_to_deltalake(
        str(folder),
        name="camatlas",
        description=f"run {run.manifest.run_id}",
        configuration={"delta.dataSkippingStatsColumns": _STATISTICS},
    )
    return [f"{copied} parts were copied, because they cannot be hard-linked"] if copied else []


def _link_or_copy(run: Run, name: str, folder: Path) -> bool:
    """Link one part into the folder, or copy it; returns True if linked. Reading refuses parts that are symlinks."""
    part = Path(run.store.url, name)
    try:
        if not part.is_symlink():
            os.link(part, folder / name, follow_symlinks=False)
            return True
    except OSError:  # another file system, one without hard links, or an object store
        pass
    with damage_named(run.store, name):
        data = run.store.read(name)
    (folder / name).write_bytes(data)
    return False
