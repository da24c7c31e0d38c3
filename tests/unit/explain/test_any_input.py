"""Inputs of any number of channels and of two different sides: every method and metric, against equal RGB networks."""

import copy
from collections.abc import Iterator, Mapping

import pytest
import torch
from nets import StagedNet
from quick import OF_ATTENTION, SPECS
from torch import Tensor, nn

import pipeline
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD

Maps = Mapping[str, Tensor]
Values = Mapping[str, Maps]

LAYER = "stage2"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
BOXES = ((4.0, 2.0, 20.0, 11.0),)
NOISY = {"smoothgrad", "smooth_gradcam_pp", "sscam"}
"""Methods whose noise has the shape of the image, so that other shapes draw other numbers."""
SEEDED = {"rise", "shuffled_gradcam"}
"""Methods that draw masks or orders, which are not transposed with the image."""
RANKED = {"insertion", "deletion"}
"""Metrics that order pixels; those of equal heat, as where a ReLU cuts, are in the order of rows."""
METRICS = [
    "average_drop", "increase", "pointing_game", "energy_in_box", "box_removed_confidence", "box_only_confidence",
    {"insertion": {"steps": 4}}, {"deletion": {"steps": 4}},
]  # fmt: skip


def network(weight_KCab: Tensor | None = None) -> nn.Module:
    """Return a network whose first convolution has these weights."""
    net = StagedNet(3)
    if weight_KCab is not None:
        first = net.stage1[0]
        net.stage1[0] = nn.Conv2d(weight_KCab.shape[1], first.out_channels, 3, 2, 1)
        net.stage1[0].weight.data, net.stage1[0].bias.data = weight_KCab.clone(), first.bias.data.clone()
    return net.eval()


WEIGHT_K3ab = network().stage1[0].weight.data  # type: ignore[index]


def images(channels: int = 3, height: int = 16, width: int = 32) -> Tensor:
    return torch.randn(3, channels, height, width, generator=torch.Generator().manual_seed(channels))


def explained(
    net: nn.Module,
    pixels_BCHW: Tensor,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
    boxes: tuple[tuple[float, ...], ...] = BOXES,
) -> tuple[Maps, Values]:
    """Explain three images by every method, and return the maps and the metrics of every method."""
    methods = [spec for name, spec in SPECS.items() if name not in {"cam", *NOISY, *OF_ATTENTION}]
    found = pipeline.explain(
        net, pixels_BCHW, methods=methods, layer=LAYER, stages=StagedNet.STAGES, outputs="softmax", mean=mean, std=std,
        keys=["a", "b", "c"],
    )  # fmt: skip
    return found.maps, pipeline.evaluate(net, pixels_BCHW, found, metrics=METRICS, boxes=[boxes] * len(pixels_BCHW))


def differences(one: tuple[Maps, Values], other: tuple[Maps, Values]) -> Iterator[str]:
    """Name the methods whose maps differ, and the metrics that do."""
    for name, map_Buv in one[0].items():
        scale = float(map_Buv.abs().max())
        if not torch.allclose(map_Buv, other[0][name], rtol=1e-3, atol=1e-4 * scale):
            yield f"maps of {name}"
    for metric, by_method in one[1].items():
        for name, values_B in by_method.items():
            if not torch.allclose(values_B, other[1][metric][name], rtol=1e-3, atol=1e-3, equal_nan=True):
                yield f"{metric} of {name}"


def test_channels_that_the_network_ignores_change_nothing() -> None:
    """Six channels, of which the network reads three, are explained as these three."""
    pixels_B3HW = images()
    pixels_B6HW = torch.cat([pixels_B3HW, images(4)[:, :3]], 1)
    six = network(torch.cat([WEIGHT_K3ab, torch.zeros_like(WEIGHT_K3ab)], 1))
    by_six = explained(six, pixels_B6HW, (*MEAN, 0.1, 0.2, 0.3), (*STD, 0.4, 0.5, 0.6))
    assert [*differences(by_six, explained(network(), pixels_B3HW))] == []


def test_one_channel_is_explained_as_three_equal_ones() -> None:
    pixels_B1HW = images(1)
    grey = network(WEIGHT_K3ab.sum(1, keepdim=True))
    by_one = explained(grey, pixels_B1HW, (0.5,), (0.25,))
    by_three = explained(network(), pixels_B1HW.repeat(1, 3, 1, 1), (0.5,) * 3, (0.25,) * 3)
    different = {text.rpartition(" ")[2] for text in differences(by_one, by_three)}
    assert different <= {"fullgrad", "opti_cam"}, "sizes of gradients are added up; Adam takes the signs of tiny ones"


def transposed(net: nn.Module) -> nn.Module:
    flipped = copy.deepcopy(net)
    for module in flipped.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.transpose(2, 3).contiguous()
    return flipped


def test_a_transposed_image_has_the_transposed_map() -> None:
    """A wide image is explained as the tall image of the transposed network; boxes and metrics follow."""
    wide = explained(network(), images())
    turned_boxes = tuple((y0, x0, y1, x1) for x0, y0, x1, y1 in BOXES)
    tall_maps, tall_values = explained(transposed(network()), images().transpose(2, 3).contiguous(), boxes=turned_boxes)
    assert wide[0]["gradcam"].shape[1:] == (4, 8)
    tall = {name: map_Buv.transpose(1, 2) for name, map_Buv in tall_maps.items()}, tall_values
    different = [text.split(" of ") for text in differences(wide, tall)]
    assert {name for what, name in different if what not in RANKED} <= SEEDED


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_noise_has_the_shape_of_the_image(channels: int) -> None:
    net = network(torch.randn(6, channels, 3, 3, generator=torch.Generator().manual_seed(1)))
    found = pipeline.explain(
        net, images(channels), methods=[SPECS[name] for name in sorted(NOISY)], layer=LAYER, outputs="softmax",
        mean=(0.5,) * channels, std=(0.5,) * channels,
    )  # fmt: skip
    assert all(map_Buv.isfinite().all() for map_Buv in found.maps.values())


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_tensors_without_colours_need_a_normalisation_only_where_black_is_meant(channels: int) -> None:
    net = network(torch.randn(6, channels, 3, 3, generator=torch.Generator().manual_seed(1)))
    pixels_BCHW, stated = images(channels), {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    found = pipeline.explain(net, pixels_BCHW, layer=LAYER, outputs="softmax")
    same = pipeline.explain(net, pixels_BCHW, layer=LAYER, outputs="softmax", **stated)
    assert torch.equal(found.maps["gradcam"], same.maps["gradcam"])
    assert pipeline.evaluate(net, pixels_BCHW, found)["average_drop"]["gradcam"].isfinite().all()
    assert "data:image/" in found._repr_html_()
    path = {"methods": ["integrated_gradcam"], "layer": LAYER, "outputs": "softmax"}
    with pytest.raises(ValueError, match=rf"'black' needs the mean and std .*with {channels} numbers? each"):
        pipeline.explain(net, pixels_BCHW, **path)
    assert pipeline.explain(net, pixels_BCHW, **path, **stated).maps["integrated_gradcam"].isfinite().all()
    with pytest.raises(ValueError, match=f"mean and std must have {channels} numbers each"):
        pipeline.explain(net, pixels_BCHW, **path, mean=stated["mean"])


def test_tensors_of_three_channels_are_normalised_as_imagenet_by_default() -> None:
    found = pipeline.explain(network(), images(), layer=LAYER, outputs="softmax")
    assert (found.probe.normalisation.mean, found.probe.normalisation.std) == (IMAGENET_MEAN, IMAGENET_STD)
