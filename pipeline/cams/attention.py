"""Methods that read the attention of vision transformers: how much each token takes from each other token.

Maps have the grid of the patches. They are the row of the class token, if the model has one: more exactly, the mean of
the rows of the tokens before the patches that reach the logits (class token, and distillation token of DeiT, whose two
heads the model averages; registers do not). Where the patches reach the logits too, it is the row of the first of these
tokens. Where no token before the patches reaches the logits, because the model averages the patches, it is the mean of
their rows. Papers treat the class token alone; the other cases are our choice. Which tokens reach the logits is found
out by a trial pass, not from names.

The weights are those after the softmax, with masks and position biases, in every attention between all tokens of an
image. Models without such attention are refused: networks of convolutions, and those with attention inside of windows,
over fewer keys than tokens, or with weights that are changed after the softmax.

The model's logits are the same with and without these methods, and so are the rows of other methods. There is one
exception: `attention_gradient` and `legrad` switch autograd on from the first attention, and torch's fast path of
`nn.MultiheadAttention` (torchvision, `nn.TransformerEncoder`) is not taken then, which changes the rows of methods
beside them by rounding. At bf16 these two run in float32, as methods that combine several layers do.

The attribution of Chefer, Gur and Wolf (CVPR 2021, "Transformer Interpretability Beyond Attention Visualization") is
left out: its relevance is propagated by rules of its own for every operation of the network (linear layers, GELU,
additions, products), so that it is exact only for networks rewritten with layers that hold these rules, and not for
models as libraries give them.

Legend: B rows, L layers, h heads, T tokens, (u, v) grid of the patches; A_l weights of layer l, S target logit.
"""

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, NoExtraPass, Paper
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class RawAttention(NoExtraPass):
    """Raw attention: the weights of the last layer, averaged over its heads, independent of the target class.

    M = A[class token, patches],   A = mean_h A_L

    A_L (h, T, T) are the weights of the last attention, T tokens, h heads: row i says how much token i takes from
    which token. Without a class token: the mean of the patches' rows. The baseline of the papers on attention.
    """

    name: ClassVar[str] = "raw_attention"
    needs: ClassVar[Needs] = Needs(attention=True)
    paper: ClassVar[Paper] = Paper(
        "Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin", "Attention Is All You Need",
        "NeurIPS", 2017, "arXiv 1706.03762",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), in [0, 1]."""
        tokens = evidence.tokens()
        return tokens.grid(_row_times(tokens.start(), tokens.weights[-1]))


@dataclass(frozen=True, config=STRICT)
class AttentionRollout(NoExtraPass):
    """Attention rollout: attention followed through all layers, with the skip connections, independent of the class.

    M = R[class token, patches],   R = W_L ... W_2 W_1,   W_l = (mean_h A_l + I) / 2, rows normalised to a sum of 1

    A_l (h, T, T) are the weights of layer l, T tokens, h heads; I stands for the skip connection around the attention.
    Every row of R sums to 1: it says from which patches the information in a token came, if attention alone moved it.
    Without a class token: the mean of the patches' rows. Source: section 3.
    """

    name: ClassVar[str] = "attention_rollout"
    needs: ClassVar[Needs] = Needs(attention=True)
    paper: ClassVar[Paper] = Paper(
        "Abnar, Zuidema", "Quantifying Attention Flow in Transformers", "ACL", 2020, "arXiv 2005.00928",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), in [0, 1]."""
        tokens = evidence.tokens()
        row_BT = tokens.start()
        for weights_BTT in reversed(tokens.weights):
            mixed_BTT = (weights_BTT + torch.eye(weights_BTT.shape[1], device=weights_BTT.device)) / 2
            row_BT = _row_times(row_BT, mixed_BTT / mixed_BTT.sum(2, keepdim=True))
        return tokens.grid(row_BT)


@dataclass(frozen=True, config=STRICT)
class AttentionGradient(NoExtraPass):
    """Attention with gradients: rollout of the weights times their gradients for the target class.

    M = R[class token, patches],   R = I, then for each layer in order  R <- R + E_l R,
    E_l = mean_h ReLU( dS/dA_l * A_l )

    A_l (h, T, T) are the weights of layer l, T tokens, h heads; S is the target logit, before the softmax; the product
    is taken element by element. Only attention that raises S counts. Without a class token: the mean of the patches'
    rows. The gradients come from the backward pass that gradient methods share. Source: eq. 5 and 6, self-attention.
    """

    name: ClassVar[str] = "attention_gradient"
    needs: ClassVar[Needs] = Needs(gradients=True, attention=True, attention_gradients=True)
    paper: ClassVar[Paper] = Paper(
        "Chefer, Gur, Wolf",
        "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers",
        "ICCV", 2021, "arXiv 2103.15679",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        tokens = evidence.tokens()
        row_BT = tokens.start()
        for products_BTT in reversed(tokens.products):
            row_BT = row_BT + _row_times(row_BT, products_BTT)
        return tokens.grid(row_BT)


@dataclass(frozen=True, config=STRICT)
class LeGrad:
    """LeGrad: how strongly the attention of each layer raises the score that is read from that layer's tokens.

    M = mean_l mean_h mean_i ReLU( ds_l/dA_l )[i, patches]

    A_l (h, T, T) are the weights of layer l, T tokens, h heads; i runs over the queries, with the class token. s_l is
    the logit of the target class that the model's own final layers (norm, pooling, classifier) read from the tokens
    after block l instead of those after the last one; s_L is the target logit. The gradient follows the path from s_l
    to A_l in block l alone. Models that are no chain of blocks with one attention each are refused.

    In addition to the shared forward pass, the final layers run once on the tokens of each layer but the last (head
    passes), and the work of one backward pass is done: through the second half of each block, and the final layers.
    Source: section 3. The paper scales the map to [0, 1], as our heat maps are.
    """

    name: ClassVar[str] = "legrad"
    needs: ClassVar[Needs] = Needs(attention=True, readouts=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, object]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Bousselham, Boggust, Chaybouti, Strobelt, Kuehne",
        "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity",
        "ICCV", 2025, "arXiv 2404.03214",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:  # noqa: ARG002 - the evidence suffices
        """Compute the maps (B, u, v), >= 0."""
        return evidence.tokens().grid(evidence.readouts().mean(1))

    def cost(self, net: NetShape) -> Cost:
        """Count one head pass per layer but the last, and one backward pass."""
        return Cost(head_passes=max(0, net.attention_layers - 1), backwards=1)


def _row_times(row_BT: Tensor, matrix_BTT: Tensor) -> Tensor:
    """Multiply a row by a matrix: a row of a product of matrices needs no product of two of them."""
    return (row_BT[:, None] @ matrix_BTT)[:, 0]
