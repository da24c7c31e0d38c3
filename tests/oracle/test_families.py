"""Every method that uses gradients or activations, on every model family of torchvision, with random weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from quick import OF_ATTENTION
from reference import base
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

import pipeline
from pipeline.cams import METHODS
from pipeline.errors import LayerError
from pipeline.model.probe import Probe

FAMILIES = {
    "alexnet": 64, "vgg11": 64, "vgg11_bn": 64, "squeezenet1_1": 64, "resnet18": 64, "resnext50_32x4d": 64,
    "densenet121": 64, "googlenet": 96, "inception_v3": 160, "mobilenet_v2": 96, "mobilenet_v3_small": 96,
    "shufflenet_v2_x0_5": 96, "efficientnet_b0": 96, "mnasnet0_5": 96, "regnet_y_400mf": 64, "convnext_tiny": 64,
    "vit_b_32": 224, "swin_t": 64, "swin_v2_t": 64,
}  # fmt: skip
"""Model names and the side of the input; ViT's position embedding requires 224, and grids of 2 x 2 cells are open."""
_ALIKE = {"vgg11", "vgg11_bn", "resnext50_32x4d", "inception_v3", "mnasnet0_5", "regnet_y_400mf", "swin_v2_t"}
"""Families whose modules others have too."""
_ONE_RESOLUTION = {"vit_b_32": [f"encoder.layers.encoder_layer_{block}.ln_1" for block in (1, 2)]}
"""Stages of families that have one resolution, where methods that combine layers find none."""
every_family = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] if name in _ALIKE else []) for name in FAMILIES]
)

METHODS_TO_RUN: list[object] = [
    "gradcam", "gradcam_pp", "xgradcam", "hirescam", "layercam", "layercam_fusion", "elementwise_gradcam",
    "eigen_gradcam", "shapley_cam", "finer_cam", "refine_cam", "fullgrad", "integrative_cam", "eigen_cam", "kpca_cam",
    "fem", "recipro_cam", {"smooth_gradcam_pp": {"samples": 1}}, {"integrated_gradcam": {"steps": 1}},
    {"rsi_gradcam": {"steps": 1}}, {"smoothgrad": {"samples": 1}}, {"integrated_gradients": {"steps": 1}},
    {"group_cam": {"groups": 2}}, "shuffled_gradcam", {"opti_cam": {"iterations": 1}}, {"rise": {"num_masks": 2}},
]  # fmt: skip


_SMALL: dict[str, Callable[[], nn.Module]] = {
    "vit_b_32": lambda: models.VisionTransformer(224, 32, 3, 4, 96, 192, num_classes=7),
    "swin_t": lambda: models.SwinTransformer([4, 4], 24, [1, 1, 2, 1], [2, 2, 4, 4], [7, 7], num_classes=7),
    "densenet121": lambda: models.DenseNet(32, (2, 2, 2, 2), num_classes=7),
    "convnext_tiny": lambda: models.ConvNeXt(
        [CNBlockConfig(24 * 2**stage, 48 * 2**stage if stage < 3 else None, 1) for stage in range(4)], num_classes=7
    ),
}
"""Families that have many layers of the same kind, with fewer of them."""


def built(name: str) -> nn.Module:
    extra = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _SMALL[name]() if name in _SMALL else models.get_model(name, weights=None, num_classes=7, **extra)
        if name == "vit_b_32":  # its last layer is initialised to zero
            nn.init.normal_(model.heads.head.weight, std=0.02)
        return model


def pixels(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@every_family
def test_every_gradient_method_runs_on_every_family(name: str) -> None:
    explained = pipeline.explain(
        built(name), pixels(FAMILIES[name]), methods=METHODS_TO_RUN, stages=_ONE_RESOLUTION.get(name)
    )
    assert len(explained.maps) == len(METHODS_TO_RUN)
    for label, maps_Buv in explained.maps.items():
        assert maps_Buv.ndim == 3, label
        assert bool(maps_Buv.isfinite().all()), label
    assert float(explained.evidence.grads_BKuv.abs().sum()) > 0
    assert not bool(explained.degenerate["eigen_cam"].any())


@every_family
def test_the_head_alone_gives_the_logits_of_the_whole_model(name: str) -> None:
    probe = Probe(built(name), "auto")
    evidence = probe.capture(pixels(FAMILIES[name]), gradients=False)
    for row in range(2):
        logits_PN = probe.head(evidence, row, 3, lambda index, b=row: evidence.acts_BKuv[b].repeat(len(index), 1, 1, 1))
        torch.testing.assert_close(logits_PN, evidence.logits_BN[row].expand(3, -1), rtol=1e-3, atol=1e-4)
    assert probe._cut.works, "the head could not be run without the trunk"


def test_tokens_and_last_channels_are_read_as_grids() -> None:
    vit = Probe(built("vit_b_32"), "auto").capture(pixels(224), gradients=True)
    assert (vit.view.kind, vit.view.prefix, vit.acts_BKuv.shape) == ("tokens", 1, (2, 96, 7, 7))
    swin = Probe(built("swin_t"), "features.3").capture(pixels(64), gradients=True)
    assert (swin.view.kind, swin.acts_BKuv.shape) == ("channels_last", (2, 48, 8, 8))
    for evidence in (vit, swin):
        acts_1Kuv = evidence.acts_BKuv[:1]
        assert torch.equal(evidence.view.grid(evidence.view.raw(acts_1Kuv, evidence.raw[:1])), acts_1Kuv)


def small_vit() -> nn.Module:
    """Build a ViT with two blocks over 4 x 4 patches."""
    model = models.VisionTransformer(32, 8, 2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)  # initialised to zero
    return model


def small_swin() -> nn.Module:
    """Build a Swin with two stages of two blocks, the second of each with shifted windows."""
    return models.SwinTransformer([4, 4], 16, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=5)


def tokens(values_TK: torch.Tensor) -> torch.Tensor:
    """Arrange a class token and 16 patches, in raster order, as (K, u, v)."""
    return torch.stack([torch.stack([values_TK[1 + 4 * i + j] for j in range(4)], -1) for i in range(4)], 1)


def channels_last(values_uvK: torch.Tensor) -> torch.Tensor:
    return torch.stack([values_uvK[..., k] for k in range(values_uvK.shape[-1])])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("build", "layer", "size", "grid"),
    [
        (small_vit, "auto", (32, 32), tokens),
        (small_vit, "encoder.layers.encoder_layer_0", (32, 32), tokens),
        (small_swin, "auto", (32, 64), torch.clone),  # after the permutation to channels first
        (small_swin, "features.3", (32, 64), channels_last),
        (small_swin, "features.1", (64, 32), channels_last),
    ],
)
def test_maps_of_transformers_are_those_of_a_plain_full_backward(
    build: Callable[[], nn.Module],
    layer: str,
    size: tuple[int, int],
    grid: Callable[[torch.Tensor], torch.Tensor],
    seed: int,
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, pixels_BCHW = build().eval(), torch.randn(2, 3, *size)
    targets = [seed, seed + 2]
    explained = pipeline.explain(
        model, pixels_BCHW, methods=["gradcam", "hirescam", "layercam"], layer=layer, targets=targets
    )
    precise = copy.deepcopy(model).double()
    module = precise.get_submodule(explained.probe.layer)
    for row, (image_CHW, target) in enumerate(zip(pixels_BCHW.double(), targets, strict=True)):
        acts, grads, _ = base.observe(precise, module, image_CHW, target)
        acts_Kuv, grads_Kuv = grid(acts), grid(grads)
        weights_K11 = torch.stack([grads_uv.mean() for grads_uv in grads_Kuv])[:, None, None]
        terms = {
            "gradcam": weights_K11 * acts_Kuv,
            "hirescam": grads_Kuv * acts_Kuv,  # the sum cancels before a layer norm, so the scale is that of the terms
            "layercam": grads_Kuv.clamp_min(0) * acts_Kuv,
        }
        for method, terms_Kuv in terms.items():
            found_uv = explained.maps[method][row].double()
            scale = float(terms_Kuv.abs().sum(0).max())
            assert float((found_uv - terms_Kuv.sum(0).clamp_min(0)).abs().max()) <= 1e-5 * scale, method
            assert scale > 0


def test_tokens_that_no_longer_reach_the_logits_are_refused() -> None:
    with pytest.raises(LayerError, match="only the class token reaches the logits"):
        pipeline.explain(built("vit_b_32"), pixels(224), layer="encoder.ln")


class Wrapped(nn.Module):
    """User module that wraps a library model."""

    def __init__(self) -> None:
        super().__init__()
        self.net = built("swin_t")

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        return self.net(pixels_BCHW)


@pytest.mark.parametrize("size", [(384, 32), (32, 384)])
def test_channels_last_are_recognised_for_any_aspect_ratio(size: tuple[int, int]) -> None:
    """The model family decides, not the sizes: the grid has 96 x 8 cells and 24 channels."""
    evidence = Probe(Wrapped(), "net.features.1").capture(torch.randn(1, 3, *size), gradients=False)
    assert evidence.acts_BKuv.shape == (1, 24, size[0] // 4, size[1] // 4)
    assert evidence.view.kind == "channels_last"


def test_every_method_runs_here_or_needs_a_pass_per_channel() -> None:
    run = {next(iter(spec)) if isinstance(spec, dict) else spec for spec in METHODS_TO_RUN}
    assert set(METHODS) - run == {
        "iscam", "scorecam", "sscam", "ablation_cam", "poly_cam", "sise", "increment_cam", "cam", *OF_ATTENTION
    }  # fmt: skip
