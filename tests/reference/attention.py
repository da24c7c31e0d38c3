"""Reference implementations of the methods that read attention, written literally from the papers.

`forward` computes a tiny vision transformer by hand, head by head, from its parameters alone. The methods take the
weights of every layer and head, and gradients by autograd through these; tests also call them with the weights that
libraries return. They process one image in double precision and do not use the code under test.

Legend: L layers, h heads, T tokens, K channels, (u, v) grid of the patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from nets import TinyBlock, TinyVit
from torch import Tensor

Weights = list[list[Tensor]]
"""The weights of each head of each layer, (T, T) each."""


@dataclass
class Seen:
    """A forward pass: the logits, the weights of each layer and head, and the tokens that each block passes on."""

    logits_N: Tensor
    weights: Weights
    tokens: list[Tensor]


def forward(model: TinyVit, image_CHW: Tensor) -> Seen:
    tokens_TK = torch.cat([model.before[0], model.patches(image_CHW[None])[0].flatten(1).T])
    seen = Seen(torch.empty(0), [], [])
    for block in model.blocks:
        assert isinstance(block, TinyBlock)
        tokens_TK, weights = one_block(block, tokens_TK)
        seen.weights.append(weights)
        seen.tokens.append(tokens_TK)
    seen.logits_N = tail(model, tokens_TK)
    return seen


def one_block(block: TinyBlock, tokens_TK: Tensor) -> tuple[Tensor, list[Tensor]]:
    width = tokens_TK.shape[1]
    size = width // block.heads
    mixed_T3K = normed(tokens_TK, block.norm1.weight, block.norm1.bias) @ block.qkv.weight.T + block.qkv.bias
    weights, heads = list[Tensor](), list[Tensor]()
    for head in range(block.heads):
        q, k, v = (mixed_T3K[:, part * width + head * size : part * width + (head + 1) * size] for part in range(3))
        exponents_TT = (q @ k.T / size**0.5).exp()
        weights.append(exponents_TT / exponents_TT.sum(1, keepdim=True))
        heads.append(weights[-1] @ v)
    tokens_TK = tokens_TK + torch.cat(heads, 1) @ block.out.weight.T + block.out.bias
    return tokens_TK + block.mlp(normed(tokens_TK, block.norm2.weight, block.norm2.bias)), weights


def normed(tokens_TK: Tensor, weight_K: Tensor, bias_K: Tensor) -> Tensor:
    centred_TK = tokens_TK - tokens_TK.mean(1, keepdim=True)
    return centred_TK / ((centred_TK**2).mean(1, keepdim=True) + 1e-5).sqrt() * weight_K + bias_K


def tail(model: TinyVit, tokens_TK: Tensor) -> Tensor:
    """Return the logits that the final norm and the classifier read from tokens."""
    tokens_TK = normed(tokens_TK, model.norm.weight, model.norm.bias)
    if model.pooling == "both":
        return (model.linear(tokens_TK[0]) + model.second(tokens_TK[1])) / 2
    start = model.before.shape[1]
    return model.linear(tokens_TK[0] if model.pooling == "class" else sum(tokens_TK[start:]) / (len(tokens_TK) - start))


def read_by(model: TinyVit) -> list[int]:
    """Return the tokens that the logits read."""
    patches = range(model.before.shape[1], model.before.shape[1] + 16)
    return {"class": [0], "both": [0, 1], "patches": list(patches)}[model.pooling]


def mean_row(matrix_TT: Tensor, read: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """Return the mean of some rows at the patches, which come last, (u, v)."""
    row_T = sum(matrix_TT[token] for token in read) / len(read)
    assert isinstance(row_T, Tensor)
    return row_T[len(row_T) - grid[0] * grid[1] :].reshape(grid)


def mean_heads(weights: list[Tensor]) -> Tensor:
    return sum(weights[1:], weights[0]) / len(weights)


def raw_attention(weights: Weights, read: Sequence[int], grid: tuple[int, int]) -> Tensor:
    return mean_row(mean_heads(weights[-1]), read, grid)


def attention_rollout(weights: Weights, read: Sequence[int], grid: tuple[int, int]) -> Tensor:
    one_TT = torch.eye(len(weights[0][0]), dtype=weights[0][0].dtype)
    rolled_TT = one_TT
    for layer in weights:
        mixed_TT = 0.5 * mean_heads(layer) + 0.5 * one_TT
        rolled_TT = torch.stack([row_T / row_T.sum() for row_T in mixed_TT]) @ rolled_TT
    return mean_row(rolled_TT, read, grid)


def attention_gradient(weights: Weights, score: Tensor, read: Sequence[int], grid: tuple[int, int]) -> Tensor:
    """Take the weights as tensors that the score was computed from."""
    relevance_TT = torch.eye(len(weights[0][0]), dtype=weights[0][0].dtype)
    for layer in weights:
        raised = [(gradient(score, head_TT) * head_TT).clamp_min(0) for head_TT in layer]
        relevance_TT = relevance_TT + mean_heads(raised) @ relevance_TT
    return mean_row(relevance_TT.detach(), read, grid)


def legrad(weights: Weights, scores: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Take one score per layer, read from the tokens of that layer."""
    total_T = torch.zeros(len(weights[0][0]), dtype=weights[0][0].dtype)
    for layer, score in zip(weights, scores, strict=True):
        for head_TT in layer:
            for row_T in gradient(score, head_TT).clamp_min(0):
                total_T += row_T / (len(weights) * len(layer) * len(total_T))
    return total_T[len(total_T) - grid[0] * grid[1] :].reshape(grid)


def gradient(score: Tensor, tensor: Tensor) -> Tensor:
    return torch.autograd.grad(score, [tensor], retain_graph=True)[0]


def of_tiny(name: str) -> Callable[[TinyVit, Tensor, int], Tensor]:
    """Return the method of that name for an image (C, H, W) and a target class of a tiny vision transformer."""

    def run(model: TinyVit, image_CHW: Tensor, target: int) -> Tensor:
        seen, read, grid = forward(model, image_CHW), read_by(model), (4, 4)
        if name == "raw_attention":
            return raw_attention(seen.weights, read, grid).detach()
        if name == "attention_rollout":
            return attention_rollout(seen.weights, read, grid).detach()
        if name == "attention_gradient":
            return attention_gradient(seen.weights, seen.logits_N[target], read, grid)
        return legrad(seen.weights, [tail(model, tokens_TK)[target] for tokens_TK in seen.tokens], grid)

    return run
