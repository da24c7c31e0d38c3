"""Third-party comparison of methods: other libraries agree within the stated tolerances."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from nets import GapNet, ToyNet, images
from torch import Tensor, nn

import pipeline

SEEDS = range(4)


@pytest.fixture(autouse=True)
def _quiet_third_party() -> Iterator[None]:
    """Ignore the warnings of other libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def ours(model: nn.Module, pixels_BCHW: Tensor, spec: object, layer: str = "features.3") -> pipeline.Explanations:
    return pipeline.explain(model, pixels_BCHW, methods=[spec], layer=layer)


def raw(explanations: pipeline.Explanations) -> Tensor:
    return next(iter(explanations.maps.values()))


def pgc(kind: str, model: nn.Module, layer: nn.Module, pixels_BCHW: Tensor, targets: list[int]) -> Tensor:
    """Compute heat maps at input size with pytorch-grad-cam."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, kind)(model=model, target_layers=[layer]) as cam:
        cam.batch_size = 16
        return torch.from_numpy(np.asarray(cam(pixels_BCHW, [ClassifierOutputTarget(t) for t in targets])))


def torchcam(kind: str, model: nn.Module, layer: str, pixels_BCHW: Tensor, targets: list[int]) -> Tensor:
    """Compute normalised maps at grid size with torch-cam."""
    from torchcam import methods

    with getattr(methods, kind)(model, layer, input_shape=(3, 16, 16)) as extractor:
        logits_BN = model(pixels_BCHW)
        return extractor(targets, logits_BN)[0].detach()


@pytest.mark.parametrize("seed", SEEDS)
def test_gradcam_agrees_with_captum(seed: int) -> None:
    from captum.attr import LayerGradCam

    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, "gradcam")
    signed_B1uv = LayerGradCam(model, model.features[3]).attribute(pixels_BCHW, target=explanations.targets)
    torch.testing.assert_close(raw(explanations), signed_B1uv[:, 0].relu().detach(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradcam_agrees_with_pytorch_grad_cam(seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, "gradcam")
    theirs_BHW = pgc("GradCAM", model, model.features[3], pixels_BCHW, explanations.targets.tolist())
    torch.testing.assert_close(explanations.heatmap("gradcam"), theirs_BHW, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradcam_pp_agrees_with_pytorch_grad_cam_where_gradients_are_large(seed: int) -> None:
    """Their code adds 1e-6 to a denominator of the order of g^2, which is negligible for gradients of order 1."""
    model, pixels_BCHW = GapNet(seed), images(seed)
    with torch.no_grad():
        model.linear.weight *= 300
    explanations = ours(model, pixels_BCHW, "gradcam_pp", "features.1")
    theirs_BHW = pgc("GradCAMPlusPlus", model, model.features[1], pixels_BCHW, explanations.targets.tolist())
    torch.testing.assert_close(explanations.heatmap("gradcam_pp"), theirs_BHW, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_scorecam_agrees_with_pytorch_grad_cam(seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, {"scorecam": {"preset": "pytorch_grad_cam"}})
    theirs_BHW = pgc("ScoreCAM", model, model.features[3], pixels_BCHW, explanations.targets.tolist())
    torch.testing.assert_close(explanations.heatmap("scorecam"), theirs_BHW, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_scorecam_agrees_with_torch_cam(seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, {"scorecam": {"preset": "torchcam"}})
    theirs_Buv = torchcam("ScoreCAM", model, "features.3", pixels_BCHW, explanations.targets.tolist())
    ours_Buv = explanations.heatmap("scorecam", tuple(theirs_Buv.shape[1:]))
    torch.testing.assert_close(ours_Buv, theirs_Buv, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradcam_agrees_with_torch_cam(seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, "gradcam")
    theirs_Buv = torchcam("GradCAM", model, "features.3", pixels_BCHW, explanations.targets.tolist())
    ours_Buv = explanations.heatmap("gradcam", tuple(theirs_Buv.shape[1:]))
    torch.testing.assert_close(ours_Buv, theirs_Buv, atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_iscam_agrees_with_torch_cam(seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, {"iscam": {"preset": "torchcam", "num_steps": 10}})
    theirs_Buv = torchcam("ISCAM", model, "features.3", pixels_BCHW, explanations.targets.tolist())
    ours_Buv = explanations.heatmap("iscam", tuple(theirs_Buv.shape[1:]))
    torch.testing.assert_close(ours_Buv, theirs_Buv, atol=1e-5, rtol=0)


def test_torch_cam_still_omits_the_denominator_of_gradcam_pp() -> None:
    """A known error of torch-cam since 2020; this test fails once it is fixed there."""
    model, pixels_BCHW = ToyNet(1), images(1)
    explanations = ours(model, pixels_BCHW, "gradcam_pp")
    theirs_Buv = torchcam("GradCAMpp", model, "features.3", pixels_BCHW, explanations.targets.tolist())
    ours_Buv = explanations.heatmap("gradcam_pp", tuple(theirs_Buv.shape[1:]))
    assert float((ours_Buv - theirs_Buv).abs().max()) > 0.01


def test_average_drop_agrees_with_torch_cam() -> None:
    """Compare at a layer as large as the image: torch-cam does not rescale the map to [0, 1] after upsampling it."""
    from torchcam import methods
    from torchcam.metrics import ClassificationMetric

    model, pixels_BCHW = ToyNet(2, stride=1), images(2, count=6)
    explanations = ours(model, pixels_BCHW, "gradcam")
    with methods.GradCAM(model, "features.3", input_shape=(3, 16, 16)) as extractor:
        metric = ClassificationMetric(extractor, lambda logits_BN: logits_BN.softmax(1))
        metric.update(pixels_BCHW, explanations.targets.tolist())
        theirs = metric.summary()
    values = pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop", "increase"])
    assert float(values["average_drop"]["gradcam"].mean()) == pytest.approx(theirs["avg_drop"], abs=1e-5)
    assert float(values["increase"]["gradcam"].mean()) == pytest.approx(theirs["conf_increase"], abs=1e-6)
