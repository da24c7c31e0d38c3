"""The attention of every layer between the tokens of a batch, as methods receive it.

Legend: B rows (image, target), L layers, T tokens, (u, v) grid of the patches.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.model.attention_trial import TokenAttention
from pipeline.model.head import Readout
from pipeline.model.layer_readouts import LayerReadouts
from pipeline.model.rows import Rows


@dataclass(frozen=True)
class AttentionEvidence:
    """Attention weights of each layer, and where they were asked for, their gradients.

    Attributes:
        known: which tokens there are, and which of them the logits read.
        weights: the weights of each layer, averaged over its heads, (B, T, T): rows are queries, and sum to 1.
        products: mean_h ReLU(gradient * weights) of each layer for the row's score, (B, T, T); empty without gradients.
        is_differentiated: whether the backward pass of the evidence fills `products`.
        by_layer: differentiates the scores read from the tokens of each layer; None unless they were asked for.
    """

    known: TokenAttention
    weights: tuple[Tensor, ...]
    products: tuple[Tensor, ...] = ()
    is_differentiated: bool = False
    by_layer: LayerReadouts | None = None

    def select(self, rows: Tensor) -> "AttentionEvidence":
        """Keep the given rows."""
        return replace(
            self,
            weights=tuple(weights_BTT[rows] for weights_BTT in self.weights),
            products=tuple(products_BTT[rows] for products_BTT in self.products),
        )

    def private(self) -> "AttentionEvidence":
        """Copy the tensors, so that no change of them reaches others."""
        weights, products = (tuple(each.clone() for each in tensors) for tensors in (self.weights, self.products))
        return replace(self, weights=weights, products=products)

    def start(self) -> Tensor:
        """Return the mean of the unit vectors of the tokens that the logits read, (B, T).

        Multiplied by a matrix (T, T) over queries and keys, it gives the mean of the rows of these tokens.
        """
        start_BT = torch.zeros_like(self.weights[0][:, 0])
        start_BT[:, list(self.known.read)] = 1 / len(self.known.read)
        return start_BT

    def grid(self, tokens_BT: Tensor) -> Tensor:
        """Return the values of the patches at their places, (B, u, v); those of other tokens are left out."""
        view = self.known.view
        return tokens_BT[:, view.prefix :].reshape(-1, view.height, view.width)

    def readouts(self, rows: Rows, targets_B: Tensor, readout: Readout) -> Tensor:
        """Return the positive gradient of each layer's own score with respect to its attention, (B, L, T)."""
        if self.by_layer is None:
            raise ValueError("no readouts were recorded; the method must declare readouts=True in its `needs`")
        return self.by_layer.gradients(rows, targets_B, readout)
