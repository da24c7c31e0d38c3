"""A model that pads, shifts or shrinks its input is refused: cells of its grid do not lie where the image is."""

import re
from collections.abc import Callable

import pytest
import torch
from nets import Reframed, ToyNet
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

import pipeline
from pipeline.errors import LayerError
from pipeline.model.bands import banded_images
from pipeline.model.layout import GridView
from pipeline.model.layout_trial import Trial
from pipeline.model.outputs import SOFTMAX
from pipeline.model.registration import check_registration

LAYER = "net.features.3"


def padded(*sides: int, mode: str = "constant") -> Callable[[Tensor], Tensor]:
    return lambda pixels: functional.pad(pixels, sides, mode=mode)


def shrunk(pixels: Tensor) -> Tensor:
    return functional.pad(functional.interpolate(pixels, scale_factor=0.5), (0, 16, 8, 8))


@pytest.mark.parametrize(
    ("change", "sides"),
    [
        (padded(8, 8, 8, 8), "(top, bottom, left, right)"),
        (padded(8, 8, 8, 8, mode="reflect"), "(top, bottom, left, right)"),
        (padded(0, 0, 0, 12), "(bottom)"),
        (padded(12, 0), "(left)"),
        (shrunk, "(top, bottom, right)"),
    ],
)
def test_a_model_that_changes_the_frame_is_refused(change: Callable[[Tensor], Tensor], sides: str) -> None:
    pixels_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(LayerError, match=f"reaches out of the image {re.escape(sides)}: the model pads"):
        pipeline.explain(Reframed(ToyNet(0), change), pixels_BCHW, layer=LAYER, layout="channels_first")


def stride_4() -> nn.Module:
    """A grid of many cells that read few pixels each."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@pytest.mark.parametrize(
    ("change", "sides"),
    [
        (padded(0, 12), "(right)"),
        (padded(0, 0, 16, 0), "(top)"),
        (padded(12, 12, 12, 12), "(top, bottom, left, right)"),
        (lambda pixels: pixels.roll(12, 3), "(left)"),
    ],
)
def test_on_a_fine_grid_two_cells_are_enough(change: Callable[[Tensor], Tensor], sides: str) -> None:
    pixels_BCHW = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with pytest.raises(LayerError, match=f"reaches out of the image {re.escape(sides)}: the model pads"):
        pipeline.explain(Reframed(stride_4(), change), pixels_BCHW, layer="net.0")


def without_padding(convolutions: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3 if index == 0 else 8, 8, 3) for index in range(convolutions)]
        body = nn.Sequential(*(layer for conv in layers for layer in (conv, nn.ReLU())))
        return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def test_convolutions_without_padding_are_said() -> None:
    pixels_BCHW = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    said = (
        "the outer cells of layer '0' lie further inside of the image than maps show them, .* 8 pixels at the top, 8 "
    )
    with pytest.warns(UserWarning, match=said):
        pipeline.explain(without_padding(8), pixels_BCHW, layer="0")


def test_one_convolution_without_padding_is_less_than_a_cell() -> None:
    pixels_BCHW = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(pipeline.explain(without_padding(1), pixels_BCHW, layer="0").maps["gradcam"]).all()


@pytest.mark.parametrize("change", [lambda pixels: pixels, lambda pixels: functional.interpolate(pixels, (48, 40))])
def test_a_model_that_keeps_the_frame_is_explained(change: Callable[[Tensor], Tensor]) -> None:
    pixels_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = pipeline.explain(Reframed(ToyNet(0), change), pixels_BCHW, layer=LAYER, layout="channels_first").maps
    assert torch.isfinite(maps["gradcam"]).all()


@pytest.mark.parametrize(
    ("name", "layer", "side", "cells"),
    [
        ("alexnet", "features", 224, 6),
        ("resnet18", "layer4", 200, 7),
        ("resnet18", "layer3", 231, 15),
        ("mobilenet_v2", "features", 224, 7),
        ("squeezenet1_1", "features", 224, 13),
    ],
)
def test_strides_and_kernels_are_no_change_of_the_frame(name: str, layer: str, side: int, cells: int) -> None:
    view = GridView("channels_first", cells, cells)
    assert check_registration(Trial(deep(name), SOFTMAX, (3, side, side)), view, layer) == ()


def deep(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.get_model(name, weights=None, num_classes=5).eval()


def test_a_deep_network_that_pads_is_refused() -> None:
    right_half = Trial(Reframed(deep("resnet18"), padded(112, 0)), SOFTMAX, (3, 224, 112))
    with pytest.raises(LayerError, match=r"\(left\)"):
        check_registration(right_half, GridView("channels_first", 7, 7), "net.layer4")


def test_what_a_network_has_learned_does_not_draw_its_cells() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = deep("resnet18")
            with torch.no_grad():
                for module in self.net.modules():
                    if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                        module.weight[:, :, 0].mul_(3)  # its filters look upwards

        def forward(self, pixels_BCHW: Tensor) -> Tensor:
            return self.net(pixels_BCHW)

    view = GridView("channels_first", 7, 7)
    assert check_registration(Trial(Learned().eval(), SOFTMAX, (3, 224, 224)), view, "net.layer4") == ()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(3, 32, 20), (1, 5, 7)])
def test_bands_cover_the_image_once(shape: tuple[int, int, int], axis: int) -> None:
    image_CHW, *copies = banded_images(shape, axis, content=0)
    changed_PHW = torch.stack([(copy_CHW != image_CHW).all(0) for copy_CHW in copies])
    assert torch.equal(changed_PHW.sum(0), torch.ones(shape[1:], dtype=torch.int64))
    along_P = changed_PHW.sum(1 + axis).amax(1)
    assert len(copies) == min(8, shape[1 + axis])
    assert int(along_P.max()) - int(along_P.min()) <= 1
