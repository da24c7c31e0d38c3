"""A small network of any number of classes, which run files of layouts name."""

from nets import ToyNet


def of(classes: int = 10) -> ToyNet:
    return ToyNet(classes=classes)
