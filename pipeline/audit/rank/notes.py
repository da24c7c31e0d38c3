"""What a reader must know before the ranks: runs that are incomplete, too much alike, or too little."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from pipeline.audit.rank.members import Member
from pipeline.audit.rank.scope import Scope
from pipeline.results.constant_maps import MANY
from pipeline.results.marks import listed, percent
from pipeline.results.reliability import differing

FEW = 0.5
"""Share of the images of a run below which a metric is named that rests on fewer."""


def notes_of(members: Sequence[Member], scope: Scope) -> list[str]:
    """Return the notes, one sentence each."""
    found = (_incomplete, _untrained, _same_model, _images, _settings, _parameters)
    sentences = [sentence for one in found for sentence in one(members, scope)]
    return [*sentences, *_constant(members, scope), *_unpaired(members, scope), *_left_out(scope)]


def _incomplete(members: Sequence[Member], scope: Scope) -> Iterator[str]:  # noqa: ARG001 - as the others
    for member in members:
        if not member.is_complete:
            yield f"{member.name} is {member.state}, and its ranks are of these chunks alone"


def _untrained(members: Sequence[Member], scope: Scope) -> Iterator[str]:  # noqa: ARG001 - as the others
    names = [member.name for member in members if member.has_random_weights]
    if names:
        yield f"the model of {listed(names)} has random weights: such ranks say nothing about methods"


def _same_model(members: Sequence[Member], scope: Scope) -> Iterator[str]:  # noqa: ARG001 - as the others
    for one, other in combinations(members, 2):
        if one.weights == other.weights:
            yield (
                f"{one.name} and {other.name} explain the same model, {one.model}: it counts twice, and their spread "
                "is not one over models"
            )


def _images(members: Sequence[Member], scope: Scope) -> Iterator[str]:  # noqa: ARG001 - as the others
    sets = [set(member.values.places) for member in members]
    shared = set.intersection(*sets)
    if any(own != sets[0] for own in sets):
        counts = ", ".join(f"{member.name} {len(own):,}" for member, own in zip(members, sets, strict=True))
        yield (
            f"the runs explain different images ({counts}; {len(shared):,} in all of them): each ranks the methods on "
            "its own, so a spread over models may come from the images"
        )


def _settings(members: Sequence[Member], scope: Scope) -> Iterator[str]:  # noqa: ARG001 - as the others
    readers: Mapping[str, Callable[[Member], str]] = {
        "targets": lambda member: member.manifest.identity.targets,
        "precision": lambda member: member.manifest.identity.precision,
        "version of camatlas": lambda member: member.manifest.identity.code_version,
    }
    for what, read in readers.items():
        if len({read(member) for member in members}) > 1:
            yield f"the runs differ in {what}: {', '.join(f'{member.name} {read(member)}' for member in members)}"


def _parameters(members: Sequence[Member], scope: Scope) -> Iterator[str]:
    """Name the methods and metrics whose parameters are not the same in all runs."""
    yield from _differing(members, scope.methods, lambda member: member.manifest.identity.methods)
    labels = [metric.label for metric in scope.metrics]
    yield from _differing(members, labels, lambda member: member.manifest.identity.metrics)


def _differing(
    members: Sequence[Member], names: Sequence[str], read: Callable[[Member], Mapping[str, Mapping[str, Any]]]
) -> Iterator[str]:
    first = members[0]
    for name in names:
        for other in members[1:]:
            if changed := differing(read(first)[name], read(other)[name]):
                changed = changed.replace(", here ", " against ")
                yield f"{name} has different parameters in {first.name} and {other.name}: {changed}"


def _constant(members: Sequence[Member], scope: Scope) -> Iterator[str]:
    for member in members:
        many = {name: member.constant.get(name, 0.0) for name in scope.methods}
        shares = [f"{name} {percent(share)}" for name, share in many.items() if share > MANY]
        if shares:
            yield (
                f"many maps of {member.name} are constant and show nothing, which some metrics reward: {listed(shares)}"
            )


def _unpaired(members: Sequence[Member], scope: Scope) -> Iterator[str]:
    """Name the metrics that rest on few of the images of a run."""
    for a, member in enumerate(members):
        counts = {metric.label: scope.paired[a, k].images for k, metric in enumerate(scope.metrics)}
        few = [f"{label} {count:,}" for label, count in counts.items() if count < FEW * len(member.values)]
        if few:
            yield (
                f"in {member.name}, few of the {len(member.values):,} images have a value of every method: "
                f"{listed(few)}"
            )


def _left_out(scope: Scope) -> Iterator[str]:
    for sentence in scope.left_out:
        yield f"not compared: {sentence}"
