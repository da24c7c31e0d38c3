"""The Probe gives correct evidence on every kind of model and leaves the model unchanged."""

import copy
import gc
import weakref

import pytest
import torch
from nets import ToyNet, images
from torch import Tensor, nn

from pipeline.errors import ConfigError, LayerError
from pipeline.model.baselines import Normalisation
from pipeline.model.probe import Probe


def full_backward(model: nn.Module, layer: nn.Module, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return activations and gradients computed the ordinary way: autograd everywhere, one backward to the input."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        output.retain_grad()
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    logits_BN = model(pixels_BCHW.clone().requires_grad_())
    handle.remove()
    logits_BN.max(1).values.sum().backward()
    model.zero_grad(set_to_none=True)
    assert kept[0].grad is not None
    return kept[0].detach(), kept[0].grad


def variants() -> dict[str, nn.Module]:
    frozen = ToyNet(0).requires_grad_(False)
    training = ToyNet(0)
    training.train()
    return {"plain": ToyNet(0), "inplace": ToyNet(0, inplace=True), "frozen": frozen, "training": training}


@pytest.mark.parametrize("kind", variants())
@pytest.mark.parametrize("inference", [False, True])
def test_evidence_equals_a_full_backward(kind: str, inference: bool) -> None:
    model, pixels_BCHW = variants()[kind], images(1)
    expected_acts, expected_grads = _expected(pixels_BCHW)
    with torch.inference_mode(inference):
        evidence = Probe(model, "features.3").capture(pixels_BCHW, gradients=True)
    torch.testing.assert_close(evidence.acts_BKuv, expected_acts, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(evidence.grads_BKuv, expected_grads, rtol=1e-5, atol=1e-6)


def _expected(pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    reference = ToyNet(0)
    return full_backward(reference, reference.features[3], pixels_BCHW)


def test_an_inplace_activation_after_the_layer_does_not_change_its_captured_output() -> None:
    model = ToyNet(0, inplace=True)
    evidence = Probe(model, "features.2").capture(images(0), gradients=True)
    assert float(evidence.acts_BKuv.min()) < 0, "the output of the convolution, before the ReLU"


def test_inputs_made_in_inference_mode_are_accepted() -> None:
    model = ToyNet(0)
    with torch.inference_mode():
        pixels_BCHW = images(1)
        evidence = Probe(model, "features.3").capture(pixels_BCHW, gradients=True)
    torch.testing.assert_close(evidence.grads_BKuv, _expected(images(1))[1], rtol=1e-5, atol=1e-6)


def test_a_model_built_in_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        model = ToyNet(0)
    with pytest.raises(LayerError, match="built inside torch"):
        Probe(model, "features.3")


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_unchanged(fails: bool) -> None:
    model = ToyNet(0)
    model.train()
    model.head.eval()
    model.linear.weight.requires_grad_(False)
    flags = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    wants = [(p.requires_grad, p.grad) for p in model.parameters()]
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            Probe(model, "features.3").capture(torch.zeros(2, 4, 16, 16), gradients=True)
    else:
        Probe(model, "features.3").capture(images(0), gradients=True)
    assert [(m.training, len(m._forward_hooks)) for m in model.modules()] == flags
    assert [(p.requires_grad, p.grad) for p in model.parameters()] == wants
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_batch_norms_in_training_mode_do_not_mix_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.train()
    probe = Probe(model, "2")
    together = probe.capture(images(0), gradients=True)
    alone = probe.capture(images(0)[:1], gradients=True)
    torch.testing.assert_close(together.acts_BKuv[:1], alone.acts_BKuv)
    assert int(model[1].num_batches_tracked) == 0


def test_no_evidence_is_kept_by_the_probe() -> None:
    probe = Probe(ToyNet(0), "features.3")
    evidence = probe.capture(images(0), gradients=True)
    kept = weakref.ref(evidence.acts_BKuv)
    del evidence
    gc.collect()
    assert kept() is None


def test_the_trunk_is_not_differentiated() -> None:
    model = ToyNet(0)
    differentiated = []
    model.features[0].register_forward_hook(lambda _m, _i, output: differentiated.append(output.requires_grad))
    probe = Probe(model, "features.3")
    probe.capture(images(0), gradients=True)  # with the trial
    differentiated.clear()
    probe.capture(images(0), gradients=True)
    assert differentiated == [False]


def test_targets_choose_the_logit() -> None:
    probe = Probe(ToyNet(0), "features.3")
    first = probe.capture(images(0), torch.tensor([0, 0, 0]), gradients=True)
    second = probe.capture(images(0), torch.tensor([1, 1, 1]), gradients=True)
    assert first.targets_B.tolist() == [0, 0, 0]
    assert not torch.equal(first.grads_BKuv, second.grads_BKuv)
    torch.testing.assert_close(first.target_logits_B, first.logits_BN[:, 0])
    torch.testing.assert_close(second.target_confidences_B, second.logits_BN.softmax(1)[:, 1])


@pytest.mark.parametrize("batch", [1, 2, 5, 16])
def test_a_small_batch_size_changes_nothing(batch: int) -> None:
    whole = Probe(ToyNet(0), "features.3", batch_multiple=16).capture(images(0, 40), gradients=True)
    pieces = Probe(ToyNet(0), "features.3", batch=batch, batch_multiple=16).capture(images(0, 40), gradients=True)
    assert torch.equal(whole.grads_BKuv, pieces.grads_BKuv)
    assert torch.equal(whole.logits_BN, pieces.logits_BN)
    assert torch.equal(whole.pixels_BCHW, pieces.pixels_BCHW)


def test_select_keeps_rows_of_everything() -> None:
    evidence = Probe(ToyNet(0), "features.3").capture(images(0), gradients=True)
    some = evidence.select(torch.tensor([True, False, True]))
    assert torch.equal(some.pixels_BCHW, evidence.pixels_BCHW[[0, 2]])
    assert torch.equal(some.acts_BKuv, evidence.acts_BKuv[[0, 2]])
    assert torch.equal(some.grads_BKuv, evidence.grads_BKuv[[0, 2]])
    assert torch.equal(some.targets_B, evidence.targets_B[[0, 2]])


def test_bf16_results_are_close_and_have_dtype_float32() -> None:
    exact = Probe(ToyNet(0), "features.3").capture(images(0), gradients=True)
    short = Probe(ToyNet(0), "features.3", precision="bf16").capture(images(0), gradients=True)
    assert short.acts_BKuv.dtype == short.grads_BKuv.dtype == short.logits_BN.dtype == torch.float32
    assert not torch.equal(exact.logits_BN, short.logits_BN)
    torch.testing.assert_close(short.logits_BN, exact.logits_BN, atol=0.05, rtol=0.05)


def test_black_is_black_and_blur_follows_the_image() -> None:
    probe = Probe(ToyNet(0), "features.3", normalisation=Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    black_BCHW = probe.baseline_pixels("black", images(0))
    torch.testing.assert_close(black_BCHW[0, :, 0, 0], torch.tensor([-2.5, -2.0, -3.0]))
    blurred_BCHW = probe.baseline_pixels("blur", images(0))
    assert float(blurred_BCHW.std()) < 0.3 * float(images(0).std())
    for blur in ("blur", "rise_blur"):  # of the images given, not of the first ones ever seen
        probe.baseline_acts(blur, images(1))
        acts_BKuv = probe.baseline_acts(blur, images(0))
        expected_BKuv = probe.capture(probe.baseline_pixels(blur, images(0)), gradients=False).acts_BKuv
        assert torch.equal(acts_BKuv, expected_BKuv)
    assert probe.baseline_acts("black", images(0)).shape[0] == 1


class Twice(ToyNet):
    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return super().forward(pixels_BCHW) + super().forward(pixels_BCHW)


class Tuple(nn.Module):
    def forward(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        return (acts, acts)


class OddOutputs(ToyNet):
    def __init__(self) -> None:
        super().__init__(0)
        self.tuple, self.unused, self.side = Tuple(), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        self.side(pixels_BCHW)
        self.tuple(pixels_BCHW)
        return super().forward(pixels_BCHW)


@pytest.mark.parametrize(
    ("model", "layer", "words"),
    [
        (Twice(0), "features.3", "more than once"),
        (OddOutputs(), "tuple", "not one tensor"),
        (OddOutputs(), "unused", "does not run"),
        (OddOutputs(), "side", "no influence"),
        (ToyNet(0), "linear", "neither activation maps"),
    ],
)
def test_an_unsuitable_layer_is_refused(model: nn.Module, layer: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        Probe(model, layer).capture(images(0), gradients=True)


def test_a_model_without_plain_logits_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with pytest.raises(ConfigError, match="must return logits"):
        Probe(model, "0").capture(images(0), gradients=True)
