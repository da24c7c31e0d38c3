"""A small network of any number of classes, which run files of layouts name."""

from typing import Any

from nets import ToyNet

SIZE = 32


def of(classes: int = 10) -> ToyNet:
    return ToyNet(classes=classes)


def model_section() -> dict[str, Any]:
    """Return the section `model` of a run file with this network."""
    return {
        "name": f"{__name__}:of",
        "weights": None,
        "preprocess": {"resize": SIZE, "crop": SIZE, "mean": [0.5] * 3, "std": [0.5] * 3},
        "layer": "features.3",
        "layout": "channels_first",
        "outputs": "softmax",
    }
