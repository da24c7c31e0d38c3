"""What must be said of a metric, derived from the measurements of `camatlas judge`; the thresholds are here.

A tau of an agreement is the share of pairs ordered right minus the share ordered wrong, so that (1 + tau) / 2 of the
pairs are ordered as the truth does.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from schemas.judged import Agreement, Agreements, FreeGain, MetricRecord


@dataclass(frozen=True)
class Thresholds:
    """What a metric must show to carry a conclusion about methods, and from where on a preference is named.

    Attributes:
        agreement: lower end of the interval of tau, with mass and with rank, over methods. At 0.1, 55 % of the pairs
            of one image are ordered right; if images err independently, the majority of 300 is right in 19 of 20 cases.
        order: share of scenes on which the truth beats each of `ruins`. A metric without knowledge has 0.5; at 0.7 the
            truth wins more than twice as often as it loses.
        ruins: maps that are wrong beyond dispute: in the wrong place, on the wrong part, upside down, or without sense.
        places: the ruins that are wrong in nothing but their place.
        preferred: share of scenes on which a change without knowledge is rewarded. An indifferent metric has at most
            0.5, and reaches 0.6 by chance on a hundred scenes in 3 of 100 cases.
        size: correlation with the area of random maps, at the end of its interval that is nearer to 0. At 0.7 the area
            explains half of the variance of the metric.
        scenes: number of scenes up to which a need is not worth a mark: at the size of usual validation sets.
    """

    agreement: float = 0.1
    order: float = 0.7
    ruins: tuple[str, ...] = ("shifted", "other_part", "inverted", "noise")
    places: tuple[str, ...] = ("shifted", "other_part")
    preferred: float = 0.6
    size: float = 0.7
    scenes: int = 5000


STATED_RELIABILITY = Thresholds()

NOT_TRIED = "not tried on wrong maps"

_PREFERENCES = {
    "blur": "blurred", "dilation": "dilated", "gamma_half": "flattened", "gamma_two": "sharpened",
    "resizing": "resized", "clipping": "clipped",
}  # fmt: skip
"""How a map is called after a change that adds no knowledge."""


@dataclass(frozen=True)
class Mark:
    """Something that a reader must know about a metric: in a few words, and as a phrase with its numbers."""

    short: str
    text: str


def by_truth(agreements: Agreements | None) -> Iterator[tuple[str, Agreement | None]]:
    """Iterate over the agreements with the two truths."""
    for name in ("mass", "rank"):
        yield name, None if agreements is None else getattr(agreements, name)


def disagreement(methods: Agreements | None) -> Iterator[Mark]:
    """Mark a metric whose order of the methods is too far from one of the truths."""
    weak = {name: one for name, one in by_truth(methods) if _low(one) < STATED_RELIABILITY.agreement}
    if not weak:
        return
    if any(one is not None and one.high is not None and one.high < 0 for one in weak.values()):
        short = "against the truth"
    elif any(_low(one) <= 0 for one in weak.values()):
        short = "at chance level"
    else:
        short = "little above chance"
    yield Mark(short, f"orders methods {short} (by {listed(weak)})")


def _low(agreement: Agreement | None) -> float:
    return -1.0 if agreement is None or agreement.low is None else agreement.low


def confusions(order: Mapping[str, float | None]) -> Iterator[Mark]:
    """Mark a metric for which the truth does not beat maps that are wrong beyond dispute."""
    known = {ruin: share for ruin in STATED_RELIABILITY.ruins if (share := order.get(ruin)) is not None}
    if len(known) < len(STATED_RELIABILITY.ruins):
        yield Mark(NOT_TRIED, f"{NOT_TRIED}: it needs a method")
    for ruins, short in (
        (STATED_RELIABILITY.places, "cannot see the place"),
        ([ruin for ruin in STATED_RELIABILITY.ruins if ruin not in STATED_RELIABILITY.places], "fooled by wrong maps"),
    ):
        lost = [ruin for ruin in ruins if known.get(ruin, 1.0) < STATED_RELIABILITY.order]
        if lost:
            shares = ", ".join(f"{ruin.replace('_', ' ')} in {percent(known[ruin])}" for ruin in lost)
            yield Mark(short, f"{short} (the truth beats {shares} of scenes)")


def preferences(judged: MetricRecord) -> Iterator[Mark]:
    """Mark what a metric rewards without knowledge, and how many images its ranking needs."""
    yield from _free_gains(judged.free_gains)
    yield from _size(judged)
    yield from _scenes(judged)


def _free_gains(gains: Mapping[str, FreeGain | None]) -> Iterator[Mark]:
    preferred = {
        _PREFERENCES.get(change, change.replace("_", " ")): gain.rewarded
        for change, gain in gains.items()
        if gain is not None and gain.rewarded is not None and gain.rewarded >= STATED_RELIABILITY.preferred
    }
    if preferred:
        shares = ", ".join(percent(share) for share in preferred.values())
        short = f"prefers {listed(preferred)} maps"
        yield Mark(short, f"{short} ({shares} of scenes)")


def _size(judged: MetricRecord) -> Iterator[Mark]:
    size = judged.size
    if size is None or size.rho is None or size.low is None or size.high is None:
        return
    if size.low * size.high > 0 and min(abs(size.low), abs(size.high)) >= STATED_RELIABILITY.size:
        short = "follows the size of the map"
        yield Mark(short, f"{short} (correlation {size.rho:.2f})")


def _scenes(judged: MetricRecord) -> Iterator[Mark]:
    needed = judged.repeatability.scenes_needed if judged.repeatability else 0
    if needed is None:
        yield Mark("never ranks stably", "no number of scenes gives a stable ranking")
    elif needed > STATED_RELIABILITY.scenes:
        yield Mark(f"needs {needed} images", f"needs {needed} scenes for a stable ranking")


def pairs_right(agreement: Agreement | None) -> float | None:
    """Return the share of pairs ordered as the truth does."""
    return None if agreement is None or agreement.tau is None else (1 + agreement.tau) / 2


def listed(words: Iterable[str]) -> str:
    """Join words with commas and a last "and"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def percent(share: float) -> str:
    """Format a share as a whole percentage."""
    return f"{100 * share:.0f} %"
