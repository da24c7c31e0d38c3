"""Every method against its slow twin, on random networks and images."""

import copy
from collections.abc import Callable

import pytest
import torch
from nets import ToyNet, images
from oracle import twins
from torch import Tensor, nn

import pipeline

BLACK = -torch.tensor([0.485, 0.456, 0.406]).double() / torch.tensor([0.229, 0.224, 0.225]).double()
Twin = Callable[[nn.Module, nn.Module, Tensor, int], Tensor]


def black(image_CHW: Tensor) -> Tensor:
    return BLACK.view(3, 1, 1).expand_as(image_CHW)


def path_twin(steps: int, rule: str, *, subtract: bool = True) -> Twin:
    return lambda model, layer, image_CHW, target: twins.integrated_gradcam(
        model, layer, image_CHW, target, baseline_CHW=black(image_CHW), steps=steps, rule=rule, subtract=subtract
    )


CASES: dict[str, tuple[object, Twin]] = {
    "gradcam": ("gradcam", twins.gradcam),
    "gradcam_pp": ("gradcam_pp", twins.gradcam_pp),
    "gradcam_pp official": (
        {"gradcam_pp": {"preset": "official_code"}},
        lambda *args: twins.gradcam_pp(*args, normalise_alpha=True),
    ),
    "integrated right": ({"integrated_gradcam": {"steps": 7}}, path_twin(7, "right")),
    "integrated left": ({"integrated_gradcam": {"steps": 7, "rule": "left"}}, path_twin(7, "left")),
    "integrated midpoint": ({"integrated_gradcam": {"steps": 4, "rule": "midpoint"}}, path_twin(4, "midpoint")),
    "integrated trapezoid": ({"integrated_gradcam": {"steps": 4, "rule": "trapezoid"}}, path_twin(4, "trapezoid")),
    "integrated official": (
        {"integrated_gradcam": {"steps": 5, "preset": "official_code"}},
        path_twin(5, "left", subtract=False),
    ),
    "scorecam": ("scorecam", twins.scorecam),
    "scorecam v2": ({"scorecam": {"preset": "v2"}}, lambda *args: twins.scorecam(*args, softmax=True)),
    "scorecam logit": ({"scorecam": {"score": "logit"}}, lambda *args: twins.scorecam(*args, logit=True)),
    "iscam": ("iscam", lambda *args: twins.iscam(*args, num_steps=10)),
    "iscam recurrence": (
        {"iscam": {"num_steps": 4, "schedule": "recurrence"}},
        lambda *args: twins.iscam(*args, num_steps=4, schedule="recurrence"),
    ),
    "iscam linear": (
        {"iscam": {"num_steps": 5, "schedule": "linear"}},
        lambda *args: twins.iscam(*args, num_steps=5, schedule="linear"),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(8))
def test_a_method_agrees_with_its_slow_twin(case: str, seed: int) -> None:
    spec, twin = CASES[case]
    model = ToyNet(seed, inplace=bool(seed % 2))
    pixels_BCHW = images(seed, count=2)
    explanations = pipeline.explain(model, pixels_BCHW, methods=[spec], layer="features.3")
    ((name, maps_Buv),) = explanations.maps.items()
    precise = copy.deepcopy(model).double()
    for image_CHW, target, map_uv in zip(pixels_BCHW, explanations.targets.tolist(), maps_Buv, strict=True):
        expected_uv = twin(precise, precise.features[3], image_CHW.double(), target)
        scale = max(float(expected_uv.abs().max()), 1e-6)
        assert float((map_uv.double() - expected_uv).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("seed", range(4))
def test_heat_maps_agree_with_their_slow_twin(seed: int) -> None:
    explanations = pipeline.explain(ToyNet(seed), images(seed), methods=["gradcam"], layer="features.3")
    for map_uv, heatmap_HW in zip(explanations.maps["gradcam"], explanations.heatmap("gradcam"), strict=True):
        torch.testing.assert_close(heatmap_HW.double(), twins.heatmap(map_uv.double(), (16, 16)), atol=1e-6, rtol=0)


def test_twins_see_different_maps_for_different_methods() -> None:
    model, image_CHW = ToyNet(3).double(), images(3)[0].double()
    maps = [twin(model, model.features[3], image_CHW, 1) for _, twin in CASES.values()]
    scaled = [map_uv / map_uv.max().clamp_min(1e-12) for map_uv in maps]
    assert len({tuple(map_uv.flatten().tolist()) for map_uv in scaled}) >= len(scaled) - 1
