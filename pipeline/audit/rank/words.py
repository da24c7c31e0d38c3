"""What a ranking says, in sentences: the best methods, those that do not beat a control, and metrics that disagree.

Legend: R resamples, A runs, K metrics, N methods.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.audit.rank.draws import Ranks, is_above
from pipeline.audit.rank.families import TRUTH
from pipeline.audit.rank.scope import Scope
from pipeline.audit.rank.statistics import kendalls_tau
from pipeline.audit.statistics import Numbers, percentiles
from pipeline.results.marks import listed

MOST = 5
"""Largest number of sentences of one kind."""

FEWEST_METHODS = 3
"""Fewest methods with which a disagreement is named: two are in one order or in the other."""


def conclusions(scope: Scope, ranks: Ranks, groups: Mapping[str, Sequence[int]]) -> list[str]:
    """Return what follows from the ranks.

    Args:
        scope: what is compared.
        ranks: the ranks.
        groups: the places of the metrics of each group; the families are among them.
    """
    families = {scope.metrics[k].family for chosen in groups.values() for k in chosen}
    wide = [name for name in groups if name not in families] or list(groups)[:1]
    return [
        *(_best(scope, ranks, name, groups[name]) for name in wide),
        *_without_gain(scope, ranks),
        *_disagreements(scope, ranks, {name: groups[name] for name in groups if name in families}),
    ]


def _best(scope: Scope, ranks: Ranks, group: str, chosen: Sequence[int]) -> str:
    found = dict(zip(scope.methods, ranks.mean_ranks(chosen), strict=True))
    best = [name for name, one in found.items() if one.is_best]
    tied = [name for name, one in found.items() if one.is_tied]
    if len(best) == len(found):
        return f"by {_counted(group, len(chosen))}, all methods have the same mean rank"
    one = found[best[0]]
    within = "" if one.low is None else f" (95 % interval {one.low:.1f} to {one.high:.1f})"
    has, it = ("has", "it") if len(best) == 1 else ("have", "them")
    rest = f"; these images cannot tell {listed(tied)} from {it}" if tied else ""
    return f"by {_counted(group, len(chosen))}, {listed(best)} {has} the best mean rank, {one.value:.1f}{within}{rest}"


def _counted(group: str, count: int) -> str:
    """Put the number of metrics into the name of a group: `all 4 metrics`, `the 1 reliable metric`."""
    kind = group.removesuffix(" metrics")
    if kind == "all":
        return f"all {count} metrics" if count > 1 else "the only metric"
    return f"the {count} {kind} metric{'s' if count > 1 else ''}"


def _without_gain(scope: Scope, ranks: Ranks) -> Iterator[str]:
    """Name the methods that are not reliably better than a control: by all metrics together, and by each metric."""
    judged = [k for k, metric in enumerate(scope.metrics) if metric.family != TRUTH] or list(range(len(scope.metrics)))
    for control in sorted(scope.controls):
        start = f"reliably better than the control {control}"
        if losers := _losers(scope, ranks, control, judged):
            yield f"{listed(losers)} {_is(losers)} not {start} in mean rank"
        found = {k: losers for k in judged if (losers := _losers(scope, ranks, control, [k]))}
        for k in sorted(found, key=lambda k: -len(found[k]))[:MOST]:
            yield _useless(scope, scope.metrics[k].label, found[k], start)


def _useless(scope: Scope, metric: str, losers: Sequence[str], start: str) -> str:
    """Say of how many methods a metric shows no advantage over a control."""
    others = len(scope.methods) - len(scope.controls)
    if len(losers) == others:
        return f"by {metric}, no method is {start}: it shows nothing in favour of any"
    return f"by {metric}, {len(losers)} of {others} methods {_is(losers)} not {start}: {listed(losers)}"


def _losers(scope: Scope, ranks: Ranks, control: str, chosen: Sequence[int]) -> list[str]:
    """Return the methods whose mean rank by some metrics may be no better than that of a control."""
    _, drawn_RN = ranks.means(chosen)
    behind_RN = drawn_RN[:, [scope.methods.index(control)]] - drawn_RN
    return [
        name for n, name in enumerate(scope.methods) if name not in scope.controls and not is_above(behind_RN[:, n])
    ]


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


@dataclass(frozen=True)
class _Judge:
    """A metric, or the metrics of a family: mean ranks of the methods over the runs, and of every resample."""

    name: str
    ranks_N: Numbers
    drawn_RN: Numbers

    @classmethod
    def of(cls, name: str, ranks: Ranks, chosen: Sequence[int], methods: Sequence[int]) -> "_Judge":
        means_N, drawn_RN = ranks.means(chosen)
        return cls(name, means_N[methods], drawn_RN[:, methods])

    def place(self, n: int) -> str:
        """Return the place of a method by this judge: `2nd`, or `shared 2nd`."""
        place = 1 + int((self.ranks_N < self.ranks_N[n]).sum())
        suffix = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
        return f"{'shared ' if (self.ranks_N == self.ranks_N[n]).sum() > 1 else ''}{place}{suffix}"


def _disagreements(scope: Scope, ranks: Ranks, families: Mapping[str, Sequence[int]]) -> list[str]:
    """Describe the pairs of metrics of a family, and of families, that order the methods against each other."""
    methods = [n for n, name in enumerate(scope.methods) if name not in scope.controls]
    names = [scope.methods[n] for n in methods]
    if len(methods) < FEWEST_METHODS:
        return []
    metrics = {k: _Judge.of(scope.metrics[k].label, ranks, [k], methods) for k in range(len(scope.metrics))}
    pairs = [pair for chosen in families.values() for pair in combinations([metrics[k] for k in chosen], 2)]
    whole = [_Judge.of(f"the {name} metrics", ranks, chosen, methods) for name, chosen in families.items()]
    return [*_opposed(pairs, names), *_opposed(list(combinations(whole, 2)), names)]


def _opposed(pairs: Sequence[tuple[_Judge, _Judge]], names: Sequence[str]) -> list[str]:
    """Describe the pairs of judges with a negative tau, smallest first, and count those beyond the first few."""
    taus = [(float(kendalls_tau(one.ranks_N, other.ranks_N)), one, other) for one, other in pairs]
    against = sorted((found for found in taus if found[0] < 0), key=lambda found: found[0])
    sentences = [_disagreement(*found, names) for found in against[:MOST]]
    more = len(against) - MOST
    return [*sentences, *([f"{more} more pairs disagree less"] if more > 0 else [])]


def _disagreement(tau: float, one: _Judge, other: _Judge, names: Sequence[str]) -> str:
    low, high = percentiles(np.asarray(kendalls_tau(one.drawn_RN, other.drawn_RN)))
    n = int(np.abs(one.ranks_N - other.ranks_N).argmax())
    doubt = "" if high is None or high < 0 else ", which may be chance"
    within = "" if low is None else f" (95 % interval {low:.2f} to {high:.2f}{doubt})"
    return (
        f"{one.name} and {other.name} disagree: tau {tau:.2f}{within}; {names[n]} is {one.place(n)} by {one.name} and "
        f"{other.place(n)} by {other.name}"
    )
