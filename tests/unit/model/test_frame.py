"""A model that crops its input is refused, because its maps would lie in wrong places; others read the whole image."""

import warnings
from collections.abc import Callable

import pytest
import torch
from nets import Reframed, ToyNet
from torch import Tensor, nn
from torchvision import models

import pipeline
from pipeline.errors import LayerError
from pipeline.model.frame import check_frame
from pipeline.model.layout import GridView
from pipeline.model.outputs import SOFTMAX


@pytest.mark.parametrize(
    ("change", "margins"),
    [
        (lambda pixels: pixels[:, :, 4:-4, 4:-4], "4 at the top, 4 at the bottom, 4 at the left, 4 at the right"),
        (lambda pixels: pixels[:, :, :24], "8 at the bottom of 32 x 32"),
        (lambda pixels: pixels[:, :, :, 6:], "6 at the left of 32 x 32"),
        (lambda pixels: pixels * torch.ones(32).index_fill(0, torch.arange(28, 32), 0), "4 at the right of 32 x 32"),
    ],
)
def test_a_model_that_crops_is_refused(change: Callable[[Tensor], Tensor], margins: str) -> None:
    pixels_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(LayerError, match=f"does not read all of the image: {margins}"):
        pipeline.explain(Reframed(ToyNet(0), change), pixels_BCHW, layer="net.features.3", layout="channels_first")


@pytest.mark.parametrize(
    ("name", "cells"), [("alexnet", 13), ("resnet18", 7), ("squeezenet1_1", 13), ("vgg11", 14), ("mobilenet_v2", 7)]
)
def test_pixels_that_strides_leave_out_are_no_crop(name: str, cells: int) -> None:
    model = models.get_model(name, weights=None, num_classes=5).eval()
    for side in (224, 231):
        check_frame(model, SOFTMAX, (3, side, side), GridView("channels_first", cells, cells))


@pytest.mark.parametrize("side", [28, 32, 48, 64, 96, 100, 180])
@pytest.mark.parametrize("blocks", [2, 3])
def test_pixels_that_later_layers_leave_out_are_no_crop(blocks: int, side: int) -> None:
    layers = [(nn.Conv2d(3 if index == 0 else 16, 16, 3), nn.ReLU(), nn.MaxPool2d(2)) for index in range(blocks)]
    body = nn.Sequential(*(layer for block in layers for layer in block))
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
    pixels_BCHW = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that cells lie further inside
        assert torch.isfinite(pipeline.explain(model, pixels_BCHW).maps["gradcam"]).all()


def test_outputs_without_gradients_are_left_to_other_checks() -> None:
    class Constant(nn.Module):
        def forward(self, pixels_BCHW: Tensor) -> Tensor:
            return torch.zeros(len(pixels_BCHW), 3)

    check_frame(Constant(), SOFTMAX, (3, 8, 8), GridView("channels_first", 2, 2))
