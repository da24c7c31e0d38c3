"""Integrative CAM and Increment-CAM: what holds for the readings of their papers, on any network."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import GapNet, StagedNet, ToyNet, images
from reference.first_readings import first_increment_cam, first_integrative_cam
from torch import Tensor, nn

import pipeline
from pipeline.cams.increment import IncrementCam
from pipeline.cams.integrative import IntegrativeCam, _shares
from pipeline.maps.heatmaps import is_degenerate, min_max
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

seeds = settings(max_examples=10, deadline=None, derandomize=True)
any_seed = st.integers(0, 10**6)
FIRST = {"preset": "first_reading"}
READINGS = [{}, FIRST]


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> None:
    """Assert equality up to rounding, relative to the largest value of the batch."""
    assert float((one - other).abs().max()) <= tolerance * max(float(other.abs().max()), 1e-6)


def staged(model: nn.Module, *methods: object, seed: int = 0) -> list[Tensor]:
    explained = pipeline.explain(
        model, images(seed, 3), methods=methods, layer="stage2", stages=StagedNet.STAGES, targets=[0, 1, 2]
    )
    return list(explained.maps.values())


def observed(model: nn.Module, seed: int = 0) -> tuple[Probe, Evidence]:
    """Capture both stages for three images with a class each, whatever its logit."""
    probe = Probe(model, "stage2", stages=StagedNet.STAGES)
    return probe, probe.capture(images(seed, 3), torch.tensor([0, 1, 2]), gradients=True, stages=True)


def layer_map(method: IntegrativeCam, evidence: Evidence, probe: Probe, layer: str) -> Tensor:
    return method._layer_map(evidence, probe, layer, *method._slopes(evidence)[layer])


def shares(method: IntegrativeCam, evidence: Evidence) -> Tensor:
    scores_BL = torch.stack([method._layer_score(evidence, layer) for layer in evidence.layers], 1)
    return _shares(scores_BL, torch.ones_like(scores_BL))


@seeds
@given(any_seed)
def test_every_elementwise_map_of_integrative_cam_sums_to_the_logit(seed: int) -> None:
    """Before ReLU, for f = square, on a network that is piecewise linear; the default's deepest map is Grad-CAM's."""
    probe, evidence = observed(StagedNet(seed), seed)
    maps = [layer_map(IntegrativeCam(maps="elementwise"), evidence, probe, layer) for layer in StagedNet.STAGES]
    maps.append(layer_map(IntegrativeCam(), evidence, probe, StagedNet.STAGES[0]))
    for map_Buv in maps:
        total_B = map_Buv.sum((1, 2))
        torch.testing.assert_close(total_B, evidence.target_logits_B.double(), rtol=1e-9, atol=1e-9)


@seeds
@given(any_seed)
def test_with_one_layer_integrative_cam_is_the_map_of_that_layer(seed: int) -> None:
    probe = Probe(ToyNet(seed), "features.3")
    evidence = probe.capture(images(seed), gradients=True)
    expected_Buv = min_max(layer_map(IntegrativeCam(), evidence, probe, "features.3").relu())
    close(IntegrativeCam()(evidence, probe), expected_Buv.float())
    close(IntegrativeCam(fusion="sum")(evidence, probe), expected_Buv.float())


@seeds
@given(any_seed)
def test_with_one_layer_integrative_cam_is_gradcam_and_elementwise_without_bias_hirescam(seed: int) -> None:
    elementwise = {"integrative_cam": {"maps": "elementwise", "bias": "none", "as": "elementwise"}}
    mixed, gradcam, sharp, hirescam = pipeline.explain(
        ToyNet(seed), images(seed), methods=["integrative_cam", "gradcam", elementwise, "hirescam"],
        layer="features.3", stages=["features.3"],
    ).maps.values()  # fmt: skip
    close(mixed, min_max(gradcam), 1e-4)
    close(sharp, min_max(hirescam), 1e-4)


@pytest.mark.parametrize("layer_score", ["contribution", "product", "uniform"])
def test_shares_of_layers_sum_to_one_and_are_invariant_to_rescaling(layer_score: str) -> None:
    """Doubling the first stage and halving the weights of the second does not change what a ReLU network computes."""
    model, method = StagedNet(3), IntegrativeCam(layer_score=layer_score)
    before_BL = shares(method, observed(model)[1])
    torch.testing.assert_close(before_BL.sum(1), torch.ones(3, dtype=torch.float64))
    specs = [{"integrative_cam": {"as": "new"}}, {"integrative_cam": {"as": "first", **FIRST, "f": "square"}}]
    maps = staged(model, *specs)
    with torch.no_grad():
        model.stage1[1].weight *= 2
        model.stage1[1].bias *= 2
        model.stage2[0].weight /= 2
    torch.testing.assert_close(shares(method, observed(model)[1]), before_BL, rtol=1e-5, atol=1e-7)
    for after, before in zip(staged(model, *specs), maps, strict=True):
        close(after, before, 1e-4)


def test_layers_that_all_speak_against_the_class_have_equal_shares() -> None:
    model = StagedNet(3)
    with torch.no_grad():
        model.linear.weight.copy_(-model.linear.weight.abs())
    shares_BL = shares(IntegrativeCam(), observed(model)[1])
    assert shares_BL[:, 1].tolist() == [0.5] * 3
    filtered_BL = _shares(torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
    assert filtered_BL.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize("f", ["square", "identity"])
def test_a_negative_logit_does_not_turn_the_map_over(f: str) -> None:
    """A constant of all logits leaves gradients as they are; f1(S) of a square changes its sign with that of S."""
    model = StagedNet(2)
    turned = {"integrative_cam": {"f": f, "bias": "none", "maps": "channels", "as": "channels"}}
    kept = {"integrative_cam": {"f": f, "bias": "none", "as": "elementwise"}}
    channels, before = staged(model, turned, kept)
    with torch.no_grad():
        model.linear.bias -= 50.0
    after_channels, after = staged(model, turned, kept)
    close(after, before, 1e-4)
    if f == "square":
        assert float((after_channels - channels).abs().max()) > 0.1


@seeds
@given(any_seed)
def test_a_guided_map_is_zero_where_the_deepest_layer_is(seed: int) -> None:
    guided_Buv, plain_Buv = staged(
        StagedNet(seed), "integrative_cam", {"integrative_cam": {"fusion": "sum", "as": "sum"}}, seed=seed
    )
    probe, evidence = observed(StagedNet(seed), seed)
    deepest_Buv = min_max(layer_map(IntegrativeCam(), evidence, probe, "stage2").relu())
    large_Buv = nn.functional.interpolate(deepest_Buv[:, None], guided_Buv.shape[1:], mode="bilinear")[:, 0]
    assert not guided_Buv[large_Buv == 0].any()
    assert float(plain_Buv.max()) <= 1 + 1e-6
    assert float(guided_Buv.max()) <= 1 + 1e-6


@seeds
@given(any_seed)
def test_the_first_readings_are_what_they_were_bit_for_bit(seed: int) -> None:
    for smooth in (False, True):
        probe, evidence = observed(StagedNet(seed, smooth=smooth), seed)
        assert torch.equal(
            IntegrativeCam(**IntegrativeCam.presets["first_reading"])(evidence, probe), first_integrative_cam(evidence)
        )
        assert torch.equal(
            IncrementCam(**IncrementCam.presets["first_reading"])(evidence, probe),
            first_increment_cam(evidence, probe),
        )


@pytest.mark.parametrize("reading", [*READINGS, {"merge": "maps"}, {"merge": "weights"}])
def test_increment_cam_without_its_second_phase_is_gradcam(reading: dict[str, object]) -> None:
    gradcam, increment = staged(StagedNet(4), "gradcam", {"increment_cam": {**reading, "lam": 0.0}})
    close(min_max(increment), min_max(gradcam))


class Undecided(nn.Module):
    """A network whose gradients are those of another one, and whose confidences do not depend on the image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        logits_BN = self.net(pixels_BCHW)
        steady_BN = torch.tensor([0.3, 0.1, -0.7, 0.2]).expand_as(logits_BN)
        return logits_BN - logits_BN.detach() + steady_BN


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_increment_cam_with_equal_scores_is_gradcam(score: str) -> None:
    gradcam, increment = pipeline.explain(
        Undecided(StagedNet(4)), images(0), methods=["gradcam", {"increment_cam": {"score": score}}],
        layer="net.stage2", targets=[0, 1, 2],
    ).maps.values()  # fmt: skip
    assert torch.equal(increment, min_max(gradcam))
    assert float(increment.max()) > 0


@pytest.mark.parametrize("parameters", [{"channels": 1}, {"channels": 3, "clusters": 1}])
def test_increment_cam_with_a_single_score_has_nothing_to_compare(parameters: dict[str, object]) -> None:
    gradcam, increment = staged(StagedNet(4), "gradcam", {"increment_cam": parameters})
    close(increment, min_max(gradcam))


@pytest.mark.parametrize("reading", READINGS)
def test_increment_cam_of_one_channel_is_gradcam(reading: dict[str, object]) -> None:
    gradcam, increment = pipeline.explain(
        ToyNet(4, channels=1), images(0), methods=["gradcam", {"increment_cam": reading}], layer="features.3"
    ).maps.values()
    assert float(gradcam.max()) > 0
    close(min_max(increment), min_max(gradcam))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("seed", range(4))
def test_increment_cam_takes_one_forward_pass_for_each_kept_channel(reading: dict[str, object], seed: int) -> None:
    evidence = Probe(ToyNet(seed), "features.3").capture(images(seed), gradients=True)
    weights_BK11 = evidence.grads_BKuv.mean((2, 3), keepdim=True)
    kept = int((~is_degenerate((weights_BK11 * evidence.acts_BKuv).relu())).sum())
    counts = [
        pipeline.explain(ToyNet(seed), images(seed), methods=methods, layer="features.3").counts.forwards
        for methods in (["gradcam"], [{"increment_cam": reading}])
    ]
    assert counts[1] - counts[0] == kept > 0


@seeds
@given(any_seed, st.floats(0, 5))
def test_increment_cam_is_never_negative_and_zero_where_gradcam_is(seed: int, lam: float) -> None:
    gradcam, increment = staged(StagedNet(seed), "gradcam", {"increment_cam": {"lam": lam}}, seed=seed)
    assert float(increment.min()) >= 0
    assert not increment[min_max(gradcam) == 0].any()
    assert float(increment.max()) <= 1 + lam + 1e-5


@pytest.mark.parametrize("merge", ["gate", "maps", "weights"])
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_without_a_channel_that_speaks_for_the_class_the_map_is_zero(merge: str, score: str) -> None:
    model = GapNet(1)
    with torch.no_grad():
        model.linear.weight.copy_(-model.linear.weight.abs())
    explained = pipeline.explain(
        model, images(0), methods=[{"increment_cam": {"merge": merge, "score": score}}], layer="features.1"
    )
    assert not explained.maps["increment_cam"].any()
    assert bool(explained.degenerate["increment_cam"].all())
    assert explained.counts.forwards == len(images(0))


def test_the_gate_raises_what_restores_more_confidence_than_the_mean() -> None:
    """Two channels of weight 1 on separate cells; the one with the higher score gains, and the other loses."""
    from pipeline.cams.increment import _gate

    regions_BKuv = torch.zeros(1, 3, 2, 2)
    regions_BKuv[0, 0, 0, 0] = regions_BKuv[0, 1, 1, 1] = 1.0
    keep_BK = torch.tensor([[True, True, False]])
    for high, low in itertools.permutations((0.9, 0.1)):
        gate_Buv = _gate(torch.tensor([[high, low, torch.nan]]), keep_BK, regions_BKuv)
        sign = 1.0 if high > low else -1.0
        assert gate_Buv.tolist() == [[[sign, 0.0], [0.0, -sign]]]
