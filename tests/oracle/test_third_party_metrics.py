"""Third-party comparison of metrics: where other libraries agree, how closely, and where one of them is wrong."""

import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import torch
from captum.metrics import infidelity, sensitivity_max
from nets import ToyNet, images
from scoring_batches import BrightnessNet, scoring_batch
from torch import Tensor, nn

import pipeline
from pipeline.metrics import METRICS, build_metrics
from pipeline.metrics.boxes import LEVELS, best_iou, regions_boxes
from pipeline.metrics.robustness import Infidelity, MaxSensitivity

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
    from pytorch_grad_cam.metrics.perturbation_confidence import RemoveMostRelevantFirst
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
    from torchcam.methods import CAM
    from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

LAYER = "features.3"


class FullNet(nn.Module):
    """Network at full resolution with pooling and a linear head, for which torch-cam's CAM equals camatlas's."""

    def __init__(self, seed: int, shift: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), nn.ReLU())
            self.linear = nn.Linear(6, 4)
        self.linear.weight.data.mul_(6)
        self.linear.bias.data.add_(shift)
        self.eval()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.features(pixels_BCHW).mean((2, 3)))


BOXES = [[[2.0, 3.0, 9.0, 12.0]], [[0.0, 0.0, 4.0, 4.0], [10.0, 9.0, 15.0, 14.0]], None]


@pytest.fixture(autouse=True)
def _quiet_third_party() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def random_maps(seed: int, count: int = 3) -> Tensor:
    """Return heat maps (B, M, H, W) without ties, two per image."""
    maps_BMHW = torch.rand(count, 2, 16, 16, generator=torch.Generator().manual_seed(seed))
    low, high = maps_BMHW.amin((2, 3), keepdim=True), maps_BMHW.amax((2, 3), keepdim=True)
    return (maps_BMHW - low) / (high - low)


def value(name: str, maps_BMHW: Tensor, **options: object) -> Tensor:
    (metric,) = build_metrics([{name: options}]).values()
    return metric(scoring_batch(maps_BMHW, boxes=BOXES))


@pytest.mark.parametrize("seed", range(3))
def test_localisation_and_shape_agree_with_quantus(seed: int) -> None:
    maps_BMHW = random_maps(seed)
    inside_BHW = scoring_batch(maps_BMHW, boxes=BOXES).inside_BHW
    pairs = [(b, m) for b in range(2) for m in range(2)]
    maps = np.stack([maps_BMHW[b, m, None].numpy() for b, m in pairs])
    masks = np.stack([inside_BHW[b, None].numpy() for b, _ in pairs])
    theirs = {
        "energy_in_box": (quantus.RelevanceMassAccuracy(normalise=False).evaluate_batch(maps.copy(), masks), 1e-6),
        "top_n_in_box": (quantus.RelevanceRankAccuracy(normalise=False).evaluate_batch(maps.copy(), masks), 1e-6),
        "pointing_game": (quantus.PointingGame(normalise=False).evaluate_batch(a_batch=maps.copy(), s_batch=masks), 0),
        "sparsity": (quantus.Sparseness(normalise=False).evaluate_batch(x_batch=maps, a_batch=maps.copy()), 1e-5),
        "entropy": (quantus.Complexity(normalise=False).evaluate_batch(x_batch=maps, a_batch=maps.copy()), 1e-5),
    }
    for name, (expected, tolerance) in theirs.items():
        ours_BM = value(name, maps_BMHW, **({"tolerance": 0} if name == "pointing_game" else {}))
        found = [float(ours_BM[pair]) for pair in pairs]
        np.testing.assert_allclose(found, np.asarray(expected, float), rtol=tolerance, atol=tolerance, err_msg=name)


def test_quantus_counts_an_image_without_a_mask_as_a_hit_and_camatlas_gives_nan() -> None:
    maps = random_maps(0)[:1, :1].numpy()
    nothing = np.zeros((1, 1, 16, 16), bool)
    assert quantus.PointingGame(normalise=False).evaluate_batch(a_batch=maps, s_batch=nothing).tolist() == [True]
    assert bool(value("pointing_game", random_maps(0))[2].isnan().all())


def test_the_energy_of_a_zero_map_is_nan_in_quantus_and_zero_in_camatlas() -> None:
    masks = np.ones((1, 1, 16, 16), bool)
    theirs = quantus.RelevanceMassAccuracy(normalise=False).evaluate_batch(np.zeros((1, 1, 16, 16)), masks)
    assert np.isnan(theirs).all()
    assert value("energy_in_box", torch.zeros(3, 1, 16, 16))[0].tolist() == [0]


@pytest.mark.parametrize("normalise", [False, True])
def test_infidelity_agrees_with_captum(normalise: bool) -> None:
    model, maps_BMHW = ToyNet(2), random_maps(2)
    metric = Infidelity(samples=6, scale=normalise)
    batch = scoring_batch(maps_BMHW, boxes=BOXES, model=model)
    ours_BM = metric(batch)
    (view,) = metric.views()
    for m in range(2):
        steps = iter(range(6))

        def perturb(inputs: Tensor, *, steps: Iterator[int] = steps) -> tuple[Tensor, Tensor]:
            rows_B = torch.arange(3)
            change = torch.cat([view.change(batch, rows_B, torch.full((3,), step)) for step in range(6)])
            change = change.unflatten(0, (6, 3)).transpose(0, 1).flatten(0, 1)  # captum repeats each image in turn
            return change, inputs - change

        theirs_B = infidelity(
            model, perturb, batch.evidence.pixels_BCHW, maps_BMHW[:, m, None].expand(-1, 3, -1, -1),
            target=batch.evidence.targets_B, n_perturb_samples=6, normalize=normalise,
        )  # fmt: skip
        torch.testing.assert_close(ours_BM[:, m], theirs_B, rtol=1e-3, atol=1e-5)


def test_max_sensitivity_agrees_with_captum() -> None:
    model, pixels_BCHW = ToyNet(3), images(3, 2)
    explained = pipeline.explain(model, pixels_BCHW, methods=["gradcam"], layer=LAYER, keys=["a", "b"])
    spec = {"max_sensitivity": {"samples": 4, "radius": 0.1}}
    ours_B = pipeline.evaluate(model, pixels_BCHW, explained, metrics=[spec])["max_sensitivity"]["gradcam"]
    metric = MaxSensitivity(samples=4, radius=0.1)
    batch = scoring_batch(torch.zeros(2, 1, 16, 16), model=model, pixels_BCHW=pixels_BCHW, keys=("a", "b"))
    jitter = torch.stack([metric._jitter(batch, step) for step in range(4)], 1)  # captum repeats each image in turn

    def explain(inputs: Tensor | tuple[Tensor, ...], target: Tensor) -> tuple[Tensor]:
        pixels = inputs[0] if isinstance(inputs, tuple) else inputs
        return (pipeline.explain(model, pixels, methods=["gradcam"], layer=LAYER, targets=target).heatmap("gradcam"),)

    def perturb(inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        pixels = inputs[0] if isinstance(inputs, tuple) else inputs
        return pixels + jitter.flatten(0, 1)

    theirs_B = sensitivity_max(
        explain, pixels_BCHW, perturb_func=perturb, n_perturb_samples=4, target=explained.targets,
        max_examples_per_batch=100,
    )  # fmt: skip
    torch.testing.assert_close(ours_B, theirs_B, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_curves_agree_with_torch_cam(seed: int, softmax: bool) -> None:
    model, pixels_BCHW = FullNet(seed), images(seed, 2)
    explained = pipeline.explain(model, pixels_BCHW, methods=["cam"], layer="features.1")
    options = {"preset": "torch_cam", "steps": 16, "score": "probability" if softmax else "logit"}
    ours = pipeline.evaluate(model, pixels_BCHW, explained, metrics=[{"insertion": options}, {"deletion": options}])
    with CAM(model, "features.1", fc_layer="linear") as extractor:
        metric = DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1) if softmax else None, steps=16)
        metric.update(pixels_BCHW, class_idx=explained.targets.tolist())
    summary = metric.summary()
    for name in ("insertion", "deletion"):
        (theirs,) = [number for key, number in summary.items() if name in key]
        assert float(ours[name]["cam"].mean()) == pytest.approx(theirs, abs=2e-6)


def test_drop_agrees_with_torch_cam_on_probabilities_and_torch_cam_fails_on_logits() -> None:
    model, pixels_BCHW = FullNet(5, shift=-20.0), images(5, 8)  # negative logits
    explained = pipeline.explain(model, pixels_BCHW, methods=["cam"], layer="features.1")
    ours = pipeline.evaluate(model, pixels_BCHW, explained, metrics=["average_drop", "increase"])
    summaries = {}
    for name, reading in (("probability", partial(torch.softmax, dim=-1)), ("logit", None)):
        with CAM(model, "features.1", fc_layer="linear") as extractor:
            metric = ClassificationMetric(extractor, reading)
            metric.update(pixels_BCHW, class_idx=explained.targets.tolist())
        summaries[name] = metric.summary()
    assert float(ours["average_drop"]["cam"].mean()) == pytest.approx(summaries["probability"]["avg_drop"], abs=1e-6)
    assert float(ours["increase"]["cam"].mean()) == pytest.approx(summaries["probability"]["conf_increase"])
    assert summaries["probability"]["avg_drop"] > 0
    assert summaries["logit"]["avg_drop"] < 0, "torch-cam's drop should be negative here"


def test_pytorch_grad_cams_drop_is_absolute() -> None:
    model, pixels_BCHW = ToyNet(6), images(6, 4)
    explained = pipeline.explain(model, pixels_BCHW, methods=["gradcam"], layer=LAYER)
    drop_B = pipeline.evaluate(model, pixels_BCHW, explained)["average_drop"]["gradcam"]
    targets = [ClassifierOutputSoftmaxTarget(target) for target in explained.targets.tolist()]
    theirs = DropInConfidence()(pixels_BCHW, explained.heatmap("gradcam").numpy(), targets, model)
    confidences_B = explained.evidence.target_confidences_B
    np.testing.assert_allclose((drop_B * confidences_B).numpy(), np.ravel(theirs), atol=1e-6)
    assert float(drop_B.sum()) > float((drop_B * confidences_B).sum()) > 0


def test_with_ties_pytorch_grad_cam_removes_too_many_pixels_and_camatlas_the_given_share() -> None:
    map_HW = torch.zeros(16, 16)
    map_HW[:2] = 1.0  # an eighth of the pixels is 1, all others are tied at 0
    removed: list[float] = []
    RemoveMostRelevantFirst(80, lambda image, kept: removed.append(1 - float(kept.mean())) or image)(
        torch.zeros(3, 16, 16), map_HW
    )
    assert removed == [1.0], "pytorch-grad-cam removes all pixels instead of 20 %"
    model = BrightnessNet()
    metric = build_metrics([{"road_morf": {"percentiles": [20], "sigma": 0}}])["road_morf"]
    batch = scoring_batch(map_HW[None, None], model=model, pixels_BCHW=torch.randn(1, 3, 16, 16))
    metric(batch)
    changed_HW = (model.inputs[-1][0] != batch.evidence.pixels_BCHW[0]).any(0)
    assert int(changed_HW.sum()) == round(0.2 * 256)
    assert bool(changed_HW[:2].all())


WSOL = {
    "one peak": (
        [[0, 0, 0, 0, 0], [0, 0.4, 0.4, 0.4, 0.6], [0, 0.4, 1, 0.8, 0.6], [0, 0.4, 0.4, 0.4, 0.6]],
        [[1, 1, 4, 3], [1, 1, 4, 3], [2, 1, 4, 3], [2, 2, 4, 3], [2, 2, 3, 3]],
    ),
    "two peaks": (
        [[0.4, 0, 0.2, 0.2, 0.2], [0.4, 0.4, 0, 0.4, 0], [0, 0, 0, 0.4, 0], [1, 0.6, 0.8, 0.2, 0.2]],
        [[0, 0, 4, 3], [0, 0, 2, 2], [0, 3, 3, 3], [2, 3, 3, 3], [0, 3, 1, 3]],
    ),
}
"""Maps and boxes at thresholds 0, 0.2 .. 0.8, as published with wsolevaluation. Its boxes end one pixel after the
region, unless the image ends there."""


@pytest.mark.parametrize("name", WSOL)
def test_boxes_agree_with_the_published_cases_of_wsolevaluation(name: str) -> None:
    values, published = WSOL[name]
    map_HW = np.array(values)
    height, width = map_HW.shape
    levels_HW = np.floor(map_HW * (LEVELS - 1))
    for threshold, box in zip(np.arange(0, 1, 0.2), published, strict=True):
        found = regions_boxes(levels_HW > np.floor(threshold * (LEVELS - 1)), "all")
        converted = [[x0, y0, min(x1 + 1, width - 1), min(y1 + 1, height - 1)] for x0, y0, x1, y1 in found.tolist()]
        assert box in converted, threshold


def test_overlaps_agree_with_the_published_cases_of_wsolevaluation() -> None:
    assert best_iou(np.array([[1, 2, 5, 6]]), np.array([[3, 1, 4, 5]])) == pytest.approx(8 / 27)
    assert best_iou(np.zeros((1, 4), int), np.zeros((1, 4), int)) == 1
    assert best_iou(np.array([[1, 1, 3, 3]]), np.array([[4, 4, 5, 5]])) == 0


def test_max_box_acc_is_chosen_over_all_images() -> None:
    """The best thresholds of two images differ: each has a hit alone, but one threshold hits only one of them."""
    maps_BMHW = torch.zeros(2, 1, 8, 8)
    maps_BMHW[0, 0, :4, :4], maps_BMHW[0, 0, :2, :2] = 0.3, 1.0  # the object is the large block
    maps_BMHW[1, 0, :4, :4], maps_BMHW[1, 0, :2, :2] = 0.3, 1.0  # the object is the small block
    batch = scoring_batch(maps_BMHW, boxes=[[[0.0, 0.0, 4.0, 4.0]], [[0.0, 0.0, 2.0, 2.0]]])
    curve_BML = METRICS["box_iou_curve"]()(batch)
    hits_BL = curve_BML[:, 0] >= 0.5
    assert hits_BL.any(1).tolist() == [True, True]
    assert float(hits_BL.float().mean(0).max()) == 0.5


def test_quantus_accumulates_the_perturbations_of_infidelity_and_camatlas_applies_each_alone() -> None:
    """Quantus keeps the earlier blocks of a pass, so that later images are changed in several blocks."""
    model = BrightnessNet()
    metric = quantus.Infidelity(
        perturb_patch_sizes=[8], n_perturb_samples=1, normalise=False, disable_warnings=True,
        perturb_func_kwargs={"perturb_baseline": "black"},
    )  # fmt: skip
    pixels_BCHW = torch.rand(1, 3, 16, 16) + 0.1
    metric(
        model=model.eval(), x_batch=pixels_BCHW.numpy(), y_batch=np.array([0]), a_batch=random_maps(0)[:1, :1].numpy(),
        device="cpu", channel_first=True,
    )  # fmt: skip
    changed = [int((inputs_BCHW[0] != pixels_BCHW[0]).any(0).sum()) for inputs_BCHW in model.inputs]
    assert changed[0] == 0
    assert changed == sorted(changed)
    assert changed[-1] > 64, "more than one block of 8 x 8"
    ours = BrightnessNet()
    batch = scoring_batch(torch.rand(1, 1, 16, 16), model=ours, pixels_BCHW=pixels_BCHW)
    ours.inputs.clear()
    Infidelity(samples=4, side=0.5)(batch)
    assert ours.inputs
    assert all(int((image != pixels_BCHW[0]).any(0).sum()) in (0, 64) for inputs in ours.inputs for image in inputs)
