"""Small networks for captum's algorithms, its methods with few passes, and captum called directly."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import captum.attr
import torch
from captum._utils.models.linear_model import SkLearnLasso
from nets import ToyNet
from torch import Tensor, nn

from pipeline.cams.captum import Captum
from pipeline.cams.captum.library import drawing
from pipeline.model import noise
from pipeline.model.probe import Probe

Net = TypeVar("Net", bound=nn.Module)
SIDE = 16
CELLS = 4
KEYS = ("a", "b", "c")
TARGETS = torch.tensor([1, 2, 0])
FEW: dict[str, dict[str, Any]] = {
    "IntegratedGradients": {"steps": 5},
    "GradientShap": {"samples": 4},
    "DeepLiftShap": {"samples": 3},
    "LayerConductance": {"steps": 4},
    "Occlusion": {"window": 6, "stride": 4},
    "FeatureAblation": {"cells": CELLS},
    "ShapleyValueSampling": {"cells": CELLS, "samples": 3},
    "Lime": {"cells": CELLS, "samples": 40, "alpha": 1e-4},
    "KernelShap": {"cells": CELLS, "samples": 40},
}


class Flat(nn.Module):
    """A convolutional network of modules that LRP has rules for; only the order of numbers is a function."""

    def __init__(self, *layers: nn.Module, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2))
        self.linear = nn.Linear(6 * 4, classes)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.features(pixels_BCHW).flatten(1))

    def layers(self) -> list[nn.Module]:
        return [*self.features, nn.Flatten(), self.linear]


def conv(inputs: int = 6) -> nn.Module:
    return nn.Conv2d(inputs, 6, 3, padding=1)


def seeded(make: Callable[[], Net]) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def flat(**options: int) -> Flat:
    """A network in which captum hooks no tensor twice: a convolution follows every activation."""
    return seeded(lambda: Flat(conv(3), nn.ReLU(), conv(), nn.ReLU(), conv(), **options))


def pooling() -> Flat:
    """A network like VGG, in which a maximum follows an activation."""
    return seeded(lambda: Flat(conv(3), nn.ReLU(), nn.MaxPool2d(2), conv(), nn.ReLU(), nn.MaxPool2d(2)))


def method(algorithm: str, **options: object) -> Captum:
    return Captum(algorithm, **(FEW.get(algorithm, {}) | options))  # type: ignore[arg-type]


def probed(model: nn.Module, layer: str = "features.2", **options: object) -> Probe:
    return Probe(model, layer, **options)  # type: ignore[arg-type]


def maps_of(probe: Probe, chosen: Captum, pixels: Tensor, targets: Tensor, keys: Sequence[str]) -> Tensor:
    evidence = probe.capture(pixels, targets, gradients=False, keys=keys)
    return chosen(evidence, probe)


def black(pixels_BCHW: Tensor) -> Tensor:
    return Probe(ToyNet(0)).baseline_pixels("black", pixels_BCHW)


def cells() -> Tensor:
    rows = torch.arange(SIDE) * CELLS // SIDE
    return (rows[:, None] * CELLS + rows)[None, None]


def directly(algorithm: str, model: nn.Module, pixels: Tensor, targets: Tensor, key: str) -> Tensor:
    """Call captum as its documentation does, on one image or on a batch of them."""
    layers = [model.features[2]] if algorithm in ("GuidedGradCam", "LayerConductance") else []
    one = getattr(captum.attr, algorithm)(model, *layers)
    base = black(pixels)
    few = FEW.get(algorithm, {})
    if algorithm in ("Saliency", "InputXGradient", "GuidedBackprop", "Deconvolution", "GuidedGradCam", "LRP"):
        return one.attribute(pixels, target=targets)
    if algorithm == "DeepLift":
        return one.attribute(pixels, base, target=targets)
    if algorithm in ("IntegratedGradients", "LayerConductance"):
        return one.attribute(pixels, base, target=targets, n_steps=few["steps"])
    if algorithm == "Occlusion":
        return one.attribute(pixels, (3, 6, 6), (3, 4, 4), base, target=targets)
    if algorithm == "FeatureAblation":
        return one.attribute(pixels, base, target=targets, feature_mask=cells())
    if algorithm == "DeepLiftShap":
        drawn = torch.cat([*noise.normal(0, [key], "captum DeepLiftShap", tuple(pixels.shape[1:]), 3)])
        return one.attribute(pixels, base + 0.15 * (pixels.max() - pixels.min()) * drawn, target=targets)
    with drawing(0, key, f"captum {algorithm}"):
        if algorithm == "GradientShap":
            drawn = torch.cat([*noise.normal(0, [key], f"captum {algorithm}", tuple(pixels.shape[1:]), few["samples"])])
            base = base + 0.15 * (pixels.max() - pixels.min()) * drawn
            return one.attribute(pixels, base, n_samples=few["samples"], target=targets)
        if algorithm == "Lime":
            one = captum.attr.Lime(model, interpretable_model=SkLearnLasso(alpha=few["alpha"]))
        return one.attribute(pixels, base, target=targets, feature_mask=cells(), n_samples=few["samples"])
