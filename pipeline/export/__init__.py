"""A run in the form that another tool opens: tables for lakes and hubs, pictures for viewers.

`iceberg` and `delta` refer to the parts as they are, `hf` sorts their rows into explanations and failures; `fiftyone`
and `spotlight` draw one sample per image and explained class. Texts of the data are values everywhere: no key, class or
shard chooses the name of a file.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CamatlasError, ConfigError, nearest
from pipeline.export.delta import write_delta
from pipeline.export.fiftyone import write_fiftyone
from pipeline.export.folders import new_folder
from pipeline.export.hf import write_hf
from pipeline.export.iceberg import write_iceberg
from pipeline.export.spotlight import write_spotlight
from pipeline.results.query import Run, open_run

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that reading never meets, so that a large run is not read once more for a full disk."""
_COUNTS = "SELECT count(*) FILTER (error_code IS NULL) AS explanations, count(error_code) AS failures FROM parts"


@dataclass(frozen=True)
class Target:
    """A form that a run can be written in.

    Attributes:
        write: writes a run into an empty folder; gives sentences on what the user should know.
        failures: what becomes of the rows that are failures.
    """

    write: Callable[[Run, Path], Sequence[str]]
    failures: str


TARGETS = {
    "delta": Target(write_delta, "in the same table, with an error_code"),
    "fiftyone": Target(write_fiftyone, "left out"),
    "hf": Target(write_hf, "in a configuration of their own"),
    "iceberg": Target(write_iceberg, "in the same table, with an error_code"),
    "spotlight": Target(write_spotlight, "left out"),
}


def export_run(run: str, target: str, dest: str | Path) -> list[str]:
    """Write what a run holds now into a new folder; gives sentences on what was written.

    Args:
        run: path or URL of the run folder.
        target: one of `TARGETS`.
        dest: a folder outside the run, new or empty; it is left as it was when something goes wrong.

    Raises:
        ConfigError: the target is unknown or its package is not installed, the run holds no explanation, or the
            destination cannot be used.
        DamagedRunError: a part cannot be read.
        StoreError: the store of the run does not answer.
    """
    if target not in TARGETS:
        raise ConfigError.one("--to", f"unknown target '{target}'", nearest(target, TARGETS))
    with open_run(run) as opened:
        (counts,) = opened.arrow(_COUNTS).to_pylist()
        if not counts["explanations"]:
            raise ConfigError.one("RUN", "it holds no explanation", "see the view failures")
        with new_folder(dest, opened.store.url) as folder, _run_told_apart(opened):
            notes = TARGETS[target].write(opened, folder)
    failed = f"{counts['failures']} failures: {TARGETS[target].failures}" if counts["failures"] else "no failures"
    return [f"{counts['explanations']} explanations; {failed}", *notes]


@contextmanager
def _run_told_apart(run: Run) -> Iterator[None]:
    """Tell what cannot be read of the run as that; any other error of the system is one of the destination."""
    try:
        yield
    except Exception as error:  # packages that read parts by themselves have errors of their own
        if not isinstance(error, CamatlasError) and getattr(error, "errno", None) not in _OF_WRITING:
            run.refuse_damage()
        raise
