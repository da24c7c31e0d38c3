"""Small vision transformers of three libraries, with random weights, and what the libraries say of their attention.

Legend: T tokens, K channels, h heads, N classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision import models

PATCHES = 16
"""All networks have 4 x 4 patches of images of 32 x 32 pixels, and three blocks."""
Network = Any
"""A network of a library, whose parts have names of their own."""
Tail = Callable[[Network, Tensor], Tensor]


@dataclass(frozen=True)
class Vit:
    """A network of a library.

    Attributes:
        build: builds it.
        blocks: name of the module that holds its blocks.
        tail: what follows the last block: from tokens (1, T, K) to logits (1, N).
        read: the tokens that the logits read.
        library: timm, torchvision or transformers.
    """

    build: Callable[[], nn.Module]
    blocks: str
    tail: Tail
    read: tuple[int, ...]
    library: str


def built(vit: Vit, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = vit.build()
        for parameter in model.parameters():
            if parameter.ndim > 1:  # several libraries begin with weights near zero
                nn.init.normal_(parameter, std=0.2)
    return model.eval()


def of_timm(read: tuple[int, ...], name: str = "vit_tiny_patch16_224", **options: object) -> Vit:
    sizes = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    return Vit(lambda: timm.create_model(name, **sizes, **options), "blocks", _timm_tail, read, "timm")


def of_torchvision() -> Vit:
    def build() -> nn.Module:
        return models.VisionTransformer(32, 8, 3, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=5)

    def tail(model: Network, tokens_1TK: Tensor) -> Tensor:
        return model.heads(model.encoder.ln(tokens_1TK)[:, 0])

    return Vit(build, "encoder.layers", tail, (0,), "torchvision")


def of_transformers(name: str, task: str, blocks: str, tail: Tail, read: tuple[int, ...], **options: object) -> Vit:
    sizes = {
        "num_hidden_layers": 3, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 48, "image_size": 32,
        "patch_size": 8, "num_labels": 5,
    }  # fmt: skip

    def build() -> nn.Module:
        config = getattr(transformers, f"{name}Config")(**sizes, **options)
        return getattr(transformers, f"{name}{task}")(config)

    return Vit(build, blocks, tail, read, "transformers")


def _timm_tail(model: Network, tokens_1TK: Tensor) -> Tensor:
    return model.forward_head(model.norm(tokens_1TK))


def _vit_tail(model: Network, tokens_1TK: Tensor) -> Tensor:
    return model.classifier(model.vit.layernorm(tokens_1TK)[:, 0])


def _deit_tail(model: Network, tokens_1TK: Tensor) -> Tensor:
    tokens_1TK = model.deit.layernorm(tokens_1TK)
    return (model.cls_classifier(tokens_1TK[:, 0]) + model.distillation_classifier(tokens_1TK[:, 1])) / 2


def _dino_tail(model: Network, tokens_1TK: Tensor) -> Tensor:
    tokens_1TK = model.dinov2_with_registers.layernorm(tokens_1TK)
    return model.classifier(torch.cat([tokens_1TK[:, 0], tokens_1TK[:, -PATCHES:].mean(1)], 1))


def _beit_tail(model: Network, tokens_1TK: Tensor) -> Tensor:
    return model.classifier(model.beit.pooler(model.beit.layernorm(tokens_1TK)))


CLASSIFIER = "ForImageClassification"
PATCH_TOKENS = tuple(range(PATCHES))
AFTER_CLASS = tuple(range(1, 1 + PATCHES))
VITS: dict[str, Vit] = {
    "timm class token": of_timm((0,)),
    "timm average": of_timm(PATCH_TOKENS, class_token=False, global_pool="avg"),
    "timm average beside a class token": of_timm(AFTER_CLASS, global_pool="avg"),
    "timm registers": of_timm((0,), reg_tokens=3),
    "timm registers and average": of_timm(
        tuple(range(3, 3 + PATCHES)), reg_tokens=3, class_token=False, global_pool="avg"
    ),
    "timm distillation token": of_timm((0, 1), "deit_tiny_distilled_patch16_224"),
    "timm position bias": of_timm(AFTER_CLASS, "beit_base_patch16_224"),
    "torchvision": of_torchvision(),
    "transformers vit": of_transformers("ViT", CLASSIFIER, "vit.layers", _vit_tail, (0,)),
    "transformers vit eager": of_transformers(
        "ViT", CLASSIFIER, "vit.layers", _vit_tail, (0,), attn_implementation="eager"
    ),
    "transformers deit": of_transformers("DeiT", f"{CLASSIFIER}WithTeacher", "deit.layers", _deit_tail, (0, 1)),
    "transformers dinov2 with registers": of_transformers(
        "Dinov2WithRegisters", CLASSIFIER, "dinov2_with_registers.encoder.layer", _dino_tail, (0,)
    ),
    "transformers beit": of_transformers(
        "Beit", CLASSIFIER, "beit.layers", _beit_tail, AFTER_CLASS, use_relative_position_bias=True, out_indices=[1]
    ),
}


@dataclass(frozen=True)
class Shown:
    """What a library shows of one pass.

    Attributes:
        logits_N: the logits.
        weights: the weights of each layer, (1, h, T, T) or (h, T, T), as they are part of the graph.
        tokens: the tokens (1, T, K) after each block.
    """

    logits_N: Tensor
    weights: list[Tensor]
    tokens: list[Tensor]


def shown(vit: Vit, model: Network, image_CHW: Tensor) -> Shown:
    """Run a network as its library does it where attention is asked for."""
    tokens = list[Tensor]()
    keep = lambda _module, _args, output: tokens.append(output)  # noqa: E731
    handles = [block.register_forward_hook(keep) for block in model.get_submodule(vit.blocks)]
    weights = {"timm": _weights_of_timm, "torchvision": _weights_of_torchvision, "transformers": _of_transformers}
    logits_1N, by_layer = weights[vit.library](model, image_CHW[None])
    for handle in handles:
        handle.remove()
    return Shown(logits_1N[0], by_layer, tokens)


def _weights_of_timm(model: Network, pixels_1CHW: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run the unfused attention, and take what goes into the dropout of the weights, which does nothing."""
    found = list[Tensor]()
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop = nn.Identity()
        block.attn.attn_drop.register_forward_pre_hook(lambda _module, args: found.append(args[0]))
    return model(pixels_1CHW), found


def _weights_of_torchvision(model: Network, pixels_1CHW: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Ask for the weights, and take what torch's softmax gives, (h, T, T)."""
    found = list[Tensor]()
    softmax = torch.nn.functional.softmax

    def recorded(*args: object, **kwargs: object) -> Tensor:
        found.append(softmax(*args, **kwargs))
        return found[-1]

    with mock.patch("torch.nn.functional.softmax", recorded), _asking_for_weights(model):
        return model(pixels_1CHW), found


@contextmanager
def _asking_for_weights(model: Network) -> Iterator[None]:
    ask = lambda _module, args, kwargs: (args, kwargs | {"need_weights": True})  # noqa: E731
    handles = [block.self_attention.register_forward_pre_hook(ask, with_kwargs=True) for block in model.encoder.layers]
    yield
    for handle in handles:
        handle.remove()


def _of_transformers(model: Network, pixels_1CHW: Tensor) -> tuple[Tensor, list[Tensor]]:
    model.set_attn_implementation("eager")
    returned = model(pixels_1CHW, output_attentions=True)
    return returned.logits, list(returned.attentions)
