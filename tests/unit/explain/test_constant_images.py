"""Images of one colour, from file to row, have constant maps and finite numbers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from explaining import rows, spec
from nets import ToyNet
from pictures import decoded, sample, saved
from PIL import Image
from quick import OF_ATTENTION
from torch import Tensor, nn

from pipeline.cams import METHODS, build_methods
from pipeline.explain.explainer import Explainer
from pipeline.maps.codec import FloatArray, decode_stack
from pipeline.metrics import build_metrics
from pipeline.settings.preprocess import Preprocess

NOT_CONSTANT = {"fullgrad", "integrated_gradients", "recipro_cam", "rise", "smoothgrad"}
"""Methods whose maps are not constant on a constant image: they depend on pixels near the border, or add noise."""
METRICS = build_metrics(["average_drop", "increase", "insertion", "deletion", "complexity"])
SQUASH = Preprocess(16, None)


class Borderless(ToyNet):
    """A network without padding, whose activations are constant on a constant image, with a linear head."""

    def __init__(self) -> None:
        super().__init__(0)
        self.features[0].padding = self.features[2].padding = (0, 0)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.linear = nn.Linear(6, 4)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.features(pixels_BCHW).mean((2, 3)))


def explained(model: nn.Module, image: Image.Image, methods: list[str]) -> list[dict[str, Any]]:
    chunk = decoded(sample(saved(image)), preprocess=SQUASH)
    assert chunk.failures == ()
    settings = spec(methods=build_methods(methods), metrics=METRICS, stages=("features.1", "features.3"))
    found: list[dict[str, Any]] = rows(Explainer(model, settings), chunk)
    assert [row["error_code"] for row in found] == [None] * len(methods)
    return found


@pytest.mark.parametrize("colour", [(0, 0, 0), (127, 63, 127), (255, 255, 255)], ids=["black", "violet", "white"])
def test_a_constant_image_has_constant_maps(colour: tuple[int, int, int]) -> None:
    methods = sorted(set(METHODS) - NOT_CONSTANT - set(OF_ATTENTION))
    found = explained(Borderless(), Image.new("RGB", (40, 30), colour), methods)
    assert [row["method"] for row in found if not row["degenerate"]] == []
    for row in found:
        assert row["map_min"] == row["map_max"], row["method"]
        assert row["average_drop"] >= 0, row["method"]
        assert row["complexity"] == 0, "its heat map is all zero"


@pytest.mark.parametrize("value", [0, 128, 255])
def test_all_numbers_of_a_constant_image_are_finite(value: int) -> None:
    """With padding, maps are not constant near borders, but they are finite."""
    for row in explained(
        ToyNet(0), Image.new("L", (40, 30), value), sorted(set(METHODS) - {"cam"} - set(OF_ATTENTION))
    ):
        numbers = [number for number in row.values() if isinstance(number, float)]
        assert all(map(math.isfinite, numbers)), row["method"]
        assert np.isfinite(maps_of(row)).all(), row["method"]


def maps_of(row: dict[str, Any]) -> FloatArray:
    ranges = np.array([[row["map_min"], row["map_max"]]], dtype=np.float32)
    return decode_stack([row["map"]], row["map_height"], row["map_width"], row["map_dtype"], ranges)[0]
