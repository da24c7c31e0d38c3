"""Records the attention of one pass of a model whose attention is known, and gathers what several passes recorded.

Legend: P rows of a pass, Q rows of tokens, T tokens, K channels, N classes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from pipeline.model.attention import AttentionRecord, AttentionRecorder, AttentionWanted, attending
from pipeline.model.attention_evidence import AttentionEvidence
from pipeline.model.attention_trial import TokenAttention, check_record
from pipeline.model.counts import Counts
from pipeline.model.cut import Cut
from pipeline.model.engine import Engine, Exact
from pipeline.model.head import Segment
from pipeline.model.layer_readouts import LayerReadouts
from pipeline.model.recording import visiting


@contextmanager
def recording_attention(
    engine: Engine | Exact, known: TokenAttention | None, wanted: AttentionWanted, rows: int
) -> Iterator[AttentionRecord]:
    """Record the attention of one pass, and what the blocks pass on; nothing if it is not known what it means.

    Args:
        engine: runs the model.
        known: what the attention means; None where no method asked for it.
        wanted: what is recorded.
        rows: rows of the pass, with padding.

    Raises:
        LayerError: the pass has other attention than is known.
    """
    record = AttentionRecord()
    if known is None:
        yield record
        return

    def keep(tokens: object, _call: int) -> object:
        assert isinstance(tokens, Tensor), "the trial saw tokens"
        record.tokens.append(tokens)
        return tokens.clone()

    with ExitStack() as stack:
        for block in known.blocks[:-1] if wanted.readouts else ():
            stack.enter_context(visiting(engine.layer(block), block, keep))
        stack.enter_context(attending(engine.layer(""), AttentionRecorder(record, wanted)))
        yield record
    check_record(record, known, rows)


def reader(
    cut: Cut, engine: Engine | Exact, known: TokenAttention | None, pixels_1CHW: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """Return a function that gives the logits (Q, N) which the model reads from tokens (Q, T, K) of its last block."""
    if known is None:
        return None
    block = known.blocks[-1]
    return lambda tokens_QTK: cut.logits(engine, block, tokens_QTK, pixels_1CHW, differentiable=True)


def gathered(
    segments: Sequence[Segment], known: TokenAttention | None, wanted: AttentionWanted, counts: Counts
) -> AttentionEvidence | None:
    """Return the attention that several passes recorded, without their padding; None where none was asked for."""
    if known is None:
        return None
    weights = tuple(
        torch.cat([segment.trimmed(segment.attention.calls[layer].mean_PTT) for segment in segments])
        for layer in range(known.layers)
    )
    by_layer = LayerReadouts(segments, counts) if wanted.readouts else None
    return AttentionEvidence(known, weights, is_differentiated=wanted.gradients, by_layer=by_layer)
