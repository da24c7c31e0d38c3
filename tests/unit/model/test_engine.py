"""The engine's copy has the model's logits and captured layer outputs, and leaves the model unchanged."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nets import StagedNet, ToyNet, images
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision import models

from pipeline.model.engine import Engine, fast_copy
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe


def trained(model: nn.Module) -> nn.Module:
    """Give batch norms random statistics and weights, so that folding them changes the convolutions."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


class Untraceable(nn.Module):
    """A model whose forward pass depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained(models.shufflenet_v2_x0_5(num_classes=4))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.net(pixels_BCHW) if float(pixels_BCHW.sum()) > -1e9 else pixels_BCHW


class Shared(nn.Module):
    """A convolution that runs twice, once before a batch norm, and a convolution whose output is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.wide, self.last = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        wide_BKHW = self.wide(self.conv(self.norm(self.conv(pixels_BCHW))))
        return (self.last(wide_BKHW) + wide_BKHW).mean((2, 3))


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: trained(models.resnet18(num_classes=7)), 0),
    "mobilenet_v3": (lambda: trained(models.mobilenet_v3_small(num_classes=7)), 0),
    "densenet": (lambda: trained(models.DenseNet(8, (2, 2), 16, num_classes=7)), 6),  # norms that follow no convolution
    "untraceable": (Untraceable, 56),
    "shared": (lambda: trained(Shared()), 2),
}


@pytest.mark.parametrize("name", NETS)
def test_the_copy_has_the_logits_of_the_model_and_the_model_is_unchanged(name: str) -> None:
    build, norms_left = NETS[name]
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pixels_BCHW = images(0, count=3, side=64)
    copy = fast_copy(model, "fp32", ())
    assert norms(copy) == norms_left
    with torch.no_grad():
        expected_BN, found_BN = model(pixels_BCHW), copy(pixels_BCHW)
    torch.testing.assert_close(found_BN, expected_BN, rtol=1e-4, atol=1e-5 * float(expected_BN.abs().max()))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("layer", ["features.3", "features.3.0", "features.3.1", "features"])
def test_captured_layers_keep_their_outputs(layer: str) -> None:
    model, pixels_BCHW = trained(models.mobilenet_v2(num_classes=5)), images(0, count=2, side=64)
    inner = {"features.3": "features.3", "features": "features"}.get(layer, f"{layer.replace('3.', '3.conv.')}.0")
    kept = list[Tensor]()
    handle = model.get_submodule(inner).register_forward_hook(lambda _m, _i, output: kept.append(output.detach()))
    with torch.no_grad():
        model(pixels_BCHW)
    handle.remove()
    found_BKuv = Probe(model, inner, layout="channels_first").capture(pixels_BCHW, gradients=False).acts_BKuv
    torch.testing.assert_close(found_BKuv, kept[0], rtol=1e-4, atol=1e-5 * float(kept[0].abs().max()))


def test_a_layer_added_later_is_kept_too() -> None:
    model, pixels_BCHW = trained(models.resnet18(num_classes=5)), images(0, count=2, side=64)
    engine = Engine(model, "fp32", ("layer4",), compiled=False)
    assert isinstance(engine.layer("bn1"), nn.Identity)
    engine.keep(("layer4", "conv1"))
    assert isinstance(engine.layer("bn1"), nn.BatchNorm2d)
    expected_BN = model(pixels_BCHW).detach()
    torch.testing.assert_close(engine.logits(pixels_BCHW).detach(), expected_BN, rtol=1e-4, atol=1e-5)


def test_hooks_of_the_model_stay_in_effect() -> None:
    model, pixels_BCHW = trained(models.resnet18(num_classes=5)), images(0, count=2, side=64)
    model.get_submodule("conv1").register_forward_hook(lambda _m, _i, output: output * 2)
    copy = fast_copy(model, "fp32", ())
    assert norms(copy) == 1
    torch.testing.assert_close(copy(pixels_BCHW), model(pixels_BCHW), rtol=1e-4, atol=1e-5)


def test_a_model_that_cannot_be_copied_runs_itself() -> None:
    model = ToyNet(0)
    model.register_buffer("made", (torch.ones(1, requires_grad=True) * 2), persistent=False)
    model.extra = (torch.ones(1, requires_grad=True) * 2,)  # a tensor with an autograd graph cannot be copied
    assert fast_copy(model, "fp32", ()) is model


def test_parametrised_weights_are_left_alone() -> None:
    model = ToyNet(0)
    weight_norm(model.features[0])
    pixels_BCHW = images(0)
    short_BN = Engine(model, "bf16", (), compiled=False).logits(pixels_BCHW)
    torch.testing.assert_close(short_BN, model(pixels_BCHW), rtol=0.05, atol=0.05)


def test_bf16_rounds_the_weights_of_the_copy_once() -> None:
    model = trained(models.resnet18(num_classes=5))
    copy = fast_copy(model, "bf16", ())
    assert {m.weight.dtype for m in copy.modules() if isinstance(m, nn.Conv2d)} == {torch.bfloat16}
    assert {m.weight.dtype for m in copy.modules() if isinstance(m, nn.Linear)} == {torch.float32}, (
        "the layer of the logits"
    )
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    pixels_BCHW = images(0, count=2, side=64)
    exact_BN = Engine(model, "fp32", (), compiled=False).logits(pixels_BCHW)
    short_BN = Engine(model, "bf16", (), compiled=False).logits(pixels_BCHW)
    assert short_BN.dtype == torch.float32
    assert float((short_BN - exact_BN).abs().max()) < 0.05 * float(exact_BN.abs().max())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "vgg11", "densenet121"])
def test_nothing_is_rounded_after_the_pooling(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(models, name)(num_classes=50).eval()
    pixels_BCHW, recorded = images(0, count=1, side=224), list[Tensor]()
    copy = fast_copy(model, "bf16", ())
    linear = [m for m in copy.modules() if isinstance(m, nn.Linear) and m.weight.dtype == torch.float32]
    assert len(linear) == min(1, sum(isinstance(m, nn.Linear) for m in model.modules())), "hidden layers are rounded"
    for module in linear:
        module.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        recorded.append(copy(pixels_BCHW))
    for values in recorded if name != "vgg11" else recorded[1:]:  # VGG's last linear layer follows another, no pooling
        nonzero = values[values != 0]
        assert values.dtype == torch.float32
        assert float((nonzero != nonzero.bfloat16().float()).float().mean()) > 0.9


def test_passes_that_capture_stages_are_float32_at_bf16() -> None:
    model, pixels_BCHW = StagedNet(0), images(0, side=32)
    found = {
        precision: Probe(model, "stage2", stages=StagedNet.STAGES, precision=precision).capture(
            pixels_BCHW, gradients=True, stages=True
        )
        for precision in ("fp32", "bf16")
    }
    probe = Probe(StagedNet(0), "stage2", stages=StagedNet.STAGES, precision="bf16")
    short = probe.capture(pixels_BCHW, gradients=True)
    assert probe.counts.forwards == len(pixels_BCHW)
    probe.capture(pixels_BCHW, gradients=True, stages=True)
    assert probe.counts.forwards == 3 * len(pixels_BCHW), "a float32 pass for the stages and a bf16 pass for the logits"
    torch.testing.assert_close(found["bf16"].logits_BN, short.logits_BN)  # the precision of masked passes
    assert not torch.allclose(found["bf16"].logits_BN, found["fp32"].logits_BN, rtol=1e-5, atol=1e-6)
    for layer in StagedNet.STAGES:
        torch.testing.assert_close(found["bf16"].acts[layer], found["fp32"].acts[layer], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["bf16"].grads[layer], found["fp32"].grads[layer], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_passes_give_the_same_scores_regardless_of_the_batch() -> None:
    model, pixels_BCHW = ToyNet(0), images(0, count=3)
    grids_IMuv = torch.rand(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    targets_B = torch.arange(3)
    found = {}
    for compiled in (False, True):
        probe = Probe(model, "features.3", batch=16, batch_multiple=16, compiled=compiled)
        masks = MaskStream(grids_IMuv, MaskLook("upsample_first"))
        with ThreadPoolExecutor(1) as pool:  # as in an actor, which computes in another thread than it starts in
            found[compiled] = pool.submit(probe.scorer.scores, pixels_BCHW, masks, targets_B).result(120).logits_BMS
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-6)
    alone = probe.scorer.scores(
        pixels_BCHW[1:2], MaskStream(grids_IMuv[1:2], MaskLook("upsample_first")), targets_B[1:2]
    )
    assert torch.equal(alone.logits_BMS[0], found[True][1])
