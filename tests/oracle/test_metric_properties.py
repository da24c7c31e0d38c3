"""Properties of metrics that hold for any network and map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import StagedNet, ToyNet, images
from scoring_batches import BrightnessNet, scoring_batch
from torch import Tensor, nn

import pipeline
from pipeline.maps.heatmaps import min_max
from pipeline.metrics import METRICS, Parts, ScoringBatch, build_metrics
from pipeline.model.baselines import baseline_pixels
from pipeline.model.probe import Probe

seeds = settings(max_examples=15, deadline=None, derandomize=True)
any_seed = st.integers(0, 10**6)
BOXES = [[[2.0, 3.0, 9.0, 12.0]], [[1.0, 1.0, 15.0, 8.0]], None]
RECOMPUTING = {name for name, kind in METRICS.items() if kind().redrawn_maps()}


def maps_of(seed: int) -> Tensor:
    """Return smooth heat maps (3, 2, 16, 16)."""
    small = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    return min_max(nn.functional.interpolate(small, (16, 16), mode="bicubic"))


def value(name: str, batch: ScoringBatch, **options: object) -> Tensor:
    (metric,) = build_metrics([{name: options}]).values()
    return metric(batch)


@seeds
@given(any_seed)
def test_drop_gain_and_increase_exclude_each_other(seed: int) -> None:
    batch = scoring_batch(maps_of(seed), model=ToyNet(seed))
    drop_BM, gain_BM, increase_BM = (value(name, batch) for name in ("average_drop", "average_gain", "increase"))
    assert bool((drop_BM <= 1 - increase_BM).all())
    assert bool(((gain_BM > 0) == (increase_BM > 0)).all())
    for share_BM in (drop_BM, gain_BM):
        assert bool(((share_BM >= 0) & (share_BM <= 1)).all())


class Constant(nn.Module):
    """Model with the same logits for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity(), nn.Identity())

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return 0 * self.features(pixels_BCHW).mean((2, 3)) + torch.tensor([1.0, 2.0, 0.5])


@pytest.mark.parametrize("steps", [2, 3, 20])
@pytest.mark.parametrize("name", ["insertion", "deletion"])
def test_the_area_of_a_constant_output_is_the_output(name: str, steps: int) -> None:
    batch = scoring_batch(maps_of(0), model=Constant())
    expected_BM = batch.evidence.target_confidences_B[:, None].expand(3, 2)
    torch.testing.assert_close(value(name, batch, steps=steps), expected_BM)
    logits_BM = batch.evidence.target_logits_B[:, None].expand(3, 2)
    torch.testing.assert_close(value(name, batch, steps=steps, score="logit"), logits_BM)
    assert value("road", batch, sigma=0.0).abs().max() < 1e-6


def test_curves_of_a_model_that_averages_pixels_match_values_by_hand() -> None:
    """The logit of class 0 is the mean pixel; a quarter of the image is 4, the rest 0, so the mean is 1."""
    pixels_1CHW = torch.zeros(1, 3, 16, 16)
    pixels_1CHW[..., :8, :8] = 4.0
    perfect_11HW = pixels_1CHW[:, :1] / 4
    batch = scoring_batch(
        torch.cat([perfect_11HW, 1 - perfect_11HW], 1), model=BrightnessNet(), pixels_BCHW=pixels_1CHW
    )
    options = {"steps": 4, "fill": "mean", "score": "logit"}
    curves = {name: value(f"{name}_curve", batch, **options)[0].tolist() for name in ("insertion", "deletion")}
    assert curves["insertion"][0] == [0, 1, 1, 1, 1]
    assert curves["deletion"][0] == [1, 0, 0, 0, 0]
    assert curves["insertion"][1] == [0, 0, 0, 0, 1]
    assert curves["deletion"][1] == [1, 1, 1, 1, 0]
    assert value("insertion", batch, **options)[0].tolist() == [0.875, 0.125]
    assert value("deletion", batch, **options)[0].tolist() == [0.125, 0.875]


@seeds
@given(any_seed)
def test_deletion_is_insertion_of_the_inverted_map_reversed(seed: int) -> None:
    """Deleting the most relevant pixels gives the same images as inserting the least relevant ones."""
    maps_BMHW = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed))  # no ties
    model, options = ToyNet(seed), {"steps": 8, "fill": "mean"}
    deletion = value("deletion_curve", scoring_batch(maps_BMHW, model=model), **options)
    insertion = value("insertion_curve", scoring_batch(1 - maps_BMHW, model=model), **options)
    torch.testing.assert_close(deletion, insertion.flip(2))


@seeds
@given(any_seed)
def test_rank_metrics_are_invariant_to_monotone_changes_of_the_map(seed: int) -> None:
    maps_BMHW = maps_of(seed)
    plain, cubed = (scoring_batch(one, boxes=BOXES, model=ToyNet(seed)) for one in (maps_BMHW, maps_BMHW.double() ** 3))
    names = ["insertion", "deletion", "road", "road_morf", "road_lerf", "top_n_in_box", "miou_top20", "pointing_game"]
    for name in names:
        torch.testing.assert_close(value(name, plain), value(name, cubed), equal_nan=True, msg=name)


@seeds
@given(any_seed, st.sampled_from([1e-3, 7.0, 1e4]))
def test_metrics_are_invariant_to_the_scale_of_the_raw_map(seed: int, scale: float) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed, 3)
    explained = pipeline.explain(model, pixels_BCHW, methods=["gradcam"], layer="features.3")
    scaled = {"gradcam": explained.maps["gradcam"] * scale}
    names = [name for name in METRICS if name not in RECOMPUTING | {"box_iou_curve"}]
    one, other = (
        pipeline.evaluate(model, pixels_BCHW, maps, metrics=names, boxes=BOXES)
        for maps in (explained, type(explained)(scaled, *_rest(explained)))
    )
    for name in names:
        torch.testing.assert_close(
            one[name]["gradcam"], other[name]["gradcam"], rtol=2e-2, atol=1e-3, equal_nan=True, msg=name
        )


def _rest(explained: pipeline.Explanations) -> tuple[object, ...]:
    return explained.degenerate, explained.evidence, explained.probe, explained.methods


DEGENERATE = {
    "pointing_game": 0.0, "energy_in_box": 0.0, "top_n_in_box": 0.0, "miou_top20": 0.0, "box_iou": 0.0,
    "complexity": 0.0, "coherency": 0.0, "adcc": 0.0, "arcc": 0.0, "total_variation": 0.0,
    "mass": 0.0, "rank": 0.0, "sparsity": None, "entropy": None, "energy_outside_centre": None, "sign": None,
    "occlusion_agreement": None,  # this model loses nothing, whatever is painted over
}  # fmt: skip
"""Values for a degenerate map, None for NaN. Metrics not listed score the fill, or rank pixels in raster order."""


def _one_part(target: int) -> Parts:
    index_HW = torch.zeros(16, 16, dtype=torch.uint8)
    index_HW[4:8, 4:8] = 1
    return Parts(index_HW, torch.ones(1, dtype=torch.float64), target)


@pytest.mark.parametrize("name", METRICS)
def test_a_degenerate_map_has_the_defined_value(name: str) -> None:
    model = StagedNet(0)
    with torch.no_grad():
        model.linear.weight.zero_()
    explained = pipeline.explain(model, images(0), methods=["gradcam"], layer="stage2")
    assert bool(explained.degenerate["gradcam"].all())
    boxes = [[[2.0, 2.0, 9.0, 9.0]]] * 3
    parts = [_one_part(target) for target in explained.targets.tolist()]
    by_method = pipeline.evaluate(model, images(0), explained, metrics=[name], boxes=boxes, parts=parts)[name]
    values_B = by_method["gradcam"]
    if name in DEGENERATE:
        expected = torch.full((3,), torch.nan if DEGENERATE[name] is None else DEGENERATE[name])
        torch.testing.assert_close(values_B, expected, equal_nan=True)
    else:
        assert bool(values_B.isfinite().all())


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"mass", "rank", "sign"}))
def test_metrics_that_need_a_box_are_nan_without_one(name: str) -> None:
    explained = pipeline.explain(ToyNet(1), images(1), methods=["gradcam"], layer="features.3")
    boxes = [[[2.0, 2.0, 9.0, 9.0]], None, []]
    found = pipeline.evaluate(explained.probe.model, images(1), explained, metrics=[name], boxes=boxes)[name]["gradcam"]
    missing_B = found.flatten(1).isnan().all(1) if found.ndim > 1 else found.isnan()
    needs_box = any(word in name for word in ("box", "pointing", "miou", "top_n"))
    assert missing_B.tolist() == [False, needs_box, needs_box]


def test_masks_may_replace_boxes() -> None:
    explained = pipeline.explain(ToyNet(1), images(1), methods=["gradcam"], layer="features.3")
    box = [[[4.0, 2.0, 9.0, 12.0]]] * 3
    mask_HW = torch.zeros(16, 16, dtype=torch.bool)
    mask_HW[2:12, 4:9] = True
    names = [name for name in METRICS if "box" in name or name in ("pointing_game", "miou_top20")]
    by_box = pipeline.evaluate(explained.probe.model, images(1), explained, metrics=names, boxes=box)
    by_mask = pipeline.evaluate(
        explained.probe.model, images(1), explained, metrics=names, masks=[mask_HW, mask_HW, None]
    )
    for name in names:
        torch.testing.assert_close(by_mask[name]["gradcam"][:2], by_box[name]["gradcam"][:2], msg=name)
        assert bool(by_mask[name]["gradcam"][2].isnan().all())
    with pytest.raises(ValueError, match="a mask has the size of the images"):
        pipeline.evaluate(explained.probe.model, images(1), explained, masks=[mask_HW[:3], None, None])
    with pytest.raises(ValueError, match="2 masks for 3 images"):
        pipeline.evaluate(explained.probe.model, images(1), explained, masks=[None, None])


def test_confidences_without_the_object_are_the_same_for_every_method() -> None:
    explained = pipeline.explain(ToyNet(1), images(1), methods=["gradcam", "scorecam"], layer="features.3")
    names = ["box_removed_confidence", "box_only_confidence"]
    found = pipeline.evaluate(explained.probe.model, images(1), explained, metrics=names, boxes=BOXES)
    for name in names:
        assert torch.equal(found[name]["gradcam"][:2], found[name]["scorecam"][:2])


def test_the_blur_of_rise_keeps_a_constant_image_except_at_its_border() -> None:
    """Its kernel sums to one and pads the image with zeros."""
    flat = baseline_pixels("rise_blur", torch.ones(1, 3, 32, 32), Probe(ToyNet(0), "features.3").normalisation)
    torch.testing.assert_close(flat[..., 5:-5, 5:-5], torch.ones(1, 3, 22, 22))
    assert float(flat[0, 0, 0, 0]) < 0.6


@pytest.mark.parametrize(
    "spec",
    [
        {"deletion": {"steps": 1}},
        {"road": {"percentiles": [0]}},
        {"road": {"percentiles": []}},
        {"average_drop": {"mask": "hard"}},
        {"infidelity": {"samples": 0}},
        {"arcc": {"sigma": -1.0}},
    ],
)
def test_wrong_parameters_are_refused(spec: object) -> None:
    with pytest.raises(ValueError, match="got"):
        build_metrics([spec])


@pytest.mark.parametrize("spec", [{"deletion_curve": {"as": "points"}}, {"deletion": {"as": "my_Curve"}}])
def test_only_names_of_curves_end_in_curve(spec: object) -> None:
    with pytest.raises(ValueError, match="a name must end in _curve if the metric is a curve, and only then"):
        build_metrics([spec])


@pytest.mark.parametrize("percent", [1e-4, 99.9999])
def test_road_never_removes_all_and_may_remove_nothing(percent: float) -> None:
    found_BM = value("road", scoring_batch(maps_of(0), model=ToyNet(0)), percentiles=[percent])
    assert bool(found_BM.isfinite().all())


def test_the_drop_is_zero_for_a_target_with_zero_confidence() -> None:
    model = ToyNet(0)
    with torch.no_grad():
        model.linear.bias[1] -= 1e4
    batch = scoring_batch(maps_of(0), model=model)
    assert batch.evidence.target_confidences_B.tolist()[1] == 0
    assert value("average_drop", batch)[1].tolist() == [0, 0]


def test_a_tolerance_larger_than_the_image_hits_every_object() -> None:
    found_BM = value("pointing_game", scoring_batch(maps_of(0), boxes=BOXES), tolerance=5000)
    assert found_BM[:2].tolist() == [[1, 1], [1, 1]]
    assert bool(found_BM[2].isnan().all())
