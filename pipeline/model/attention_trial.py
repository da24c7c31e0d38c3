"""Finds out by one pass what the attention of a model means: over which tokens, and what the logits are read from.

What cannot be read is refused: no attention at all, attention inside of windows or over fewer tokens, and attention
that is computed in a way that `pipeline.model.attention` does not see.

The tokens that the logits read after the last attention (a class token, a distillation token, the patches where they
are averaged) are those at which its output has a gradient.

Legend: P images of the pass, T tokens, h heads, d numbers of a token in one head, K channels, N classes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import LayerError
from pipeline.model.attention import AttentionRecord, AttentionRecorder, AttentionWanted, attending
from pipeline.model.engine import Exact
from pipeline.model.layer_names import LayerName, module_of
from pipeline.model.layout import GridView
from pipeline.model.layout_trial import Shape, patched_images
from pipeline.model.outputs import Outputs
from pipeline.model.recording import recording, replacing
from pipeline.model.trace import ATTENTION

_IMAGES = 2
_SAME = 1e-4
"""Largest difference of logits that should be equal, relative to the largest one."""


@dataclass(frozen=True)
class TokenAttention:
    """The attention between the tokens of a model.

    Attributes:
        view: the tokens: those before the patches, and the grid of the patches.
        layers: number of layers with attention.
        read: tokens whose rows of the last weights reach the logits: one or more of those before the patches, else
            patches.
        blocks: layers that hold one attention each, in order; the output of one is the input of the next.
        is_read_last: whether the logits depend on the output of the last block alone.
    """

    view: GridView
    layers: int
    read: tuple[int, ...]
    blocks: tuple[str, ...]
    is_read_last: bool

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.view.prefix + self.view.cells


@dataclass
class _Span:
    """One call of a module.

    Attributes:
        name, number: the module, and the number of its call.
        kind: its class.
        first, last: number of attentions before the call began and before it ended.
        taken, given: its first input and its output, if they are tensors.
    """

    name: str
    number: int
    kind: type[nn.Module]
    first: int
    last: int
    taken: Tensor | None
    given: Tensor | None = None


def find_attention(model: nn.Module, outputs: Outputs, shape: Shape, view: object) -> TokenAttention:
    """Run two images through a model, and return what its attention means.

    Args:
        model: the classifier.
        outputs: how its return value becomes logits.
        shape: colours, height and width of the images.
        view: layout of the target layer; one of anything but tokens is refused.

    Raises:
        LayerError: the model has no attention, or none that can be read.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    record, spans = AttentionRecord(), list[_Span]()
    recorder = AttentionRecorder(record, AttentionWanted(weights=True, readouts=True))
    with torch.inference_mode(False), recording({}, {}, gradients=True):
        pixels_PCHW = patched_images(shape, 0, device)[:_IMAGES]
        with _spans(model, record, spans), attending(model, recorder):
            logits_PN = Exact(model, outputs).logits(pixels_PCHW, differentiable=True)
        _check_seen(recorder, record, spans)
        tokens = _checked_tokens(record, view)
        read = _read(record, logits_PN, tokens)
    blocks = _chain(spans, len(record.calls))
    swapped_PN, plain_PN = (_logits(model, outputs, pixels_PCHW, block) for block in (blocks[-1], None))
    return TokenAttention(tokens, len(blocks), read, tuple(blocks), _is_same(swapped_PN, plain_PN.flip(0)))


def check_record(record: AttentionRecord, known: TokenAttention, rows: int) -> None:
    """Raise LayerError if a pass over some images recorded other attention than the trial."""
    expected = [(rows, known.tokens, known.tokens)] * known.layers
    if [(call.shape[0], *call.shape[2:]) for call in record.calls] != expected:
        raise LayerError("the attention of the model differs from one forward pass to the next, so it cannot be read")


def _check_seen(recorder: AttentionRecorder, record: AttentionRecord, spans: Sequence[_Span]) -> None:
    """Raise LayerError if there is no attention, or some of it was not seen."""
    named = [span for span in spans if ATTENTION.search(span.kind.__name__)]
    unseen = [span for span in named if span.first == span.last and not _inside(span, named)]
    if not record.calls and not unseen and not recorder.is_unreadable:
        raise LayerError("the model has no attention")
    if unseen:
        raise LayerError(
            f"layer '{unseen[0].name}' ({unseen[0].kind.__name__}) computes attention in a way that cannot be read"
        )
    if recorder.is_unreadable:
        raise LayerError(
            "some of its attention is computed in a way that cannot be read, such as weights changed after the softmax"
        )


def _inside(span: _Span, others: Sequence[_Span]) -> bool:
    return any(span.name.startswith(f"{other.name}.") for other in others if other.last > other.first)


def _checked_tokens(record: AttentionRecord, view: object) -> GridView:
    """Return the tokens that every attention has; raise LayerError if they are not those of the target layer."""
    for number, call in enumerate(record.calls, 1):
        if len(call.shape) != 4 or call.shape[0] != _IMAGES:
            raise LayerError(
                f"its attention number {number} is not between all tokens of an image, as inside of windows (weights "
                f"{call.shape} for {_IMAGES} images)"
            )
    if not isinstance(view, GridView) or view.kind != "tokens":
        raise LayerError(f"the target layer gives no tokens ({view}); choose a later layer, or auto")
    tokens = view.prefix + view.cells
    for number, call in enumerate(record.calls, 1):
        queries, keys = call.shape[2:]
        if (queries, keys) != (tokens, tokens):
            raise LayerError(
                f"its attention number {number} is between {queries} queries and {keys} keys, and the target layer has "
                f"{tokens} tokens ({view})"
            )
    return view


def _read(record: AttentionRecord, logits_PN: Tensor, view: GridView) -> tuple[int, ...]:
    """Return the tokens that the logits read after the last attention."""
    call = record.calls[-1]
    weights_N = torch.linspace(1, 2, logits_PN.shape[1], device=logits_PN.device)
    score = (logits_PN * weights_N).sum()
    grads = torch.autograd.grad(score, [call.output], allow_unused=True)[0] if score.requires_grad else None
    reached_T = None if grads is None else call.split(grads).ne(0).any(3).any(1).any(0)
    if reached_T is None or not bool(reached_T.any()):
        raise LayerError("its logits do not depend on its last attention")
    read = reached_T.nonzero()[:, 0].tolist()
    before = [token for token in read if token < view.prefix]
    mixed = len(before) < len(read)
    return tuple(before[:1] if mixed else before) or tuple(read)


def _chain(spans: Sequence[_Span], layers: int) -> list[str]:
    """Return the names of modules of one class that hold one attention each and feed each other.

    Raises:
        LayerError: there are none, as where a block holds two attentions side by side.
    """
    holding = [[span for span in spans if (span.first, span.last) == (layer, layer + 1)] for layer in range(layers)]
    for outer in holding[0]:
        chain = [span for found in holding for span in _first_of(found, outer.kind)]
        if len(chain) == layers and all(map(_feeds, chain, chain[1:])) and _is_tokens(chain[-1]):
            return [_name(span, spans) for span in chain]
    raise LayerError("it is no chain of blocks of one class with one attention each")


def _first_of(spans: Sequence[_Span], kind: type[nn.Module]) -> list[_Span]:
    return [span for span in spans if span.kind is kind][:1]


def _feeds(one: _Span, other: _Span) -> bool:
    """Tell whether the output of one call is the first input of another."""
    if one.given is None or other.taken is None or not _is_tokens(one):
        return False
    return one.given.shape == other.taken.shape and torch.equal(one.given, other.taken)


def _is_tokens(span: _Span) -> bool:
    return span.given is not None and span.given.ndim == 3 and len(span.given) == _IMAGES


def _name(span: _Span, spans: Sequence[_Span]) -> str:
    several = sum(other.name == span.name for other in spans) > 1
    return str(LayerName(span.name, span.number)) if several else span.name


def _logits(model: nn.Module, outputs: Outputs, pixels_PCHW: Tensor, swapped: str | None) -> Tensor:
    """Return the logits of two images, where the outputs of one block are those of the other image, if it is named."""
    swapping = (
        replacing(model.get_submodule(module_of(swapped)), swapped, lambda tokens: tokens.flip(0))
        if swapped
        else nullcontext()
    )
    with torch.inference_mode(False), torch.no_grad(), swapping:
        return Exact(model, outputs).logits(pixels_PCHW)


def _is_same(one_PN: Tensor, other_PN: Tensor) -> bool:
    return float((one_PN - other_PN).abs().max()) <= _SAME * float(other_PN.abs().max())


@contextmanager
def _spans(model: nn.Module, record: AttentionRecord, spans: list[_Span]) -> Iterator[None]:
    """Record the calls of all modules in one pass, in the order in which they begin."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                before, after = _hooks(name, type(module), record, spans)
                stack.callback(module.register_forward_pre_hook(before).remove)
                stack.callback(module.register_forward_hook(after).remove)
        yield


def _hooks(
    name: str, kind: type[nn.Module], record: AttentionRecord, spans: list[_Span]
) -> tuple[Callable[[nn.Module, tuple[Any, ...]], None], Callable[[nn.Module, object, object], None]]:
    own = list[_Span]()

    def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
        begun, taken = len(record.calls), args[0] if args and isinstance(args[0], Tensor) else None
        own.append(_Span(name, len(own) + 1, kind, begun, begun, taken))
        spans.append(own[-1])

    def after(_module: nn.Module, _args: object, output: object) -> None:
        own[-1].last = len(record.calls)
        own[-1].given = output if isinstance(output, Tensor) else None

    return before, after
