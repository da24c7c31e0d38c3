"""The preprocessing of models of torchvision and timm, as their weights state it."""

import math
from typing import Any

from torch import nn

from pipeline.settings.preprocess import Preprocess


def torchvision_preprocess(transforms: Any) -> Preprocess:  # noqa: ANN401 - torchvision is untyped
    """Return the preprocessing that the transforms of a classifier's weights do."""
    return Preprocess(
        transforms.crop_size[0],
        transforms.resize_size[0],
        transforms.interpolation.value,
        tuple(transforms.mean),
        tuple(transforms.std),
    )


def timm_preprocess(model: nn.Module) -> Preprocess:
    """Return the preprocessing of a model of timm, which keeps the configuration of its weights."""
    from timm.data.config import resolve_model_data_config

    data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    crop = data["input_size"][-1]
    resize = math.floor(crop / data["crop_pct"])
    return Preprocess(crop, resize, data["interpolation"], tuple(data["mean"]), tuple(data["std"]))


def known_preprocess(model: nn.Module) -> Preprocess | None:
    """Return the preprocessing that a model itself knows: models of timm do; None for others, as torchvision's.

    A network of torchvision does not say with which of its weights it was filled, and these differ in preprocessing.
    """
    if type(model).__module__.partition(".")[0] != "timm":
        return None
    return timm_preprocess(model)
