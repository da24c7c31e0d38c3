"""Every method compared with its reference implementation, on random networks and images."""

import copy
from dataclasses import replace

import pytest
import torch
from nets import ToyNet, images
from oracle.cases import CASES, SEED, Case
from reference import base
from torch import Tensor, nn

import pipeline
from pipeline.cams import METHODS

NETS = 200
"""Number of random networks per method in the campaign; the first twenty are always run."""


def disagreement(chosen: Case, seed: int) -> float:
    """Return the largest difference between method and reference, relative to the allowed one.

    Uses two images with two target classes each, so that rows of one image share passes.
    """
    model, pixels_BCHW = chosen.nets(seed), images(seed, count=2)
    targets = [[seed % 3, (seed + 1) % 3], [(seed + 2) % 3, seed % 3]]
    explanations = pipeline.explain(
        model, pixels_BCHW, methods=[chosen.spec], layer=chosen.layers[-1], stages=chosen.layers, targets=targets,
        seed=SEED,
    )  # fmt: skip
    (maps_Buv,) = explanations.maps.values()
    precise = copy.deepcopy(model).double()
    layers = [precise.get_submodule(name) for name in chosen.layers]
    worst = 0.0
    for row, target in enumerate(explanations.targets.tolist()):
        expected_uv = chosen.reference(precise, layers, pixels_BCHW[row // 2].double(), target)
        assert maps_Buv[row].shape == expected_uv.shape
        scale = max(float(expected_uv.abs().max()), chosen.floor)
        assert bool(maps_Buv[row].isfinite().all())
        worst = max(worst, float((maps_Buv[row].double() - expected_uv).abs().max()) / (chosen.tolerance * scale))
    return worst


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(10))
def test_a_method_agrees_with_its_reference(case: str, seed: int) -> None:
    assert disagreement(CASES[case], seed) <= 1


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES)
def test_a_method_agrees_with_its_reference_on_many_networks(case: str) -> None:
    differences = {seed: disagreement(CASES[case], seed) for seed in range(NETS)}
    disagreeing = {seed: worst for seed, worst in differences.items() if worst > 1}
    assert len(disagreeing) <= CASES[case].may_disagree * NETS, disagreeing


class HugeLogitsNet(nn.Module):
    """Network with logits near 1e30, so that squares and cubes of gradients overflow single precision."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.net(pixels_BCHW) * 2.0**100


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", [
    "gradcam", "gradcam_pp", "gradcam_pp official", "smooth_gradcam_pp", "smooth_gradcam_pp printed", "xgradcam",
    "hirescam", "layercam", "eigen_gradcam", "finer_cam", "fullgrad", "integrated right", "integrated_gradients",
    "smoothgrad", "ablation_cam abs", "layercam_fusion", "refine_cam", "integrative", "integrative identity",
    "integrative first square", "integrative first identity",
])  # fmt: skip
def test_huge_logits_change_nothing_but_the_scale(case: str, seed: int) -> None:
    plain = CASES[case]
    huge = replace(
        plain, nets=lambda seed: HugeLogitsNet(plain.nets(seed)), layers=tuple(f"net.{n}" for n in plain.layers)
    )
    assert disagreement(huge, seed) <= (100 if case == "smooth_gradcam_pp" else 1)  # its third moments may cancel


def test_every_method_has_a_reference() -> None:
    assert {name for case in CASES.values() for name in case.spec} == set(METHODS)


@pytest.mark.parametrize("seed", range(4))
def test_heat_maps_agree_with_their_reference(seed: int) -> None:
    explanations = pipeline.explain(ToyNet(seed), images(seed), methods=["gradcam"], layer="features.3")
    for map_uv, heatmap_HW in zip(explanations.maps["gradcam"], explanations.heatmap("gradcam"), strict=True):
        torch.testing.assert_close(heatmap_HW.double(), base.heatmap(map_uv.double(), (16, 16)), atol=1e-6, rtol=0)


def test_references_of_different_methods_give_different_maps() -> None:
    model, image_CHW = ToyNet(3).double(), images(3)[0].double()
    layers = [model.features[3]]
    chosen = [case for case in CASES.values() if case.layers == ("features.3",)]
    maps = [case.reference(model, layers, image_CHW, 1) for case in chosen]
    scaled = {tuple((map_uv / map_uv.abs().max().clamp_min(1e-12)).flatten().tolist()) for map_uv in maps}
    assert len(scaled) >= len(maps) - 6  # some variants differ only by a factor
