"""Every method gives on the simulated device the bits that it gives on the CPU."""

import pytest
import torch
from device.simulated import simulated
from device.small_nets import NETS
from device.small_runs import explained, host_maps, left_behind
from quick import OF_ATTENTION, SPECS

from pipeline.cams.path import IntegratedGradCam
from pipeline.errors import LayerError
from pipeline.model.engine import Precision

VARIANTS: list[object] = [
    {"scorecam": {"clusters": 4, "as": "scorecam_of_clusters"}},
    {"scorecam": {"channels": 3, "as": "scorecam_of_channels"}},
    {"scorecam": {"preset": "pytorch_grad_cam", "as": "scorecam_of_logits"}},
    {"sscam": {"samples": 2, "noise_on": "input", "as": "sscam_of_inputs"}},
    {"integrated_gradcam": {"steps": 2, "baseline": "blur", "as": "integrated_of_blurs"}},
    {"integrative_cam": {"f": "exp", "redundancy": 0.8, "as": "integrative_of_exp"}},
    {"integrative_cam": {"bias": "fullgrad", "as": "integrative_of_biases"}},
    {"kpca_cam": {"kernel": "rbf", "as": "kpca_of_rbf"}},
    {"increment_cam": {"merge": "weights", "as": "increment_of_weights"}},
    {"poly_cam": {"variant": "minus", "as": "poly_minus"}},
]
"""Settings with which a method computes in another way."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


def check(kind: str, precision: Precision, specs: list[object]) -> None:
    expected = host_maps(explained(NETS[kind], "cpu", precision, specs))
    with simulated():
        found = explained(NETS[kind], "cuda", precision, specs)
    assert not left_behind(found)
    maps = host_maps(found)
    assert [name for name, map_Buv in expected.items() if not torch.equal(maps[name], map_Buv)] == []


def runs_on(kind: str, name: str) -> bool:
    """Whether a method fits a network: CAM needs the head of the residual one, and some methods need attention."""
    return kind == "cnn" if name == "cam" else name not in OF_ATTENTION or kind == "vit"


@pytest.mark.parametrize(("kind", "precision"), [("cnn", "fp32"), ("vgg", "fp32"), ("vit", "fp32"), ("cnn", "bf16")])
def test_all_methods_together_give_the_bits_of_the_cpu(kind: str, precision: Precision) -> None:
    check(kind, precision, [spec for name, spec in SPECS.items() if runs_on(kind, name)])


def test_variants_of_methods_give_the_bits_of_the_cpu() -> None:
    check("cnn", "fp32", VARIANTS)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_a_baseline_image_may_be_on_either_device(where: str) -> None:
    baseline_CHW = torch.full((3, 1, 1), 0.5)
    expected = explained(NETS["cnn"], "cpu", "fp32", [IntegratedGradCam(steps=2, baseline=baseline_CHW)])
    with simulated():
        found = explained(NETS["cnn"], "cuda", "fp32", [IntegratedGradCam(steps=2, baseline=baseline_CHW.to(where))])
    assert not left_behind(found)
    for name, map_Buv in host_maps(expected).items():
        assert torch.equal(host_maps(found)[name], map_Buv)


@pytest.mark.campaign
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", NETS)
def test_each_method_alone_on_the_device_gives_the_bits_of_the_cpu(kind: str, precision: Precision) -> None:
    for name, spec in SPECS.items():
        if runs_on(kind, name):
            check(kind, precision, [spec])
        else:
            with pytest.raises(LayerError), simulated():
                explained(NETS[kind], "cuda", precision, [spec])
    for spec in VARIANTS:
        check(kind, precision, [spec])
