"""Third-party comparison of further method families: other libraries agree within the stated tolerances."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from nets import GapNet, StagedNet, ToyNet, images
from oracle.test_third_party import ours, pgc, raw, torchcam

import pipeline
from pipeline.maps.heatmaps import heatmaps, min_max

SEEDS = range(4)


@pytest.fixture(autouse=True)
def _quiet_third_party() -> Iterator[None]:
    """Ignore the warnings of other libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("xgradcam", "XGradCAM"),
        ("hirescam", "HiResCAM"),
        ("layercam", "LayerCAM"),
        ("elementwise_gradcam", "GradCAMElementWise"),
        ("fem", "FEM"),
    ],
)
def test_methods_agree_with_pytorch_grad_cam(name: str, theirs: str, seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, name)
    theirs_BHW = pgc(theirs, model, model.features[3], pixels_BCHW, explanations.targets.tolist())
    torch.testing.assert_close(explanations.heatmap(name), theirs_BHW, atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_shapley_cam_agrees_with_pytorch_grad_cam(seed: int) -> None:
    """Compare with pytorch-grad-cam's default target, the logit minus the cross-entropy."""
    from pytorch_grad_cam import ShapleyCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST

    model, pixels_BCHW = StagedNet(seed, smooth=True), images(seed)
    explanations = ours(model, pixels_BCHW, "shapley_cam", "stage2")
    with ShapleyCAM(model=model, target_layers=[model.stage2]) as cam:
        targets = [ClassifierOutputReST(target) for target in explanations.targets.tolist()]
        theirs_BHW = torch.from_numpy(cam(pixels_BCHW, targets))
    torch.testing.assert_close(explanations.heatmap("shapley_cam"), theirs_BHW, atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_finer_cam_agrees_with_torch_cam_but_not_with_pytorch_grad_cam(seed: int) -> None:
    """The paper takes the mean over the compared classes. pytorch-grad-cam weights them by their probability and also
    differentiates the weights.
    """
    from pytorch_grad_cam import FinerCAM
    from torchcam.methods import FinerCAM as TorchFinerCam

    model, pixels_BCHW = ToyNet(seed, classes=6), images(seed)
    explanations = ours(model, pixels_BCHW, "finer_cam")
    with TorchFinerCam(model, "features.3", input_shape=(3, 16, 16), gamma=1.0) as extractor:
        theirs_Buv = extractor(explanations.targets.tolist(), model(pixels_BCHW))[0].detach()
    torch.testing.assert_close(min_max(raw(explanations)), theirs_Buv, atol=2e-5, rtol=0)
    cam = FinerCAM(model=model, target_layers=[model.features[3]])
    weighted_BHW = torch.from_numpy(cam(pixels_BCHW))
    cam.base_cam.activations_and_grads.release()
    assert float((explanations.heatmap("finer_cam") - weighted_BHW).abs().max()) > 0.02


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "kernel"), [("eigen_cam", None), ("kpca_cam", "sigmoid")])
def test_principal_components_agree_with_pytorch_grad_cam_up_to_sign(name: str, kernel: str | None, seed: int) -> None:
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection, get_2d_projection_kernel

    explanations = ours(ToyNet(seed), images(seed), name)
    acts = explanations.evidence.acts_BKuv.double().numpy()
    theirs_Buv = torch.from_numpy(
        get_2d_projection(acts) if kernel is None else get_2d_projection_kernel(acts, kernel, None)
    )
    for map_uv, theirs_uv in zip(raw(explanations), theirs_Buv.float(), strict=True):
        scale = float(map_uv.abs().max())
        assert min(float((map_uv - sign * theirs_uv).abs().max()) for sign in (1, -1)) <= 1e-4 * scale


@pytest.mark.parametrize("seed", SEEDS)
def test_ablation_weights_agree_with_pytorch_grad_cam(seed: int) -> None:
    """pytorch-grad-cam divides by the logit, which inverts the map if it is negative; the preset does the same."""
    model, pixels_BCHW = GapNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, {"ablation_cam": {"preset": "paper"}}, "features.1")
    theirs_BHW = pgc("AblationCAM", model, model.features[1], pixels_BCHW, explanations.targets.tolist())
    torch.testing.assert_close(explanations.heatmap("ablation_cam"), theirs_BHW, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "theirs"), [("xgradcam", "XGradCAM"), ("layercam", "LayerCAM")])
def test_methods_agree_with_torch_cam(name: str, theirs: str, seed: int) -> None:
    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, name)
    theirs_Buv = torchcam(theirs, model, "features.3", pixels_BCHW, explanations.targets.tolist())
    torch.testing.assert_close(min_max(raw(explanations)), theirs_Buv, atol=2e-5, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_hirescam_agrees_with_captum(seed: int) -> None:
    from captum.attr import LayerGradientXActivation

    model, pixels_BCHW = ToyNet(seed), images(seed)
    explanations = ours(model, pixels_BCHW, "hirescam")
    product = LayerGradientXActivation(model, model.features[3]).attribute(pixels_BCHW, target=explanations.targets)
    torch.testing.assert_close(raw(explanations), product.sum(1).relu().detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_integrated_gradients_agree_with_captum(seed: int) -> None:
    from captum.attr import IntegratedGradients

    model, pixels_BCHW = StagedNet(seed), images(seed)
    spec = {"integrated_gradients": {"steps": 12, "baseline": "mean", "grid": 16}}
    explanations = ours(model, pixels_BCHW, spec, "stage2")
    theirs_BCHW = IntegratedGradients(model).attribute(
        pixels_BCHW, target=explanations.targets, n_steps=12, method="riemann_middle"
    )
    torch.testing.assert_close(raw(explanations), theirs_BCHW.sum(1).float(), atol=1e-5, rtol=1e-4)


def test_torch_cam_omits_the_denominator_of_smooth_gradcam_pp_too() -> None:
    """Without noise Smooth Grad-CAM++ equals Grad-CAM++; in torch-cam it does not, as the denominator is omitted."""
    from torchcam.methods import SmoothGradCAMpp

    model, pixels_BCHW = ToyNet(2), images(2, 1)
    plain, smooth = pipeline.explain(
        model, pixels_BCHW, methods=["gradcam_pp", {"smooth_gradcam_pp": {"sigma": 0.0}}], layer="features.3"
    ).maps.values()
    torch.testing.assert_close(plain, smooth, atol=1e-6, rtol=1e-5)
    with SmoothGradCAMpp(model, "features.3", std=1e-9, input_shape=(3, 16, 16)) as extractor:
        logits_BN = model(pixels_BCHW)
        theirs_Buv = extractor(logits_BN.argmax(1).tolist(), logits_BN)[0].detach()
    assert float((theirs_Buv - min_max(plain)).abs().max()) > 0.02


def test_pytorch_grad_cam_may_invert_eigen_cam() -> None:
    """A singular vector has no sign: pytorch-grad-cam takes an arbitrary one, camatlas that of the largest value."""
    flipped = 0
    for seed in range(20):
        model, pixels_BCHW = ToyNet(seed), images(seed)
        explanations = ours(model, pixels_BCHW, "eigen_cam")
        theirs_BHW = pgc("EigenCAM", model, model.features[3], pixels_BCHW, explanations.targets.tolist())
        rectified_BHW = heatmaps(raw(explanations)[:, None].relu(), (16, 16))[:, 0]
        flipped += int(((theirs_BHW - rectified_BHW).abs().amax((1, 2)) > 0.1).sum())
    assert flipped > 0
