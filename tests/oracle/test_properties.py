"""Relations between methods that follow from their definitions."""

import pytest
import torch
from nets import GapNet, ToyNet, images
from torch import Tensor

import pipeline
from pipeline.cams import build_methods
from pipeline.cams.score import strengths
from pipeline.cams.versions import path_points
from pipeline.maps.heatmaps import is_degenerate
from pipeline.model.probe import Probe

MEAN_BASELINE = {"baseline": "mean"}


def maps(model: torch.nn.Module, *methods: object, seed: int = 0, count: int = 3, **options: object) -> list[Tensor]:
    layer = "features.3" if isinstance(model, ToyNet) else "features.1"
    explanations = pipeline.explain(model, images(seed, count), methods=methods, layer=layer, **options)
    return list(explanations.maps.values())


def integrated(steps: int, **options: object) -> dict[str, dict[str, object]]:
    return {"integrated_gradcam": {"steps": steps, "as": f"steps_{steps}", **MEAN_BASELINE, **options}}


def scaled(maps_Buv: Tensor) -> Tensor:
    return maps_Buv / maps_Buv.amax((1, 2), keepdim=True)


@pytest.mark.parametrize("seed", range(5))
def test_one_step_from_an_empty_baseline_is_gradcam(seed: int) -> None:
    gradcam_Buv, one_step_Buv = maps(ToyNet(seed, bias=False), "gradcam", integrated(1), seed=seed)
    assert torch.equal(gradcam_Buv, one_step_Buv)


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_without_biases_integrated_gradcam_is_a_multiple_of_gradcam(steps: int) -> None:
    gradcam_Buv, integrated_Buv = maps(ToyNet(2, bias=False), "gradcam", integrated(steps))
    torch.testing.assert_close(integrated_Buv, (steps + 1) / 2 * gradcam_Buv, rtol=1e-5, atol=1e-6)


def test_a_path_of_no_length_gives_a_zero_map() -> None:
    """Batches are padded as in a run, so that the baseline gives the same bits alone and among other images."""
    probe = Probe(ToyNet(0), "features.3", batch_multiple=16)
    (method,) = build_methods([integrated(5)]).values()
    evidence = probe.capture(torch.zeros(2, 3, 16, 16), gradients=True)
    assert bool(is_degenerate(method(evidence, probe)).all())


def test_integrated_gradcam_converges() -> None:
    coarse, middle, fine = maps(ToyNet(4), integrated(25), integrated(50), integrated(400))
    means = coarse / 25, middle / 50, fine / 400
    scale = float(means[2].max())
    assert float((means[1] - means[2]).abs().max()) < float((means[0] - means[2]).abs().max()) < 0.1 * scale


def test_the_start_of_the_path_contributes_only_without_subtracted_baseline() -> None:
    model = ToyNet(4)
    with_features, without = maps(
        model,
        integrated(1, rule="left", subtract_baseline_features=False, **{"as": "raw"}),
        integrated(1, rule="left", **{"as": "subtracted"}),
    )
    assert float(with_features.abs().max()) > 0
    assert float(without.abs().max()) < 1e-6 * float(with_features.abs().max())


def test_adding_a_constant_to_all_logits_changes_no_map() -> None:
    model = ToyNet(1)
    before = maps(model, "gradcam", "gradcam_pp", integrated(5), "scorecam")
    with torch.no_grad():
        model.linear.bias += 3.0
    for old, new in zip(before, maps(model, "gradcam", "gradcam_pp", integrated(5), "scorecam"), strict=True):
        torch.testing.assert_close(old, new, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("schedule", ["cumulative", "linear"])
def test_iscam_of_one_step_is_scorecam(schedule: str) -> None:
    scorecam_Buv, iscam_Buv = maps(ToyNet(3), "scorecam", {"iscam": {"num_steps": 1, "schedule": schedule}})
    assert torch.equal(scorecam_Buv, iscam_Buv)


def test_the_literal_recurrence_of_one_step_weights_all_channels_equally() -> None:
    model = ToyNet(3)
    explanations = pipeline.explain(
        model, images(3), methods=[{"iscam": {"num_steps": 1, "schedule": "recurrence"}}], layer="features.3"
    )
    acts_BKuv = explanations.evidence.acts_BKuv
    keep_BK11 = (acts_BKuv.amax((2, 3), keepdim=True) > acts_BKuv.amin((2, 3), keepdim=True)).float()
    empty_B = model(torch.zeros(1, 3, 16, 16)).softmax(1)[0, explanations.targets]
    expected_Buv = empty_B.detach()[:, None, None] * (acts_BKuv * keep_BK11).sum(1)
    torch.testing.assert_close(explanations.maps["iscam"], expected_Buv, rtol=1e-5, atol=1e-6)


def test_strengths_of_ten_steps() -> None:
    assert strengths(10, "cumulative") == pytest.approx([0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8, 3.6, 4.5, 5.5])
    assert strengths(10, "recurrence") == pytest.approx([0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8, 3.6, 4.5])
    assert strengths(4, "linear") == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_path_points() -> None:
    assert path_points(4, "right") == [(0.25, 1.0), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0)]
    assert path_points(2, "left") == [(0.0, 1.0), (0.5, 1.0)]
    assert path_points(2, "midpoint") == [(0.25, 1.0), (0.75, 1.0)]
    assert path_points(2, "trapezoid") == [(0.0, 0.5), (0.5, 1.0), (1.0, 0.5)]


def test_without_biases_iscam_on_logits_is_a_multiple_of_scorecam() -> None:
    options = {"score": "logit"}
    scorecam_Buv, iscam_Buv = maps(ToyNet(6, bias=False), {"scorecam": options}, {"iscam": options})
    factor = sum(strengths(10, "cumulative")) / 10
    torch.testing.assert_close(iscam_Buv, factor * scorecam_Buv, rtol=1e-4, atol=1e-5)


def test_the_order_of_channels_does_not_matter() -> None:
    model, order = GapNet(2), torch.tensor([3, 0, 4, 1, 2])
    before = maps(model, "gradcam", "gradcam_pp", "scorecam")
    with torch.no_grad():
        model.features[0].weight.copy_(model.features[0].weight[order])
        model.features[0].bias.copy_(model.features[0].bias[order])
        model.linear.weight.copy_(model.linear.weight[:, order])
    for old, new in zip(before, maps(model, "gradcam", "gradcam_pp", "scorecam"), strict=True):
        torch.testing.assert_close(old, new, rtol=1e-4, atol=1e-6)


def test_closed_form_of_gradcam_pp_on_a_pooled_linear_head() -> None:
    model = GapNet(1)
    explanations = pipeline.explain(model, images(1), methods=["gradcam_pp"], layer="features.1")
    acts_BKuv = explanations.evidence.acts_BKuv
    cells = acts_BKuv.shape[2] * acts_BKuv.shape[3]
    weights_BK = model.linear.weight.detach()[explanations.targets]
    alphas_BK = 1 / (2 + acts_BKuv.mean((2, 3)) * weights_BK)
    channel_weights_BK = torch.where(weights_BK > 0, cells * alphas_BK * weights_BK / cells, 0.0)
    expected_Buv = (channel_weights_BK[:, :, None, None] * acts_BKuv).sum(1).relu()
    torch.testing.assert_close(explanations.maps["gradcam_pp"], expected_Buv, rtol=1e-5, atol=1e-6)


def test_gradcam_pp_is_exact_for_tiny_gradients() -> None:
    model = GapNet(1)
    with torch.no_grad():
        model.linear.weight *= 1e-12
    (maps_Buv,) = maps(model, "gradcam_pp")
    acts_BKuv = pipeline.explain(model, images(0), methods=[], layer="features.1").evidence.acts_BKuv
    targets = pipeline.explain(model, images(0), methods=[], layer="features.1").targets
    weights_BK = model.linear.weight.detach()[targets].clamp_min(0) / 2  # alpha is 1/2 in the limit
    expected_Buv = (weights_BK[:, :, None, None] * acts_BKuv).sum(1)
    torch.testing.assert_close(maps_Buv, expected_Buv, rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ["gradcam", "gradcam_pp", integrated(4), "scorecam", {"iscam": {"num_steps": 3}}])
def test_maps_of_a_batch_equal_those_of_its_images_alone(method: object) -> None:
    model, pixels_BCHW = ToyNet(7), images(7, count=5)
    together = next(iter(pipeline.explain(model, pixels_BCHW, methods=[method], layer="features.3").maps.values()))
    for image_CHW, map_uv in zip(pixels_BCHW, together, strict=True):
        alone = pipeline.explain(model, image_CHW[None], methods=[method], layer="features.3").maps
        torch.testing.assert_close(next(iter(alone.values()))[0], map_uv, rtol=1e-4, atol=1e-6)


def test_a_constant_channel_has_no_weight() -> None:
    model = ToyNet(2)
    with torch.no_grad():
        model.features[2].weight[0] = 0
        model.features[2].bias[0] = 5.0
    explanations = pipeline.explain(model, images(2), methods=["scorecam"], layer="features.3")
    assert float(explanations.maps["scorecam"].amin((1, 2)).max()) < 5 * 0.01
    without = explanations.evidence.acts_BKuv[:, 1:]
    assert explanations.counts.forwards == 3 + int((without.amax((2, 3)) > without.amin((2, 3))).sum())
