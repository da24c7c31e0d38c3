"""The share of constant maps of each method, and a usual cause where there are many.

Constant maps show nothing, and some metrics are good for them. The shares come from the column statistics of parts, so
that no map is read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.results.footers import PartStatistics
from schemas.manifest import RunManifest

MANY = 0.2
"""Share of constant maps of a method above which a run ends with a warning."""


def constant_shares(statistics: Iterable[PartStatistics], methods: Iterable[str]) -> dict[str, float]:
    """Return the share of constant maps of each method; a method without a map is left out.

    Every method has one row for each explained class of an image, with a map or with its failure. So the number of maps
    of a method follows from the number of all rows.

    Args:
        statistics: counts of the files of a run, or of some of them.
        methods: all methods of the run.
    """
    names = list(methods)
    rows, failed, constant = 0, Counter[str](), Counter[str]()
    for counted in statistics:
        rows += counted.rows
        failed.update(counted.failed_maps)
        constant.update(counted.constant_maps)
    each = (rows + failed.total()) // max(1, len(names))
    return {name: constant[name] / (each - failed[name]) for name in names if each > failed[name]}


def constant_warning(shares: Mapping[str, float], manifest: RunManifest) -> str:
    """Say which methods have many constant maps, and what to look at; empty if none has."""
    many = {name: share for name, share in shares.items() if share > MANY}
    if not many:
        return ""
    layer = str(manifest.identity.model.get("layer", ""))
    listed = ", ".join(f"{name} {percent(share)}" for name, share in many.items())
    before = "" if layer.endswith(":input") else f"model.layer: '{layer}:input', or to "
    return (
        f"many maps are constant: {listed}. A method that sets negative values to zero gives such maps where '{layer}' "
        f"is mostly negative, as a normalisation layer before its activation may be; set {before}the layer after it"
    )


def percent(share: float) -> str:
    """Format a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"
