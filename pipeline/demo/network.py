"""Defines the network of the demonstration: five convolutions, global average pooling, one linear layer."""

from collections import OrderedDict

from torch import nn

from pipeline.demo.scenes import CLASSES

INPUT = 96
"""Height and width of the input in pixels; scenes are scaled down to it."""

LAYER = "features.relu5"
"""The target layer, with output (48, 12, 12) for one image."""

MEAN_STD = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def build() -> nn.Module:
    """Build the network without its weights."""
    features: OrderedDict[str, nn.Module] = OrderedDict()
    channels = (3, 16, 32, 48, 64, 48)
    strides = (2, 2, 1, 2, 1)
    for index, stride in enumerate(strides, start=1):
        features[f"conv{index}"] = nn.Conv2d(channels[index - 1], channels[index], 3, stride, 1)
        features[f"relu{index}"] = nn.ReLU(inplace=True)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], len(CLASSES)))
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), head=head))
