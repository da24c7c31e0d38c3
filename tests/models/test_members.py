"""One small network of each design: `auto` finds its layer, the layout follows, passes agree with plain autograd."""

import pytest
import torch
from models.members import (
    TOLERANCE,
    auto_probe,
    build,
    engine_difference,
    gradcam_difference,
    known_readings,
    noise,
)

TIMM: dict[str, dict[str, object]] = {
    "test_byobnet": {},
    "test_convnext": {},
    "test_efficientnet": {},
    "test_resnet": {},
    "test_vit": {},
    "test_vit2": {},
    "test_vit3": {},
    "test_vit4": {},
    "beit_base_patch16_224": {"depth": 2, "embed_dim": 96, "num_heads": 4},
    "cait_xxs24_224": {"depth": 2},
    "coat_tiny": {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1},
    "davit_tiny": {"depths": (1, 1, 1, 1), "embed_dims": (24, 48, 96, 192), "num_heads": (1, 2, 4, 8)},
    "deit_tiny_distilled_patch16_224": {"depth": 3},
    "densenet121": {"side": 96, "block_config": (2, 2, 2, 2)},
    "edgenext_xx_small": {"side": 96},
    "efficientformer_l1": {},
    "efficientvit_b0": {"side": 96},
    "eva02_tiny_patch14_224": {"depth": 3},
    "ghostnet_050": {"side": 96},
    "hiera_tiny_224": {"embed_dim": 24, "stages": (1, 1, 1, 1)},
    "inception_next_atto": {"side": 96},
    "levit_128s": {},
    "mambaout_femto": {"side": 96, "depths": (1, 1, 2, 1)},
    "maxvit_rmlp_pico_rw_256": {"side": 64, "img_size": 64},
    "mixer_s32_224": {},
    "mobilenetv4_conv_small_050": {"side": 96},
    "nest_tiny": {"side": 112, "img_size": 112},
    "pit_ti_224": {},
    "pvt_v2_b0": {"side": 96},
    "regnetx_002": {"side": 96},
    "sequencer2d_s": {"layers": (1, 1, 1, 1)},
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 2, 1), "embed_dim": 24},
    "tiny_vit_5m_224": {"depths": (1, 1, 2, 1)},
    "vit_small_patch14_reg4_dinov2": {"side": 224, "img_size": 224, "depth": 3, "num_classes": 10},
    "volo_d1_224": {},
    "xcit_nano_12_p16_224": {"depth": 2},
}
TORCHVISION: dict[str, dict[str, object]] = {
    "alexnet": {"side": 96},
    "convnext_tiny": {"side": 96},
    "densenet121": {"side": 96},
    "efficientnet_b0": {"side": 96},
    "googlenet": {"side": 96, "init_weights": False},
    "inception_v3": {"side": 160, "init_weights": False},
    "maxvit_t": {},
    "mnasnet0_5": {"side": 96},
    "mobilenet_v2": {"side": 96},
    "mobilenet_v3_small": {"side": 96},
    "regnet_y_400mf": {"side": 96},
    "resnet18": {"side": 96},
    "shufflenet_v2_x0_5": {"side": 96},
    "squeezenet1_1": {"side": 96},
    "swin_t": {"side": 96},
    "vgg11_bn": {"side": 64},
    "vit_b_32": {},
}
MEMBERS = {f"timm/{name}": options for name, options in TIMM.items()} | {
    f"torchvision/{name}": options for name, options in TORCHVISION.items()
}

KNOWN = [
    f"timm/{name}"
    for name in (
        "test_byobnet", "test_convnext", "test_resnet", "test_vit", "cait_xxs24_224", "davit_tiny", "edgenext_xx_small",
        "deit_tiny_distilled_patch16_224", "hiera_tiny_224", "levit_128s", "mambaout_femto", "pit_ti_224",
        "swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224",
    )
]  # fmt: skip
"""Members whose maps timm itself returns."""


QUICK = {*KNOWN, *(name for name in MEMBERS if name.startswith("timm/test_"))} | {
    f"torchvision/{name}" for name in ("mnasnet0_5", "regnet_y_400mf", "mobilenet_v2", "squeezenet1_1")
}
"""Members that every test run tries; the others are a campaign, and the sweep of docs/models.md tries them too.

Most of torchvision's are tried by tests/oracle/test_families.py.
"""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] * (name not in QUICK)) for name in MEMBERS]
)
def test_a_layer_is_found_and_its_maps_are_right(name: str) -> None:
    model, shape = build(name, **MEMBERS[name])
    probe = auto_probe(model, shape)
    pixels_BCHW = noise(shape)
    assert gradcam_difference(model, probe, pixels_BCHW) < TOLERANCE
    assert engine_difference(model, probe, pixels_BCHW) < TOLERANCE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] * ("/test_" not in name)) for name in KNOWN]
)
def test_layouts_are_those_of_the_library_or_refused(name: str) -> None:
    model, shape = build(name, **MEMBERS[name])
    readings = list(known_readings(model, shape, auto_probe(model, shape)))
    assert [reading for reading in readings if not reading.is_right] == []
    assert any(reading.view is not None for reading in readings)


def test_every_family_of_torchvision_has_a_member() -> None:
    import torchvision.models

    families = {
        build_function.__module__
        for name in torchvision.models.list_models(module=torchvision.models)
        if (build_function := torchvision.models.get_model_builder(name))
    }
    assert {torchvision.models.get_model_builder(name).__module__ for name in TORCHVISION} == families


def test_chance_is_the_same_again() -> None:
    one, other = (next(build("timm/test_vit")[0].parameters()) for _ in range(2))
    assert torch.equal(one, other)
