"""Models that once gave wrong numbers without a word: each is refused by a sentence, or right once it is stated."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

SIDE = 64


class Net(nn.Module):
    """A small network with a given number of outputs and a last step."""

    def __init__(self, outputs: int, last: Callable[[Tensor], Any] = torch.clone) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
            self.linear = nn.Linear(8, outputs)
        self.last = last

    def forward(self, pixels_BCHW: Tensor) -> Any:
        return self.last(self.linear(self.body(pixels_BCHW).mean((2, 3))))


def one_logit() -> nn.Module:
    return Net(1)


def softmax_inside() -> nn.Module:
    return Net(3, lambda logits_BN: logits_BN.softmax(1))


def sigmoid_inside() -> nn.Module:
    return Net(3, torch.sigmoid)


def two_of_one_shape() -> nn.Module:
    return Net(3, lambda logits_BN: (logits_BN, -logits_BN))


def three_logits() -> nn.Module:
    return Net(3)


class Chance(Net):
    def forward(self, pixels_BCHW: Tensor) -> Any:
        return self.linear(functional.dropout(self.body(pixels_BCHW).mean((2, 3))))


class Statistics(Net):
    def forward(self, pixels_BCHW: Tensor) -> Any:
        return self.linear(functional.batch_norm(self.body(pixels_BCHW), None, None, training=True).mean((2, 3)))


class Listing(Net):
    def __init__(self) -> None:
        super().__init__(3)
        self.cut = Cut()

    def forward(self, pixels_BCHW: Tensor) -> Any:
        return self.linear(torch.cat(self.cut(self.body(pixels_BCHW)), 1).mean((2, 3)))


class Cut(nn.Module):
    def forward(self, acts_BKuv: Tensor) -> list[Tensor]:
        return list(acts_BKuv.split(4, 1))


class Cropping(Net):
    def forward(self, pixels_BCHW: Tensor) -> Any:
        return super().forward(pixels_BCHW[:, :, 8:-8, 8:-8])


def cropping() -> nn.Module:
    return Cropping(3)


class Padding(Net):
    def forward(self, pixels_BCHW: Tensor) -> Any:
        return super().forward(functional.pad(pixels_BCHW, (0, pixels_BCHW.shape[3] // 2)))


def padding() -> nn.Module:
    return Padding(3)


def chance() -> nn.Module:
    return Chance(3)


def statistics() -> nn.Module:
    return Statistics(3)


def listing() -> nn.Module:
    return Listing()


def extractor() -> nn.Module:
    return timm.create_model("mobilenetv3_small_050", num_classes=0)


def swin() -> nn.Module:
    return timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 2, 1), embed_dim=24)


def volo() -> nn.Module:
    return timm.create_model("volo_d1_224")


def sequencer() -> nn.Module:
    return timm.create_model("sequencer2d_s", layers=(1, 1, 1, 1))


def convnext() -> nn.Module:
    return models.convnext_tiny(weights=None)


def hiera() -> nn.Module:
    return timm.create_model("hiera_tiny_224", embed_dim=24, stages=(1, 1, 1, 1))


def lost_rows(_model: nn.Module) -> object:
    """A layout that loses every second row."""
    return lambda raw: raw[::2], lambda maps, _like: maps


@dataclass(frozen=True)
class Case:
    """One refusal.

    Attributes:
        words: what the sentence says.
        model: keys of the section `model`, beside the name.
        explain: keys of the section `explain`.
        side: height and width of the images.
    """

    words: str
    model: dict[str, Any] = field(default_factory=dict)
    explain: dict[str, Any] = field(default_factory=dict)
    side: int = SIDE


LAYERS = {"layer": "body.2"}
REFUSED = {
    "one_logit": Case("set it to binary for two classes"),
    "one_logit as softmax": Case("set binary, sigmoid or raw", {"outputs": "softmax"}),
    "softmax_inside": Case("probabilities already"),
    "softmax_inside as softmax": Case("set probabilities", {"outputs": "softmax"}),
    "softmax_inside as sigmoid": Case("set probabilities", {"outputs": "sigmoid"}),
    "sigmoid_inside": Case("after a sigmoid"),
    "three_logits as binary": Case("binary needs one output per image", {"outputs": "binary"}),
    "three_logits as probabilities": Case("probabilities lie in [0, 1]", {"outputs": "probabilities"}),
    "three_logits as raw": Case("average_drop", {"outputs": "raw"}, {"metrics": ["average_drop"]}),
    "two_of_one_shape": Case("model.output_key"),
    "extractor": Case("feature extractor"),
    "chance": Case("change from one pass to the next"),
    "statistics": Case("other logits alone than in a batch"),
    "cropping": Case("does not read all of the image: 8 at the top"),
    "padding": Case("reaches out of the image (right)"),
    "listing": Case("outputs list, not one tensor", {"layer": "cut"}),
    "swin": Case("rows for 6 images", {"layer": "layers.2.blocks.1.attn"}, side=224),
    "hiera": Case("follows it in no layout", {"layer": "blocks.0"}, side=224),
    "hiera as tokens": Case("layout", {"layer": "blocks.0", "layout": {"tokens": {"grid": [56, 56]}}}, side=224),
    "volo as channels_first": Case(
        "not as channels_first", {"layer": "network.4", "layout": "channels_first"}, side=224
    ),
    "convnext as channels_first": Case(
        "not as channels_first", {"layer": "features.7.2.block.2", "layout": "channels_first"}, side=224
    ),
    "three_logits with lost rows": Case(
        "rows of maps (K, u, v)", {"layer": "body.2", "layout": "wrong_cases:lost_rows"}
    ),
}
RIGHT = {
    "volo": ("network.4", "channels_last 14 x 14"),
    "sequencer": ("stages.3", "channels_last 16 x 16"),
    "convnext": ("features.7.2.block.2", "channels_last 7 x 7"),
}
"""Layers that were read in a wrong way, with their layout."""
