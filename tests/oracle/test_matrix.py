"""Relations between methods that hold for any network: special cases, completeness of sums, and symmetries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import GapNet, StagedNet, TinyVit, ToyNet, images
from quick import OF_ATTENTION, SPECS
from reference.fusion import softmax_derivatives
from torch import Tensor, nn

import pipeline
from pipeline.cams.integrative import IntegrativeCam
from pipeline.cams.path import RsiGradCam
from pipeline.maps.heatmaps import min_max
from pipeline.model.probe import Probe

seeds = settings(max_examples=10, deadline=None, derandomize=True)
any_seed = st.integers(0, 10**6)
LOOSE = {
    "opti_cam": 2e-2,  # Adam's step size does not shrink with the gradient
    "group_cam": 2e-3,  # differences of probabilities that are nearly equal
}
"""Tolerances of methods that amplify rounding errors; the tolerance of the others is 1e-4."""


ON_TOKENS = ("blocks.1",)


def net_for(spec: dict[str, dict[str, object]], seed: int, **options: int) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a network that a method can explain, and its layers: CAM needs a linear head, others attention."""
    (name,) = spec
    if name in OF_ATTENTION:
        return TinyVit(seed), ON_TOKENS
    return (GapNet(seed, **options), ("features.1",)) if name == "cam" else (StagedNet(seed), StagedNet.STAGES)


def of(model: nn.Module, *methods: object, seed: int = 0, count: int = 2, **options: object) -> list[Tensor]:
    """Compute the maps of random images; on a network with two resolutions, both are stages."""
    known = {ToyNet: ("features.3",), GapNet: ("features.1",), StagedNet: StagedNet.STAGES, TinyVit: ON_TOKENS}
    layers = known[type(model)]
    explained = pipeline.explain(
        model,
        images(seed, count),
        methods=methods,
        layer=layers[-1],
        stages=layers,
        **options,  # type: ignore[arg-type]
    )
    return list(explained.maps.values())


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> None:
    """Assert equality up to rounding, relative to the largest value of the batch."""
    scale = max(float(other.abs().max()), 1e-6)
    assert float((one - other).abs().max()) <= tolerance * scale


@seeds
@given(any_seed)
def test_on_a_pooled_linear_head_the_linear_methods_are_equal(seed: int) -> None:
    cam, gradcam, xgradcam, hirescam = of(GapNet(seed), "cam", "gradcam", "xgradcam", "hirescam", seed=seed)
    cells = cam.shape[1] * cam.shape[2]
    for same in (xgradcam, hirescam, cam.relu() / cells):
        close(same, gradcam)


@seeds
@given(any_seed)
def test_finer_cam_and_shapley_cam_reduce_to_gradcam(seed: int) -> None:
    model = ToyNet(seed)
    gradcam, logit, none = of(
        model, "gradcam", {"shapley_cam": {"utility": "logit"}}, {"finer_cam": {"gamma": 0.0}}, seed=seed
    )
    close(logit, gradcam)
    close(none, gradcam)


@seeds
@given(any_seed)
def test_without_noise_the_smoothed_methods_are_the_plain_ones(seed: int) -> None:
    plus, smooth, score, smoothed = of(
        ToyNet(seed), "gradcam_pp", {"smooth_gradcam_pp": {"samples": 3, "sigma": 0.0}},
        "scorecam", {"sscam": {"samples": 3, "std": 0.0}}, seed=seed,
    )  # fmt: skip
    close(smooth, plus)
    close(smoothed, score)


@seeds
@given(any_seed)
def test_a_multi_layer_method_on_one_layer_is_its_single_layer_counterpart(seed: int) -> None:
    plus, score, layercam, refine, poly, fused = of(
        ToyNet(seed), "gradcam_pp", "scorecam", "layercam", "refine_cam", {"poly_cam": {"variant": "plus"}},
        "layercam_fusion", seed=seed,
    )  # fmt: skip
    close(poly, score)
    close(refine, min_max(plus))
    close(fused, layercam / layercam.amax((1, 2), keepdim=True).clamp_min(1e-30))


@seeds
@given(any_seed)
def test_the_first_reading_of_integrative_cam_reduces_to_what_it_generalises(seed: int) -> None:
    model = ToyNet(seed)
    options = {"bias": "none", "preset": "first_reading"}
    plus, exponential, square, identity = of(
        model, "gradcam_pp", {"integrative_cam": {"as": "a", **options}},
        {"integrative_cam": {"as": "b", "f": "square", **options}},
        {"integrative_cam": {"as": "c", "f": "identity", **options}}, seed=seed,
    )  # fmt: skip
    close(exponential, min_max(plus), 1e-4)
    evidence = Probe(model, "features.3").capture(images(seed, 2), gradients=True)
    grads_BKuv = evidence.grads_BKuv * evidence.target_logits_B.sign().view(-1, 1, 1, 1)
    rectified_Buv = (grads_BKuv.relu().mean((2, 3), keepdim=True) * evidence.acts_BKuv).sum(1)
    close(square, min_max(rectified_Buv), 1e-4)
    plain_BK11 = evidence.grads_BKuv.relu().mean((2, 3), keepdim=True)
    close(identity, min_max((plain_BK11 * evidence.acts_BKuv).sum(1)), 1e-4)


@seeds
@given(any_seed)
def test_the_residual_is_the_contribution_of_the_biases_after_the_layer(seed: int) -> None:
    """Each bias contributes its value times the gradient at its layer; without biases the residual is zero."""
    model, pixels_BCHW = ToyNet(seed), images(seed, 2)
    probe = Probe(model, "features.3")
    evidence = probe.capture(pixels_BCHW, gradients=True)
    _, slopes = probe.backward(pixels_BCHW, evidence.targets_B, taps={"head": model.head[0]})
    added_B = (slopes["head"].sum((2, 3)) * model.head[0].bias.detach()).sum(1)
    added_B = added_B + model.linear.bias.detach()[evidence.targets_B]
    residual_B = IntegrativeCam()._bias(evidence, probe, "features.3").flatten() * evidence.acts_BKuv[0, 0].numel()
    close(residual_B.float(), added_B, 1e-4)
    bare = Probe(ToyNet(seed, bias=False), "features.3").capture(pixels_BCHW, gradients=True)
    close((bare.grads_BKuv * bare.acts_BKuv).sum((1, 2, 3)), bare.target_logits_B, 1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("log", [False, True])
def test_derivatives_of_the_softmax_are_those_of_triple_autograd(seed: int, log: bool) -> None:
    """With logits linear in one activation, the reference differentiates p_c three times."""
    from pipeline.cams.integrative import _softmax_slopes

    model = GapNet(seed, channels=3, classes=4)
    evidence = Probe(model, "features.1").capture(images(seed, 1), gradients=True)
    first, ratio = _softmax_slopes(evidence, 4, log=log)["features.1"]
    target, cells = int(evidence.targets_B[0]), evidence.acts_BKuv[0, 0].numel()
    probabilities_N = evidence.logits_BN[0].double().softmax(0)
    for channel in range(3):
        slopes_N = model.linear.weight.detach()[:, channel].double() / cells
        y1, y2, y3 = softmax_derivatives(slopes_N, probabilities_N, target)[int(log)]
        assert float(first[0, channel, 0, 0]) == pytest.approx(float(y1), rel=1e-4)
        assert float(ratio[0, channel, 0, 0]) == pytest.approx(float(y3 / y2), rel=1e-3)


@seeds
@given(any_seed)
def test_xgradcam_sums_to_gradient_times_activation(seed: int) -> None:
    evidence = Probe(ToyNet(seed), "features.3").capture(images(seed, 2), gradients=True)
    acts_BKuv, grads_BKuv = evidence.acts_BKuv, evidence.grads_BKuv
    total_BK = acts_BKuv.sum((2, 3))
    weights_BK = torch.where(total_BK > 0, (grads_BKuv * acts_BKuv).sum((2, 3)) / total_BK.clamp_min(1e-30), 0.0)
    signed_Buv = (weights_BK[:, :, None, None] * acts_BKuv).sum(1)
    close(signed_Buv.sum((1, 2)), (grads_BKuv * acts_BKuv).sum((1, 2, 3)), 1e-4)
    (xgradcam,) = of(ToyNet(seed), "xgradcam", seed=seed)
    close(xgradcam, signed_Buv.relu())


@pytest.mark.parametrize("seed", range(3))
def test_the_riemann_stieltjes_sum_and_integrated_gradients_are_complete(seed: int) -> None:
    model, pixels_BCHW = StagedNet(seed, smooth=True), images(seed, 2)
    probe = Probe(model, "stage2", batch=256)
    evidence = probe.capture(pixels_BCHW, gradients=True)
    start_B = probe.capture(probe.baseline_pixels("black", pixels_BCHW), evidence.targets_B, gradients=False)
    rise_B = evidence.target_logits_B - start_B.target_logits_B
    along = RsiGradCam(steps=300, score="logit").riemann_stieltjes(evidence, probe, rectify=False)
    close(along.sum((1, 2, 3)), rise_B, 2e-3)
    (map_Buv,) = of(model, {"integrated_gradients": {"steps": 300, "grid": 4}}, seed=seed)
    close(map_Buv.mean((1, 2)) * 16 * 16, rise_B, 2e-3)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_maps_of_a_batch_equal_those_of_its_images_and_targets_alone(spec: dict[str, dict[str, object]]) -> None:
    model, layers = net_for(spec, 3, channels=6)
    pixels_BCHW, targets = images(3, 3), [[0, 1], [2, 0], [1, 2]]
    options = {"methods": [spec], "layer": layers[-1], "stages": layers}
    (together,) = pipeline.explain(model, pixels_BCHW, targets=targets, **options).maps.values()  # type: ignore[arg-type]
    for row in range(6):
        image_1CHW, target = pixels_BCHW[row // 2][None], [targets[row // 2][row % 2]]
        (alone,) = pipeline.explain(model, image_1CHW, targets=target, **options).maps.values()  # type: ignore[arg-type]
        close(alone[0], together[row], LOOSE.get(next(iter(spec)), 1e-4))


INVARIANT_TO_CONSTANTS = {
    name: spec for name, spec in SPECS.items() if next(iter(spec)) not in ("shapley_cam", "integrative_cam")
}
"""Methods whose maps do not change with a constant; Shapley-CAM and Integrative CAM depend on the logit itself."""


@pytest.mark.parametrize("spec", INVARIANT_TO_CONSTANTS.values(), ids=INVARIANT_TO_CONSTANTS)
def test_adding_a_constant_to_all_logits_changes_no_map(spec: dict[str, dict[str, object]]) -> None:
    """All maps depend on gradients, probabilities or differences of logits, so a constant cancels."""
    model, _ = net_for(spec, 2)
    (before,) = of(model, spec, targets=[0, 1])
    with torch.no_grad():
        model.linear.bias += 3.0
    (after,) = of(model, spec, targets=[0, 1])
    close(after, before, LOOSE.get(next(iter(spec)), 1e-4))


OF_CNNS = {name: spec for name, spec in SPECS.items() if name not in OF_ATTENTION}


@pytest.mark.parametrize("trouble", ["zero image", "dead layer", "constant channel", "negative head"])
@pytest.mark.parametrize("spec", OF_CNNS.values(), ids=OF_CNNS)
def test_odd_networks_and_images_give_finite_maps(spec: dict[str, dict[str, object]], trouble: str) -> None:
    model = GapNet(1) if "cam" in spec else ToyNet(1)
    pixels_BCHW = torch.zeros(2, 3, 16, 16) if trouble == "zero image" else images(1, 2)
    with torch.no_grad():
        if trouble == "dead layer":
            for parameter in model.features.parameters():
                parameter.zero_()
        if trouble == "constant channel":
            convolution = model.features[0 if "cam" in spec else 2]
            convolution.weight[0] = 0
            convolution.bias[0] = 2.0
        if trouble == "negative head":
            model.linear.weight.copy_(-model.linear.weight.abs())
    layer = "features.1" if "cam" in spec else "features.3"
    explained = pipeline.explain(
        model, pixels_BCHW, methods=[spec], layer=layer, stages=[layer], layout="channels_first"
    )
    ((name, maps_Buv),) = explained.maps.items()
    assert bool(maps_Buv.isfinite().all())
    heatmap_BHW = explained.heatmap(name)
    assert float(heatmap_BHW.min()) >= 0
    assert float(heatmap_BHW.max()) <= 1
    assert bool((heatmap_BHW[explained.degenerate[name]] == 0).all())


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_model_is_left_unchanged(spec: dict[str, dict[str, object]]) -> None:
    model, _ = net_for(spec, 1)
    model.train()
    model.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    of(model, spec)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
