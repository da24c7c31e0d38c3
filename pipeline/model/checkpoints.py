"""Finds the tensors of a model in a checkpoint, under the names and in the dicts that training code gives them.

Training code nests the state dict (`{"state_dict": ..., "epoch": 3}`) and puts prefixes before its names (`module.`,
`model.`, `_orig_mod.`). A `Reading` is one nesting with one prefix.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

State = Mapping[str, Tensor]
_DEEPEST = 3
"""Most dicts inside each other that are searched."""
_MOST_PREFIXES = 20
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of a name that come from torch's wrappers; they may be anywhere in it."""
_COUNTER = "num_batches_tracked"
"""Last part of the names of buffers that no prediction depends on; old checkpoints lack them."""
_BOOKKEEPING = {"n_averaged"}
"""Tensors that torch's averaged models keep beside their weights."""


@dataclass(frozen=True)
class Reading:
    """One way to read a checkpoint.

    Attributes:
        nesting: keys of the dicts that contain the tensors.
        prefix: what comes before the model's names.
        state: the tensors below the prefix, by the model's names where they fit.
        outside: the names that do not start with the prefix.
        wanted: the model's tensors.
        changed: how names were changed before they were compared; empty if they were not.
    """

    nesting: tuple[str, ...]
    prefix: str
    state: State
    outside: tuple[str, ...]
    wanted: State
    changed: str = ""

    @property
    def nesting_key(self) -> str:
        """The nesting as a value of `model.weights_key`."""
        return ".".join(self.nesting)

    @property
    def key(self) -> str:
        """The nesting and the prefix as a value of `model.weights_key`."""
        return ".".join([*self.nesting, self.prefix]).strip(".")

    @cached_property
    def missing(self) -> list[str]:
        """The model's names that the checkpoint lacks."""
        return [name for name in self.wanted if name not in self.state and not _is_counter(name)]

    @cached_property
    def unexpected(self) -> list[str]:
        """The checkpoint's names below the prefix that the model lacks."""
        return [name for name in self.state if name not in self.wanted]

    @cached_property
    def different(self) -> list[str]:
        """The names whose tensors have another shape or kind of number than the model's."""
        shared = [name for name in self.wanted if name in self.state]
        return [name for name in shared if not _fits(name, self.state[name], self.wanted[name])]

    @cached_property
    def shared(self) -> int:
        """Number of the model's names that the checkpoint has, whatever their tensors are."""
        return sum(name in self.state for name in self.wanted)

    @cached_property
    def fitting(self) -> int:
        """Number of the model's tensors that the checkpoint gives."""
        return self.shared - len(self.different)

    def is_complete(self, *, alone: bool) -> bool:
        """Tell whether every tensor fits; `alone` also requires that no tensor lies outside of the prefix."""
        return not (self.missing or self.unexpected or self.different or (alone and self.outside))

    def __str__(self) -> str:
        nesting = f"in '{self.nesting_key}'" if self.nesting else ""
        prefix = f"under the prefix '{self.prefix}'" if self.prefix else ""
        return " ".join(filter(None, [nesting, prefix, self.changed])) or "by name"


def readings(content: object, wanted: State) -> Iterator[list[Reading]]:
    """Yield lists of readings, from the names as they are to names that were changed more.

    The names of the checkpoint and of the model are compared as they are, then without the parts that come from torch's
    wrappers; and each time also without a prefix that all names of the model share, because the checkpoint may be of
    the network inside.
    """
    for change, how in ((str, ""), (_without_wrappers, "without the names of torch's wrappers")):
        for shared, goal in _goals(wanted, change):
            lacking = f"without the model's prefix '{shared}'" if shared else ""
            yield [
                reading
                for nesting, state in nestings(content)
                for reading in _readings(
                    nesting, _changed(state, change), goal, wanted, " and ".join(filter(None, [how, lacking]))
                )
            ]


def nestings(content: object, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], State]]:
    """Yield the dicts of tensors in a checkpoint with the keys that lead to them; optimizers are left out."""
    if not isinstance(content, Mapping) or len(above) > _DEEPEST:
        return
    named = {name: inner for name, inner in content.items() if isinstance(name, str)}
    if tensors := {name: inner for name, inner in named.items() if isinstance(inner, Tensor)}:
        yield above, tensors
    for name, inner in named.items():
        if not name.startswith("optim"):
            yield from nestings(inner, (*above, name))


def distinct(complete: Iterable[Reading]) -> list[Reading]:
    """Keep the readings that give different tensors."""
    kept: list[Reading] = []
    for reading in complete:
        if not any(_same(reading.state, other.state) for other in kept):
            kept.append(reading)
    return kept


def described(tensor: Tensor) -> str:
    """Return the shape of a tensor, with its dtype where that is not a float."""
    shape = str(tuple(tensor.shape))
    return shape if tensor.is_floating_point() and not tensor.is_quantized else f"{shape} {tensor.dtype}"


def _goals(wanted: State, change: Callable[[str], str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a prefix that the model's names share, at first none, and the model's names by what follows it."""
    changed = {change(name): name for name in wanted}
    if len(changed) < len(wanted):
        return
    shared = ""
    while True:
        goal = {name.removeprefix(shared): original for name, original in changed.items()}
        yield shared, goal
        first = {name.partition(".")[0] for name in goal}
        if len(first) != 1 or not all("." in name for name in goal):
            return
        shared += f"{first.pop()}."


def _readings(
    nesting: tuple[str, ...], state: State, goal: Mapping[str, str], wanted: State, changed: str
) -> Iterator[Reading]:
    """Yield the readings of one dict of tensors: one for each prefix under which names of the goal are found."""
    counts = Counter({"": 0})
    for name in state:
        starts = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
        counts.update(name[:start] for start in starts if name[start:] in goal)
    for prefix, _ in counts.most_common(_MOST_PREFIXES):
        below = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        outside = tuple(name for name in state if not name.startswith(prefix) and name not in _BOOKKEEPING)
        named = {goal.get(name, name): tensor for name, tensor in below.items()}
        yield Reading(nesting, prefix, named, outside, wanted, changed)


def _changed(state: State, change: Callable[[str], str]) -> State:
    """Change the names of tensors; names that would become equal stay as they are."""
    changed = {change(name): tensor for name, tensor in state.items()}
    return changed if len(changed) == len(state) else state


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == _COUNTER


def _fits(name: str, own: Tensor, goal: Tensor) -> bool:
    """Tell whether a tensor can become a tensor of the model without changing what its numbers mean."""
    if own.is_quantized or own.is_meta or own.layout != torch.strided:
        return False
    alike = (own.is_floating_point(), own.is_complex()) == (goal.is_floating_point(), goal.is_complex())
    return (own.shape == goal.shape or own.numel() == goal.numel() == 1) and (alike or _is_counter(name))


def _same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
