"""Counts the images, rows and failures of a run from part footers; reads rows only of parts with failures."""

from collections import Counter

from pipeline.errors import DamagedRunError
from pipeline.results.constant_maps import constant_shares
from pipeline.results.footers import scan
from pipeline.results.run_totals import Totals
from pipeline.storage.base import Store
from pipeline.storage.run_folder import part_names, read_manifest


def totals(store: Store) -> Totals:
    """Count the images, rows and failures of a run.

    Raises:
        DamagedRunError: a part cannot be read.
    """
    names = [part.file for part in part_names(store)]
    scanned = scan(store, names)
    gone = set(names).difference(scanned.statistics, scanned.damaged)
    scanned.damaged.update(dict.fromkeys(gone, "it is missing"))
    if scanned.damaged:
        name, reason = min(scanned.damaged.items())
        raise DamagedRunError(f"{store.url}/{name} cannot be read: {reason}; run `camatlas verify` to list all damage")
    statistics = scanned.statistics.values()
    images = sum(one.footer.images for one in statistics if one.footer)
    failures = sum((one.failures for one in statistics), Counter[str]())
    return Totals(
        images=images,
        explained=images - sum(one.unexplained for one in statistics),
        rows=sum(one.rows for one in statistics),
        with_failures=sum(one.with_failures for one in statistics),
        damages=sum(one.damages for one in statistics),
        failures=dict(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
        degenerate=constant_shares(statistics, read_manifest(store).identity.methods),
    )
