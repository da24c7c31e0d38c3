"""What can be compared over several runs: the methods and metrics that all of them have; the rest is named.

Legend: I images, N methods, K metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.rank.families import FAMILIES, family_of
from pipeline.audit.rank.members import Member
from pipeline.audit.statistics import Numbers
from pipeline.audit.values import Flags, Values
from pipeline.cams import CONTROLS
from pipeline.errors import ConfigError, nearest
from pipeline.metrics import METRICS
from pipeline.results.marks import listed
from schemas.explanation import is_curve

Fields = Mapping[str, Mapping[str, Any]]
"""The parameters of methods or metrics with their name in the registry, by their name in a run."""


@dataclass(frozen=True)
class RankedMetric:
    """A metric that ranks methods: its names in the runs and in the registry, its parameters, and what is better."""

    label: str
    name: str
    parameters: Mapping[str, Any]
    better: str

    @property
    def family(self) -> str:
        """Return the family of the metric."""
        return family_of(self.name)


@dataclass(frozen=True)
class Paired:
    """The values of one metric in one run, on the images for which every compared method has them.

    Attributes:
        sums_IN: the sum of an image's values, 0 for images that are left out.
        counts_I: the number of values in that sum, the same for every method.
    """

    sums_IN: Numbers
    counts_I: Numbers

    @property
    def images(self) -> int:
        """Return the number of images."""
        return int(np.count_nonzero(self.counts_I))


@dataclass(frozen=True)
class Scope:
    """What is compared.

    Attributes:
        methods: names of the methods.
        controls: those of them that are controls.
        metrics: the metrics, in the order of their families.
        paired: the values, by place of the run and of the metric.
        left_out: what is not compared, one sentence each.
    """

    methods: tuple[str, ...]
    controls: frozenset[str]
    metrics: tuple[RankedMetric, ...]
    paired: Mapping[tuple[int, int], Paired]
    left_out: tuple[str, ...]


def scope_of(members: Sequence[Member], methods: Sequence[str], metrics: Sequence[str]) -> Scope:
    """Find what all runs have in common.

    Args:
        members: the runs.
        methods: names of the methods to compare; empty for all that the runs share.
        metrics: names of the metrics to rank by; empty for all that the runs share.

    Raises:
        ConfigError: the runs share fewer than two methods, or no metric that ranks; an unknown name was given.
    """
    left_out: list[str] = []
    own = [member.manifest.identity.methods for member in members]
    shared = _chosen(_shared(members, own, "method", left_out), methods, "--methods", left_out)
    shared = [name for name in shared if _has_values(members, name, left_out)]
    if len(shared) < 2:
        raise _nothing("have fewer than two methods in common, and ranks need at least two", members, left_out)
    ranking = list(_ranking(members, metrics, left_out))
    found = {one.label: [pair(member.values, one.label, shared) for member in members] for one in ranking}
    usable = [one for one in ranking if _is_usable(members, one, shared, found[one.label], left_out)]
    if not usable:
        raise _nothing("have no metric in common that can rank methods", members, left_out)
    return Scope(
        methods=tuple(shared),
        controls=frozenset(name for name in shared if own[0][name]["name"] in CONTROLS),
        metrics=tuple(usable),
        paired={(a, k): one for k, metric in enumerate(usable) for a, one in enumerate(found[metric.label])},
        left_out=tuple(left_out),
    )


def pair(values: Values, metric: str, methods: Sequence[str]) -> Paired:
    """Take the values of a metric on the images for which every method has as many values, of every target rule."""
    rules = sorted({rule for rule, _, name in values.columns if name == metric})
    sums_IN, counts_I = np.zeros((len(values), len(methods))), np.zeros(len(values))
    kept_I: Flags = np.ones(len(values), bool)
    for rule in rules:
        sums, counts_IN = (_columns(side, values, rule, methods, metric) for side in (values.sums_IK, values.counts_IK))
        kept_I &= np.isfinite(sums).all(1) & (counts_IN == counts_IN[:, :1]).all(1)
        sums_IN, counts_I = sums_IN + np.nan_to_num(sums), counts_I + counts_IN[:, 0]
    return Paired(sums_IN * kept_I[:, None], counts_I * kept_I)


def _columns(side_IK: Any, values: Values, rule: str, methods: Sequence[str], metric: str) -> Numbers:  # noqa: ANN401 - numpy
    """Return the columns of all methods, (I, N) float64; 0 where a method has none."""
    places = [values.columns.get((rule, method, metric)) for method in methods]
    empty_I = np.zeros(len(values))
    return np.stack([empty_I if k is None else side_IK[:, k].astype(np.float64) for k in places], axis=1)


def _shared(members: Sequence[Member], own: Sequence[Fields], noun: str, left_out: list[str]) -> list[str]:
    """List the names that mean the same in all runs; say which others there are."""
    missing: dict[tuple[str, ...], list[str]] = {}
    shared = []
    for name in dict.fromkeys(name for fields in own for name in fields):
        has = [member.name for member, fields in zip(members, own, strict=True) if name in fields]
        meanings = {_meaning(fields[name]) for fields in own if name in fields}
        if len(has) < len(members):
            missing.setdefault(tuple(has), []).append(name)
        elif len(meanings) > 1:
            left_out.append(f"{noun} {name}: the runs use this name for {listed(sorted(meanings))}")
        else:
            shared.append(name)
    left_out += [f"{noun}{_s(names)} {listed(names)}: only in {listed(has)}" for has, names in missing.items()]
    return shared


def _chosen(shared: list[str], wanted: Sequence[str], option: str, left_out: list[str]) -> list[str]:
    """Keep the names that were asked for."""
    for name in wanted:
        if name not in shared:
            why = next((f": {one}" for one in left_out if name in one.split(":")[0].replace(",", "").split()), "")
            raise ConfigError.one(option, f"'{name}' is not in all runs{why}", nearest(name, shared))
    return [name for name in shared if not wanted or name in wanted]


def _ranking(members: Sequence[Member], wanted: Sequence[str], left_out: list[str]) -> Iterator[RankedMetric]:
    """Yield the metrics that all runs have and of which one direction is better, in the order of their families."""
    own = [member.manifest.identity.metrics for member in members]
    shared = _chosen(_shared(members, own, "metric", left_out), wanted, "--metrics", left_out)
    found = [RankedMetric(label, str(own[0][label]["name"]), own[0][label], _better(own[0][label])) for label in shared]
    _say(left_out, [one.label for one in found if is_curve(one.label)], "curves, which have no order")
    numbers = [one for one in found if not is_curve(one.label)]
    _say(left_out, [one.label for one in numbers if one.better == "neither"], "no value is better than another")
    _say(left_out, [one.label for one in numbers if not one.better], "it is not known which values are better")
    ranked = [one for one in numbers if one.better in ("higher", "lower")]
    yield from sorted(ranked, key=lambda one: FAMILIES.index(one.family))


def _better(fields: Mapping[str, Any]) -> str:
    """Return the direction that is better; the manifest holds that of a plug-in. Empty if it is not known."""
    plugin, kind = fields.get("plugin"), METRICS.get(str(fields["name"]))
    if plugin is not None:
        return str(plugin["better"])
    return "" if kind is None else kind.better


def _meaning(fields: Mapping[str, Any]) -> str:
    """Return what a name stands for: the name in the registry, with the algorithm of an attribution of captum."""
    return " ".join(str(fields[key]) for key in ("name", "algorithm") if key in fields)


def _has_values(members: Sequence[Member], method: str, left_out: list[str]) -> bool:
    """Tell whether a method has a value in every run, and say where it has none."""
    without = [member.name for member in members if method not in {own for own, _ in _measured(member)}]
    if without:
        left_out.append(f"method {method}: it has no value in {listed(without)}")
    return not without


def _is_usable(
    members: Sequence[Member],
    metric: RankedMetric,
    methods: Sequence[str],
    found: Sequence[Paired],
    left_out: list[str],
) -> bool:
    """Tell whether a metric ranks the methods in every run, and say why it does not."""
    for member, paired in zip(members, found, strict=True):
        if not paired.images:
            left_out.append(f"metric {metric.label}: in {member.name}, {_why_unusable(member, metric, methods)}")
            return False
    return True


def _why_unusable(member: Member, metric: RankedMetric, methods: Sequence[str]) -> str:
    lacking = [name for name in methods if (name, metric.label) not in _measured(member)]
    if len(lacking) == len(methods):
        return "no method has a value"
    if lacking:
        return f"{listed(lacking)} {'has' if len(lacking) == 1 else 'have'} no value"
    return "no image has a value of every method"


def _measured(member: Member) -> set[tuple[str, str]]:
    """Return the pairs of a method and a metric of which a run has a value."""
    return {(method, metric) for _, method, metric in member.values.columns}


def _say(left_out: list[str], names: Sequence[str], why: str) -> None:
    if names:
        left_out.append(f"metric{_s(names)} {listed(names)}: {why}")


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) > 1 else ""


def _nothing(what: str, members: Sequence[Member], left_out: Sequence[str]) -> ConfigError:
    subject = "the runs" if len(members) > 1 else f"'{members[0].name}'"
    verb = what if len(members) > 1 else what.replace("have ", "has ", 1).replace(" in common", "")
    return ConfigError.one("RUN", f"{subject} {verb}", "; ".join(left_out))
