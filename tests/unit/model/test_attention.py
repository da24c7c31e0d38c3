"""Attention of every kind is recorded as it is, and what cannot be read is refused by a sentence."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from nets import TinyBlock, TinyVit, ToyNet, images
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

import pipeline
from pipeline.errors import ConfigError
from pipeline.model.attention import AttentionCall, AttentionRecord, AttentionRecorder, AttentionWanted, attending
from pipeline.model.probe import Probe

T, SIZE = 7, 6
NOTHING = nn.Identity()
EVERYTHING = AttentionWanted(weights=True, gradients=True)


def recorded(run: Callable[[], Tensor], network: nn.Module = NOTHING) -> tuple[AttentionCall, Tensor]:
    """Return the one attention of a function, and the function's output."""
    record = AttentionRecord()
    with torch.no_grad(), attending(network, AttentionRecorder(record, EVERYTHING)):
        output = run()
    (call,) = record.calls
    return call, output


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def softmax_rows(scores: Tensor) -> Tensor:
    exponents = scores.double().exp()
    return exponents / exponents.sum(-1, keepdim=True)


QUERIES, KEYS, VALUES = (drawn(2, 4, T, SIZE, seed=seed) for seed in range(3))
KEPT = drawn(2, 1, T, T, seed=3) > -0.5
BIAS = drawn(1, 4, T, T, seed=4)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, lambda scores: scores / math.sqrt(SIZE)),
        ({"scale": 0.3}, lambda scores: scores * 0.3),
        ({"attn_mask": BIAS}, lambda scores: scores / math.sqrt(SIZE) + BIAS),
        ({"attn_mask": KEPT}, lambda scores: (scores / math.sqrt(SIZE)).masked_fill(~KEPT, -math.inf)),
        (
            {"is_causal": True},
            lambda scores: (scores / math.sqrt(SIZE)).masked_fill(~torch.ones(T, T).tril().bool(), -math.inf),
        ),
    ],
    ids=["plain", "scale", "bias", "mask", "causal"],
)
def test_fused_attention_has_the_weights_of_its_definition(
    options: dict[str, Any], change: Callable[[Tensor], Tensor]
) -> None:
    call, output = recorded(lambda: functional.scaled_dot_product_attention(QUERIES, KEYS, VALUES, **options))
    expected = softmax_rows(change(QUERIES @ KEYS.mT))
    assert call.weights_PhTT is not None
    torch.testing.assert_close(call.weights_PhTT.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(call.mean_PTT.double(), expected.mean(1), rtol=1e-5, atol=1e-6)
    assert torch.equal(output, functional.scaled_dot_product_attention(QUERIES, KEYS, VALUES, **options))


def test_heads_that_share_keys_and_values_have_weights_of_their_own() -> None:
    keys, values = KEYS[:, :2], VALUES[:, :2]
    call, output = recorded(lambda: functional.scaled_dot_product_attention(QUERIES, keys, values, enable_gqa=True))
    expected = softmax_rows(QUERIES @ keys.repeat_interleave(2, 1).mT / math.sqrt(SIZE))
    assert call.weights_PhTT is not None
    torch.testing.assert_close(call.weights_PhTT.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(call.weights_PhTT @ call.values_PhTd, output, rtol=1e-5, atol=1e-6)


def explicit(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    weights = functional.softmax(queries @ keys.mT, dim=-1, dtype=torch.float32).to(values.dtype)
    return torch.matmul(nn.Dropout(0.5).eval()(weights), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_explicit_softmax_is_followed_to_the_product_with_the_values(dtype: torch.dtype) -> None:
    given = [tensor.to(dtype) for tensor in (QUERIES, KEYS, VALUES)]
    call, output = recorded(lambda: explicit(*given))
    assert torch.equal(output.float(), explicit(*given).float())
    assert call.weights_PhTT is not None
    expected = softmax_rows((given[0] @ given[1].mT).float())
    torch.testing.assert_close(
        call.weights_PhTT.double(), expected, rtol=1e-2 if dtype != torch.float32 else 1e-5, atol=1e-5
    )


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"kdim": 8, "vdim": 10}], ids=["packed", "no bias", "separate"]
)
def test_the_module_of_torch_has_the_weights_that_it_returns(batch_first: bool, options: dict[str, Any]) -> None:
    module = nn.MultiheadAttention(12, 2, batch_first=batch_first, **options).eval()
    place = (2, T) if batch_first else (T, 2)
    given = [drawn(*place, size) for size in (12, options.get("kdim", 12), options.get("vdim", 12))]
    mask = drawn(T, T, seed=9) > 1
    call, output = recorded(lambda: module(*given, attn_mask=mask, need_weights=False)[0], module)
    with torch.no_grad():
        plain, expected = module(*given, attn_mask=mask, average_attn_weights=False)
    assert call.weights_PhTT is not None
    torch.testing.assert_close(call.weights_PhTT, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output, plain, rtol=1e-5, atol=1e-6)
    mixed = (call.weights_PhTT @ call.values_PhTd).transpose(1, 2).flatten(2)
    mixed = mixed if batch_first else mixed.transpose(0, 1)
    torch.testing.assert_close(module.out_proj(mixed), plain, rtol=1e-5, atol=1e-5)
    assert "forward" not in vars(module)


@pytest.mark.parametrize("kind", ["fused", "explicit", "module"])
def test_gradients_of_weights_are_those_of_autograd(kind: str) -> None:
    module = nn.MultiheadAttention(12, 2, batch_first=True).eval().requires_grad_(False)
    tokens, direction = drawn(2, T, 12), drawn(2, 4, T, SIZE, seed=5)
    runs: dict[str, Callable[[], Tensor]] = {
        "fused": lambda: functional.scaled_dot_product_attention(QUERIES, KEYS, VALUES),
        "explicit": lambda: explicit(QUERIES, KEYS, VALUES),
        "module": lambda: module(tokens, tokens, tokens)[0],
    }
    call, output = recorded(runs[kind], module)
    assert output.requires_grad
    assert call.weights_PhTT is not None
    weights = call.weights_PhTT.clone().requires_grad_()
    again = weights @ call.values_PhTd
    if kind == "module":
        again, direction = module.out_proj(again.transpose(1, 2).flatten(2)), drawn(2, T, 12, seed=6)
    torch.testing.assert_close(again, output, rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad((again.sin() * direction).sum(), [weights])
    (grads,) = torch.autograd.grad((output.sin() * direction).sum(), [call.output])
    torch.testing.assert_close(call.gradient(grads), expected, rtol=1e-4, atol=1e-5)


class Parallel(TinyBlock):
    """Two attentions side by side in one block."""

    def forward(self, tokens_BTK: Tensor) -> Tensor:
        one_BTK, other_BTK = super().forward(tokens_BTK), super().forward(tokens_BTK * 2)
        return (one_BTK + other_BTK) / 2


class Changed(TinyBlock):
    """Weights that are sharpened after the softmax."""

    def forward(self, tokens_BTK: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(tokens_BTK)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT).softmax(-1) ** 2
        heads_BhTd = (weights / weights.sum(-1, keepdim=True)) @ v
        return tokens_BTK + self.out(heads_BhTd.transpose(1, 2).flatten(2))


class EinsumAttention(nn.Module):
    """Attention by a softmax over another dimension, and without a matrix product that is seen."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.einsum("bhid,bhjd->bhji", q, k).softmax(2)
        return torch.einsum("bhji,bhjd->bhid", weights, v)


class Unseen(TinyBlock):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, fused=False)
        self.mix = EinsumAttention()

    def forward(self, tokens_BTK: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(tokens_BTK)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return tokens_BTK + self.out(self.mix(q, k, v).transpose(1, 2).flatten(2))


class TwoExits(TinyVit):
    """Reads the logits from the last block and from the one before."""

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        patches_BTK = self.patches(pixels_BCHW).flatten(2).mT
        tokens_BTK = torch.cat([self.before.expand(len(patches_BTK), -1, -1), patches_BTK], 1)
        early_BTK = self.blocks[1](self.blocks[0](tokens_BTK))
        return self.linear(self.norm(self.blocks[2](early_BTK))[:, 0]) + self.second(self.norm(early_BTK)[:, 0])


def with_block(block: nn.Module, place: int = 1) -> nn.Module:
    model = TinyVit(0)
    model.blocks[place] = block
    return model.eval()


def swin() -> nn.Module:
    model = models.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=5)
    return model.eval()


def map_pooled() -> nn.Module:
    sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", global_pool="map", class_token=False, **sizes)
    return model.eval()


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], int, str]] = {
    "convolutions": (ToyNet, {"layer": "features.3"}, 16, r"but the model has no attention \("),
    "windows": (swin, {}, 32, "but its attention 1 has weights .* for 2 images, as inside of windows"),
    "attention pooling": (map_pooled, {}, 32, "but its attention 3 is between 1 queries and 16 keys"),
    "target layer": (TinyVit, {"layer": "patches"}, 16, "but the target layer gives no tokens .channels_first 4 x 4"),
    "parallel": (
        lambda: with_block(Parallel(16, 2, fused=True)), {"layer": "blocks.0"}, 16,
        "but it is no chain of blocks of one class with one attention each",
    ),
    "changed weights": (
        lambda: with_block(Changed(16, 2, fused=False)), {"layer": "blocks.0"}, 16, "weights changed after the softmax"
    ),
    "unseen": (
        lambda: with_block(Unseen(16, 2)), {"layer": "blocks.0"}, 16,
        r"but layer 'blocks.1.mix' \(EinsumAttention\) computes attention in a way that cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_by_a_sentence(case: str) -> None:
    build, options, side, sentence = REFUSED[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    with pytest.raises(ConfigError, match=sentence) as caught:
        pipeline.explain(model, images(0, 2, side=side), methods=["legrad", "gradcam", "raw_attention"], **options)
    beginning = "explain.methods: 'legrad', 'raw_attention' need attention between the tokens of an image, "
    assert str(caught.value).startswith(beginning)
    assert "gradcam" in pipeline.explain(model, images(0, 2, side=side), methods=["gradcam"], **options).maps


def test_logits_that_are_read_from_several_blocks_exclude_legrad_alone() -> None:
    sentence = "'legrad' reads a score from the tokens of each layer, but the logits of the model depend on more than"
    options: dict[str, Any] = {"layer": "blocks.1"}
    with pytest.raises(ConfigError, match=sentence):
        pipeline.explain(TwoExits(0), images(), methods=["legrad", "attention_rollout"], **options)
    others = ["attention_rollout", "attention_gradient", "raw_attention"]
    assert len(pipeline.explain(TwoExits(0), images(), methods=others, **options).maps) == 3


def test_a_network_of_one_layer_needs_no_other_readouts() -> None:
    one, same = (
        pipeline.explain(TinyVit(0, blocks=1, spare=2), images(), methods=methods, layer="blocks.0.norm1")
        for methods in (["legrad"], ["legrad", "attention_gradient"])
    )
    assert (one.counts.head_passes, one.counts.backwards) == (0, 3)
    torch.testing.assert_close(one.maps["legrad"], same.maps["legrad"])


def test_a_pass_with_other_attention_than_in_the_trial_is_refused() -> None:
    probe = Probe(TinyVit(0), "blocks.1")
    known = probe.attention(images())
    del probe.model.blocks[2]
    other = Probe(probe.model, "blocks.1", layout=probe.layouts(images()))
    assert other.attention(images()) == known, "it is taken from the earlier trial"
    with pytest.raises(ValueError, match="differs from one forward pass to the next"):
        other.observe(images(), gradients=False, attention=AttentionWanted(weights=True))
