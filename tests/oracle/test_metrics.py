"""Every metric against its slow twin, on random networks, images and boxes."""

import copy
import math

import pytest
import torch
from nets import ToyNet, images
from oracle import twins

import pipeline

METRICS = [
    "average_drop",
    "increase",
    {"pointing_game": {"tolerance": 0, "as": "pointing_exact"}},
    {"pointing_game": {"tolerance": 4, "as": "pointing_near"}},
    "energy_in_box",
]
BOXES = [[[2.0, 3.0, 9.0, 12.5]], [[0.0, 0.0, 4.0, 4.0], [10.2, 9.7, 15.9, 14.1]], [[5.0, 5.0, 5.4, 5.4]], None]


@pytest.mark.parametrize("seed", range(10))
def test_metrics_agree_with_their_slow_twins(seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed, count=4)
    explanations = pipeline.explain(model, pixels_BCHW, methods=["gradcam", "scorecam"], layer="features.3")
    values = pipeline.evaluate(model, pixels_BCHW, explanations, metrics=METRICS, boxes=BOXES)
    precise = copy.deepcopy(model).double()
    for method in explanations.maps:
        heatmaps_BHW = explanations.heatmap(method).double()
        for b, (image_CHW, target) in enumerate(zip(pixels_BCHW.double(), explanations.targets.tolist(), strict=True)):
            heatmap_HW, boxes = heatmaps_BHW[b], BOXES[b]
            expected = {
                "average_drop": twins.average_drop(precise, image_CHW, target, heatmap_HW),
                "increase": twins.increase(precise, image_CHW, target, heatmap_HW),
                "pointing_exact": math.nan if boxes is None else _pointing(heatmap_HW, boxes, 0),
                "pointing_near": math.nan if boxes is None else _pointing(heatmap_HW, boxes, 4),
                "energy_in_box": math.nan if boxes is None else _energy(heatmap_HW, boxes),
            }
            for name, value in expected.items():
                found = float(values[name][method][b])
                assert found == pytest.approx(value, abs=2e-6, nan_ok=True), (name, method, b)


def _whole(boxes: list[list[float]]) -> list[list[float]]:
    """A box smaller than a pixel stands for the pixel it lies in."""
    grown = []
    for x0, y0, x1, y1 in boxes:
        has_centre = math.ceil(x0 - 0.5) <= math.floor(x1 - 0.5) and math.ceil(y0 - 0.5) <= math.floor(y1 - 0.5)
        x, y = int((x0 + x1) / 2), int((y0 + y1) / 2)
        grown.append([x0, y0, x1, y1] if has_centre else [x, y, x + 1, y + 1])
    return grown


def _pointing(heatmap_HW: torch.Tensor, boxes: list[list[float]], tolerance: int) -> float:
    return twins.pointing_game(heatmap_HW, _whole(boxes), tolerance)


def _energy(heatmap_HW: torch.Tensor, boxes: list[list[float]]) -> float:
    return twins.energy_in_box(heatmap_HW, _whole(boxes))


def test_a_drop_never_exceeds_what_increase_leaves() -> None:
    model, pixels_BCHW = ToyNet(1), images(1, count=16)
    explanations = pipeline.explain(
        model, pixels_BCHW, methods=["gradcam"], layer="features.3", targets=[0, 1, 2, 3] * 4
    )
    values = pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop", "increase"])
    drop_B, increase_B = values["average_drop"]["gradcam"], values["increase"]["gradcam"]
    assert 0 < float(increase_B.sum()) < 16
    assert bool((drop_B <= 1 - increase_B).all())


def test_a_degenerate_map_has_no_energy_and_no_hit() -> None:
    model = ToyNet(0)
    with torch.no_grad():
        for parameter in model.features.parameters():
            parameter.zero_()
    explanations = pipeline.explain(model, images(0), methods=["gradcam"], layer="features.3")
    assert bool(explanations.degenerate["gradcam"].all())
    assert float(explanations.heatmap("gradcam").abs().max()) == 0
    boxes = [[[0.0, 0.0, 16.0, 16.0]]] * 3
    values = pipeline.evaluate(
        model, images(0), explanations, metrics=["pointing_game", "energy_in_box", "average_drop"], boxes=boxes
    )
    assert values["pointing_game"]["gradcam"].tolist() == [0, 0, 0]
    assert values["energy_in_box"]["gradcam"].tolist() == [0, 0, 0]
    assert bool(values["average_drop"]["gradcam"].isfinite().all())


def test_boxes_of_the_wrong_number_are_refused() -> None:
    model = ToyNet(0)
    explanations = pipeline.explain(model, images(0), methods=["gradcam"], layer="features.3")
    with pytest.raises(ValueError, match="2 lists of boxes for 3 images"):
        pipeline.evaluate(model, images(0), explanations, metrics=["energy_in_box"], boxes=[None, None])
    with pytest.raises(ValueError, match="other images"):
        pipeline.evaluate(model, images(1), explanations)
    with pytest.raises(ValueError, match="another model"):
        pipeline.evaluate(ToyNet(0), images(0), explanations)
