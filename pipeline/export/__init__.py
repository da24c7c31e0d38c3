"""Exports a run to the formats of other tools: tables for lakes and hubs, pictures for viewers.

`iceberg` and `delta` refer to the parts as they are, `hf` sorts their rows into explanations and failures; `fiftyone`
and `spotlight` write one sample per image and explained class. Text from the data is only ever a value: no key, class
or shard becomes part of a file name.
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

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that reading cannot raise, so that a full disk does not cause a large run to be read once more."""
_COUNTS = "SELECT count(*) FILTER (error_code IS NULL) AS explanations, count(error_code) AS failures FROM parts"


@dataclass(frozen=True)
class Target:
    """A format that a run can be exported to.

    Attributes:
        write: writes a run into an empty folder, and returns notes for the user.
        failures: what happens to the rows that are failures.
    """

    write: Callable[[Run, Path], Sequence[str]]
    failures: str


TARGETS = {
    "delta": Target(write_delta, "in the same table, with an error_code"),
    "fiftyone": Target(write_fiftyone, "left out"),
    "hf": Target(write_hf, "in a separate configuration"),
    "iceberg": Target(write_iceberg, "in the same table, with an error_code"),
    "spotlight": Target(write_spotlight, "left out"),
}


def export_run(run: str, target: str, dest: str | Path) -> list[str]:
    """Write what a run holds now into a new folder, and return notes on what was written.

    Args:
        run: path or URL of the run folder.
        target: one of `TARGETS`.
        dest: a new or empty folder outside the run; after an error it is as it was before.

    Raises:
        ConfigError: the target is unknown or its package is not installed, the run holds no explanations, or the
            destination cannot be used.
        DamagedRunError: a part cannot be read.
        StoreError: the store of the run does not answer.
    """
    if target not in TARGETS:
        raise ConfigError.one("--to", f"unknown target '{target}'", nearest(target, TARGETS))
    with open_run(run) as opened:
        (counts,) = opened.arrow(_COUNTS).to_pylist()
        if not counts["explanations"]:
            raise ConfigError.one("RUN", "the run holds no explanations", "query the view failures")
        with new_folder(dest, opened.store.url) as folder, _damage_named(opened):
            notes = TARGETS[target].write(opened, folder)
    failed = f"{counts['failures']} failures: {TARGETS[target].failures}" if counts["failures"] else "no failures"
    return [f"{counts['explanations']} explanations; {failed}", *notes]


@contextmanager
def _damage_named(run: Run) -> Iterator[None]:
    """Raise DamagedRunError if an error comes from a damaged run; any other system error is the destination's."""
    try:
        yield
    except Exception as error:  # packages that read parts themselves raise errors of many types
        if not isinstance(error, CamatlasError) and getattr(error, "errno", None) not in _WRITE_ERRORS:
            run.refuse_damage()
        raise
