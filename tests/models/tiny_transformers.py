"""Tiny models of the library transformers, each with an image processor, saved into folders as users have them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging

logging.disable_progress_bar()
logging.set_verbosity_error()

NAMES = ("cat", "dog", "bird")
_SQUARE = {"height": 48, "width": 48}
_LARGER = {"height": 64, "width": 64}
_TOKENS = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 48,
    "patch_size": 8,
}  # fmt: skip
_DINO = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 48, "patch_size": 8}
_GRIDS = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
_SWIN = {
    "embed_dim": 16, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "window_size": 4, "image_size": 64, "patch_size": 4,
}  # fmt: skip
_TEXTS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
_CONVNEXT = {"size": {"shortest_edge": 64}}
_DEIT = {"size": {"height": 55, "width": 55}, "crop_size": _SQUARE}
_BIT = {"size": {"shortest_edge": 56}, "crop_size": _SQUARE}


@dataclass(frozen=True)
class Tiny:
    """A model: its class, the settings of its configuration, and its image processor with its settings."""

    model: str
    config: str
    settings: dict[str, Any]
    processor: str
    pixels: dict[str, Any] = field(default_factory=dict)


MEMBERS = {
    "vit": Tiny("ViT", "ViT", _TOKENS, "ViT", {"size": _SQUARE}),
    "deit": Tiny("DeiT", "DeiT", _TOKENS, "DeiT", _DEIT),
    "deit_with_teacher": Tiny("DeiTForImageClassificationWithTeacher", "DeiT", _TOKENS, "DeiT", _DEIT),
    "beit": Tiny("Beit", "Beit", _TOKENS, "Beit", {"size": _SQUARE, "do_center_crop": False}),
    "dinov2": Tiny("Dinov2", "Dinov2", _DINO, "Bit", _BIT),
    "dinov2_with_registers": Tiny("Dinov2WithRegisters", "Dinov2WithRegisters", _DINO, "Bit", _BIT),
    "swin": Tiny("Swin", "Swin", _SWIN, "ViT", {"size": _LARGER}),
    "swinv2": Tiny("Swinv2", "Swinv2", _SWIN, "ViT", {"size": _LARGER}),
    "convnext": Tiny("ConvNext", "ConvNext", _GRIDS, "ConvNext", _CONVNEXT),
    "resnet": Tiny("ResNet", "ResNet", {**_GRIDS, "embedding_size": 8, "layer_type": "basic"}, "ConvNext", _CONVNEXT),
    "regnet": Tiny("RegNet", "RegNet", {**_GRIDS, "embedding_size": 8, "groups_width": 8}, "ConvNext", _CONVNEXT),
    "pvt_v2": Tiny(
        "PvtV2", "PvtV2", {**_GRIDS, "image_size": 64, "num_attention_heads": [1, 1, 2, 2]}, "Pvt", {"size": _LARGER}
    ),
    "segformer": Tiny(
        "Segformer", "Segformer", {**_GRIDS, "num_attention_heads": [1, 1, 2, 2]}, "Segformer", {"size": _LARGER}
    ),
    "clip": Tiny(
        "CLIP", "CLIP", {"vision_config": _TOKENS, "text_config": _TEXTS, "projection_dim": 16}, "CLIP",
        {"size": {"shortest_edge": 48}, "crop_size": _SQUARE},
    ),
    "siglip": Tiny("Siglip", "Siglip", {"vision_config": _TOKENS, "text_config": _TEXTS}, "Siglip", {"size": _SQUARE}),
}  # fmt: skip


def build(name: str, head: str = "ForImageClassification", **settings: object) -> nn.Module:
    """Build a model with random weights, in evaluation mode."""
    member = MEMBERS[name]
    named = {"id2label": dict(enumerate(NAMES)), "label2id": {each: index for index, each in enumerate(NAMES)}}
    config = getattr(transformers, f"{member.config}Config")(**(named | member.settings | settings))
    kind = member.model if "For" in member.model else f"{member.model}{head}"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = getattr(transformers, kind)(config)
        nn.init.normal_(list(model.parameters())[-2], std=0.3)  # logits of an untrained head hardly differ
    return model.eval()


def save(model: nn.Module, folder: Path, name: str, **pixels: object) -> str:
    """Save a model with its image processor; return its name for a run file."""
    member = MEMBERS[name]
    model.save_pretrained(folder)
    processor = getattr(transformers, f"{member.processor}ImageProcessor")(**(member.pixels | pixels))
    processor.save_pretrained(folder)
    return f"transformers/{folder}"


def saved(name: str, folder: Path, **settings: object) -> str:
    """Build and save a model; return its name for a run file."""
    return save(build(name, **settings), folder, name)
