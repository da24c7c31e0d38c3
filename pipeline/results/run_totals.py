"""The counts of a whole run; a file of its own, because the command line needs them before pyarrow is imported."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Totals:
    """Counts over all parts of a run.

    Attributes:
        images, explained, rows: number of images, of images with a map, and of maps.
        with_failures: number of images and of damaged places in shards that have at least one failure row.
        damages: the damaged places in shards among them.
        failures: number of failure rows by `stage/code`, most frequent first.
        degenerate: share of constant maps of each method that has maps.
    """

    images: int
    explained: int
    rows: int
    with_failures: int
    damages: int
    failures: dict[str, int]
    degenerate: dict[str, float] = field(default_factory=dict)

    @property
    def failure_rate(self) -> float:
        """Share of images and damaged places with a failure row, in [0, 1]."""
        return self.with_failures / max(1, self.images + self.damages)
