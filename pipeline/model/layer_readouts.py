"""Differentiates the scores that a model's own final layers read from the tokens of each of its layers.

The score of layer l is what the layers after the last block (the final norm, the pooling, the classifier) give for the
mean of the tokens that block l passes on: every token is replaced by the mean, so that whichever ones the model reads,
it reads the mean. They run once more on the tokens of all layers together, stacked along the batch.

Only the path from the score of a layer to its own attention is differentiated: through the final layers, and through
what follows the attention in its block. Over all layers that is the work of one backward pass.

Legend: B rows (image, target), R some rows of one rank, P rows of a pass, L layers, T tokens, K channels, N classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.model.counts import Counts
from pipeline.model.head import Readout, Segment, by_row
from pipeline.model.rows import Rows


class LayerReadouts:
    """The scores of all layers of some passes, as functions of their attention."""

    def __init__(self, segments: Sequence[Segment], counts: Counts) -> None:
        self._segments = segments
        self._counts = counts
        self._read = dict[int, tuple[Tensor, Tensor]]()

    def gradients(self, rows: Rows, targets_B: Tensor, readout: Readout) -> Tensor:
        """Return the positive gradient of each layer's score with respect to its attention, (B, L, T).

        The gradients are set to zero where they are negative, and averaged over the heads and over the queries.
        """

        def differentiate(segment: Segment, local_R: Tensor, rows_R: Tensor) -> dict[str, Tensor]:
            outputs = self._gradients(segment, local_R, targets_B[rows_R], readout)
            calls = zip(segment.attention.calls, outputs, strict=True)
            positive = [call.gradient(grads).relu().mean((1, 2)) for call, grads in calls]
            return {"positive": torch.stack(positive, 1)}

        self._counts.backwards += len(rows.images_B)
        return by_row(self._segments, rows, differentiate)["positive"]

    def _gradients(self, segment: Segment, local_R: Tensor, targets_R: Tensor, readout: Readout) -> list[Tensor]:
        """Return the gradient of the score of each layer at the output of its attention."""
        layers = len(segment.attention.tokens)
        tokens_QTK, logits_QN = self._logits(segment)
        scores = [readout(logits_PN[local_R], targets_R).sum() for logits_PN in logits_QN.chunk(layers)]
        (grads_QTK,) = torch.autograd.grad(scores, [tokens_QTK], retain_graph=True)
        found = list[Tensor]()
        for layer, grads_PTK in enumerate(grads_QTK.chunk(layers)):
            given, output = segment.attention.tokens[layer], segment.attention.calls[layer].output
            found += torch.autograd.grad([given], [output], [grads_PTK], retain_graph=True)
        return found

    def _logits(self, segment: Segment) -> tuple[Tensor, Tensor]:
        """Return the tokens of all layers, stacked along the batch, and the logits read from the mean of each."""
        if segment.first not in self._read:
            assert segment.read is not None, "readouts were asked for"
            tokens_QTK = torch.cat(segment.attention.tokens).detach().requires_grad_()
            mean_QTK = tokens_QTK.mean(1, keepdim=True).expand_as(tokens_QTK).contiguous()
            self._read[segment.first] = tokens_QTK, segment.read(mean_QTK)
            self._counts.head_passes += segment.count * len(segment.attention.tokens)
        return self._read[segment.first]
