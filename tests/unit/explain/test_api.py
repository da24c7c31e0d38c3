"""`explain` and `evaluate` refuse wrong arguments with one sentence instead of guessing."""

import pytest
import torch
from nets import GapNet, StagedNet, ToyNet, images
from quick import OF_ATTENTION, SPECS
from torch import nn

import pipeline
from pipeline.cams import METHODS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": "predicted"}, "targets must be class indices"),
        ({"targets": {"top": 2}}, "targets must be class indices"),
        ({"targets": [1.0, 2.0]}, "targets must be class indices, not torch.float32"),
        ({"targets": [True, False]}, "targets must be class indices, not torch.bool"),
        ({"targets": [1, 9]}, "targets must be class indices from 0 to 3"),
        ({"targets": [1]}, r"2 images need targets of shape \(2,\) or \(2, T\), not \(1,\)"),
        ({"keys": ["a"]}, "2 images need 2 keys, not 1"),
        ({"keys": ["a", "b", "c"]}, "2 images need 2 keys, not 3"),
        ({"batch": 0}, "batch and batch_multiple must be at least 1, not 0"),
        ({"precision": "fp16"}, "precision: must be one of fp32, tf32, bf16"),
        ({"mean": (0.5,)}, "mean and std must have 3 numbers each"),
        ({"std": (1.0, 1.0, 0.0)}, "mean and std must have 3 numbers each"),
        ({"layer": None}, "a layer must be a name or a module"),
        ({"methods": "gradcam"}, "is not a list"),
        ({"methods": [{"finer_cam": {"gamma": float("inf")}}]}, "gamma: Input should be a finite number"),
        ({"methods": [{"integrated_gradcam": {"steps": True}}]}, "steps: Input should be a valid integer"),
        ({"methods": [{"increment_cam": {"phase2_size": [0, 4]}}]}, "greater than or equal to 1"),
        ({"methods": [{"increment_cam": {"phase2_size": 2.5}}]}, r"'input' or 'grid' or .*, got 2.5"),
        ({"methods": [{"integrative_cam": {"f": "softmax", "top_classes": 1}}]}, "greater than or equal to 2"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pipeline.explain(ToyNet(0), images(0, 2), **({"layer": "features.3"} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("stages", [["stage2", "stage1"], ["stage1"], ["head", "stage2"], ["nope", "stage2"]])
def test_stages_out_of_order_are_refused(stages: list[str]) -> None:
    with pytest.raises(ValueError, match=r"stages|no layer"):
        pipeline.explain(StagedNet(0), images(0, 2), methods=["refine_cam"], layer="stage2", stages=stages)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[[1.0, 2.0, 3.0]], None], "rows of four finite numbers"),
        ([[[1.0, 2.0, float("nan"), 4.0]], None], "rows of four finite numbers"),
        ([[[9.0, 9.0, 3.0, 10.0]], None], "x0 <= x1"),
    ],
)
def test_malformed_boxes_are_refused(boxes: list[object], words: str) -> None:
    model, pixels_BCHW = ToyNet(0), images(0, 2)
    explained = pipeline.explain(model, pixels_BCHW, layer="features.3")
    with pytest.raises(ValueError, match=words):
        pipeline.evaluate(model, pixels_BCHW, explained, metrics=["energy_in_box"], boxes=boxes)  # type: ignore[arg-type]


def test_a_box_outside_the_image_is_ignored() -> None:
    model, pixels_BCHW = ToyNet(0), images(0, 2)
    explained = pipeline.explain(model, pixels_BCHW, layer="features.3")
    boxes = [[[500.0, 500.0, 600.0, 600.0]], [[0.0, 0.0, 99.0, 99.0]]]
    energy_B = pipeline.evaluate(model, pixels_BCHW, explained, metrics=["energy_in_box"], boxes=boxes)["energy_in_box"]
    assert energy_B["gradcam"].isnan().tolist() == [True, False]


@pytest.mark.parametrize("preset", [{}, {"preset": "first_reading"}])
@pytest.mark.parametrize("shift", [720.0, -800.0])
def test_integrative_cam_copes_with_large_logits(shift: float, preset: dict[str, object]) -> None:
    model = StagedNet(1)
    with torch.no_grad():
        model.linear.bias += shift
    explained = pipeline.explain(
        model, images(1, 2), methods=[{"integrative_cam": preset}], layer="stage2", stages=StagedNet.STAGES
    )
    assert bool(explained.maps["integrative_cam"].isfinite().all())


@pytest.mark.parametrize("maps", ["mixed", "elementwise", "channels"])
def test_every_linear_function_gives_the_same_integrative_cam_as_the_identity(maps: str) -> None:
    options = {"layer": "stage2", "stages": StagedNet.STAGES}
    specs = [
        {"integrative_cam": {"f": "identity", "bias": "none", "maps": maps}},
        METHODS["integrative_cam"](f=lambda s: 3 * s, bias="none", maps=maps),
    ]
    one, other = (
        next(iter(pipeline.explain(StagedNet(1), images(1, 2), methods=[spec], **options).maps.values()))  # type: ignore[arg-type]
        for spec in specs
    )
    torch.testing.assert_close(one, other)
    assert float(one.max()) > 0


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize(("model", "stages"), [(StagedNet(0), StagedNet.STAGES), (GapNet(0), ("features.1",))])
def test_an_image_that_is_not_finite_is_flagged_and_does_not_affect_the_others(
    model: nn.Module, stages: tuple[str, ...], broken: float
) -> None:
    pixels_BCHW = images(0, 3)
    pixels_BCHW[1, 0, 3, 4] = broken
    left_out = set(OF_ATTENTION) if isinstance(model, GapNet) else {"cam", *OF_ATTENTION}
    specs = [spec for name, spec in SPECS.items() if name not in left_out]
    options = {"methods": specs, "layer": stages[-1], "stages": stages, "batch": 1}
    explained = pipeline.explain(model, pixels_BCHW, targets=[0, 1, 2], **options)  # type: ignore[arg-type]
    others = pipeline.explain(model, pixels_BCHW[::2], targets=[0, 2], **options)  # type: ignore[arg-type]
    for label, maps_Buv in explained.maps.items():
        assert torch.equal(maps_Buv[::2], others.maps[label]), label
        assert torch.equal(explained.degenerate[label][::2], others.degenerate[label]), label
        assert not maps_Buv[1].any(), label
        assert bool(explained.degenerate[label][1]), label
    drop = pipeline.evaluate(model, pixels_BCHW, explained, metrics=["average_drop"])["average_drop"]
    assert all(drop_B.isfinite().tolist() == [True, False, True] for drop_B in drop.values())


def test_when_no_image_is_finite_all_maps_are_flagged() -> None:
    explained = pipeline.explain(
        ToyNet(0), torch.full((2, 3, 16, 16), torch.nan), methods=["gradcam", "eigen_cam"], layer="features.3"
    )
    assert all(flags_B.tolist() == [True, True] for flags_B in explained.degenerate.values())
    assert explained.heatmap("eigen_cam").tolist() == torch.zeros(2, 16, 16).tolist()


@pytest.mark.parametrize("name", ["integrated_gradcam", "rsi_gradcam", "integrated_gradients"])
def test_a_baseline_can_be_a_tensor(name: str) -> None:
    def of(baseline: object) -> torch.Tensor:
        method = METHODS[name](steps=4, baseline=baseline)
        return pipeline.explain(ToyNet(0), images(0, 2), methods=[method], layer="features.3").maps[name]

    grey = of("mean")
    assert torch.equal(of(torch.zeros(3, 1, 1)), grey)
    assert torch.equal(of(torch.zeros(1, 3, 16, 16)), grey)
    assert not torch.equal(of(torch.ones(3, 16, 16)), grey)
    with pytest.raises(ValueError, match=r"the tensor .* does not fit images"):
        of(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"the tensor \(2, 3, 16, 16\) does not fit"):
        of(torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="NaN or infinity"):
        of(torch.full((3, 1, 1), torch.nan))


def test_a_layer_of_one_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="outputs a grid of one cell for images of 2 x 2"):
        pipeline.explain(ToyNet(0), torch.zeros(1, 3, 2, 2), layer="features.3")


def test_a_model_of_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameters are torch.float64, not torch.float32; call model.float\(\)"):
        pipeline.explain(ToyNet(0).double(), images(0), layer="features.3")


def test_curves_have_their_length_even_if_nothing_can_be_measured() -> None:
    pixels_BCHW = torch.full((2, 3, 16, 16), torch.nan)
    model = ToyNet(0)
    explained = pipeline.explain(model, pixels_BCHW, layer="features.3")
    names = ["average_drop", "deletion_curve", "insertion_curve", "box_iou_curve"]
    found = pipeline.evaluate(model, pixels_BCHW, explained, metrics=names)
    assert [tuple(found[name]["gradcam"].shape) for name in names] == [(2,), (2, 21), (2, 21), (2, 256)]
    assert all(bool(by["gradcam"].isnan().all()) for by in found.values())


@pytest.mark.parametrize(
    ("boxes", "words"),
    [([["a", "b"], None], "rows of four finite numbers"), ([[[1, 2, 3, 4], [1, 2, 3]], None], "rows of four")],
)
def test_boxes_and_masks_of_a_wrong_type_are_refused(boxes: list[object], words: str) -> None:
    model, pixels_BCHW = ToyNet(0), images(0, 2)
    explained = pipeline.explain(model, pixels_BCHW, layer="features.3")
    with pytest.raises(ValueError, match=words):
        pipeline.evaluate(model, pixels_BCHW, explained, metrics=["energy_in_box"], boxes=boxes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a mask must be a bool tensor \(H, W\), not torch.float32"):
        pipeline.evaluate(model, pixels_BCHW, explained, masks=[torch.full((16, 16), 0.3), None])


def test_evaluate_runs_the_model_with_its_current_weights() -> None:
    model, pixels_BCHW = ToyNet(0), images(0)
    explanations = pipeline.explain(model, pixels_BCHW, layer="features.3")
    pipeline.evaluate(model, pixels_BCHW, explanations)
    with torch.no_grad():
        model.features[0].weight.mul_(0.5)
        model.linear.weight.mul_(2)
    found = pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop"])["average_drop"]["gradcam"]
    with torch.no_grad():
        masked_BC = model(pixels_BCHW * explanations.heatmap("gradcam")[:, None]).softmax(1)
    masked_B = masked_BC.gather(1, explanations.targets[:, None])[:, 0]
    clean_B = explanations.evidence.target_confidences_B
    torch.testing.assert_close(found, (clean_B - masked_B).relu() / clean_B, rtol=1e-4, atol=1e-5)
