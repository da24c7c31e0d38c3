"""Records every call of a module in one forward pass, in order, with what its output means.

Legend: S images of a trial, K channels, (u, v) grid.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipeline.model.layer_names import LayerName
from pipeline.model.layout import GridView
from pipeline.model.layout_trial import Response, Runs, Trial

ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
"""Class names of modules that mix tokens by attention; what lies inside them makes poor maps."""


@dataclass
class Call:
    """One call of a module that gave one tensor.

    Attributes:
        name: name of the layer: the module's, with the number of the call where the module runs several times.
        begun, ended: when the call began and ended, on a clock that counts both.
        response: what it gave.
        taken: shape of the tensor that went in first, if any.
        has_parameters: whether the module has parameters of its own, not only in its children.
        is_attention: whether its class is named as an attention.
        in_attention: whether it lies inside of such a module.
        is_identity: whether it gave its input back.
    """

    name: str
    begun: int
    ended: int
    response: Response
    taken: tuple[int, ...] | None
    has_parameters: bool
    is_attention: bool
    in_attention: bool
    is_identity: bool

    @property
    def runs_once(self) -> bool:
        """Whether the module runs once in a forward pass."""
        return LayerName.parse(self.name).call is None

    def view(self, size: tuple[int, int]) -> GridView | None:
        """Return the layout of the output for images of a size (H, W); None if the trial decides on none."""
        return self.response.view(size)


Calls = dict[str, Call]
"""The calls of a forward pass by the name of the layer, in the order in which they ended."""


def traced(trial: Trial) -> Calls:
    """Return the calls of a model in one forward pass.

    The second trial follows if the first one leaves open what the last module with parameters gives.
    """
    calls = trial.first(_calls)
    return trial.second(_calls) or calls if _is_open(calls.values(), trial.size) else calls


def _is_open(calls: Iterable[Call], size: tuple[int, int]) -> bool:
    spatial = [call for call in calls if call.has_parameters and not call.in_attention and call.response.views(size)]
    return bool(spatial) and max(spatial, key=lambda call: call.ended).view(size) is None


def _calls(runs: Runs) -> Calls:
    found = dict[tuple[str, int], Call]()
    for model, run in runs:
        with _recorded(model, found):
            run()
    several = {name for name, number in found if number > 1}
    for (name, number), call in found.items():
        call.name = str(LayerName(name, number)) if name in several else name
    return {call.name: call for call in sorted(found.values(), key=lambda call: call.ended)}


@contextmanager
def _recorded(model: nn.Module, found: dict[tuple[str, int], Call]) -> Iterator[None]:
    """Record the calls of one pass, or add what they give in a further pass."""
    tracer = _Tracer(model, found)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(tracer.before(name)).remove)
                stack.callback(module.register_forward_hook(tracer.after(name, module)).remove)
        yield


@dataclass
class _Begun:
    """A call that has not ended."""

    at: int
    number: int
    taken: Tensor | None
    version: int


class _Tracer:
    """Hooks that record one pass."""

    def __init__(self, model: nn.Module, found: dict[tuple[str, int], Call]) -> None:
        self._found = found
        self._clock = 0
        self._begun = dict[str, _Begun]()
        self._attention = {name for name, module in model.named_modules() if ATTENTION.search(type(module).__name__)}

    def before(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            earlier = self._begun.get(name)
            taken = args[0] if args and isinstance(args[0], Tensor) else None
            number = 1 if earlier is None else earlier.number + 1
            self._begun[name] = _Begun(self._tick(), number, taken, -1 if taken is None else taken._version)

        return hook

    def after(self, name: str, module: nn.Module) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            ended = self._tick()
            begun = self._begun[name]
            taken, begun.taken = begun.taken, None  # kept no longer than needed
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return
            key = name, begun.number
            if key not in self._found:
                self._found[key] = Call(
                    name=name,
                    begun=begun.at,
                    ended=ended,
                    response=Response(tuple(output.shape)),
                    taken=None if taken is None else tuple(taken.shape),
                    has_parameters=next(module.parameters(recurse=False), None) is not None,
                    is_attention=name in self._attention,
                    in_attention=any(_lies_in(name, outer) for outer in self._attention),
                    is_identity=taken is not None and _is_same(output, taken, begun.version),
                )
            self._found[key].response.add(output)

        return hook

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


def _is_same(output: Tensor, taken: Tensor, version: int) -> bool:
    """Tell whether a module gave its input back, unchanged."""
    return (
        output.shape == taken.shape
        and output.data_ptr() == taken.data_ptr()
        and output.stride() == taken.stride()
        and output._version == version
    )


def _lies_in(name: str, outer: str) -> bool:
    return bool(outer) and name.startswith(f"{outer}.")
