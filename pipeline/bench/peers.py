"""Cases of the peer libraries: the same images, layer and predicted classes as ours, at their defaults.

Legend: B images, C colours, (H, W) pixels, N classes.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.bench.ours import missing_pixels
from pipeline.bench.timing import BenchCase

_GRADIENT_METHODS = (
    "GradCAM", "GradCAMPlusPlus", "XGradCAM", "HiResCAM", "LayerCAM", "GradCAMElementWise", "EigenGradCAM",
    "ShapleyCAM",
)  # fmt: skip


def peer_cases(peer: str, model: nn.Module, layer: str, pixels_BCHW: Tensor) -> list[BenchCase]:
    """Make the cases of one peer library.

    Raises:
        ImportError: the library is not installed.
    """
    return _PEERS[peer](model, layer, pixels_BCHW)


def _pytorch_grad_cam(model: nn.Module, layer: str, pixels_BCHW: Tensor) -> list[BenchCase]:
    import pytorch_grad_cam
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    module = model.get_submodule(layer)

    def run(kind: str, images_BCHW: Tensor) -> object:
        quiet = contextlib.redirect_stderr(io.StringIO())  # its progress bar
        with quiet, getattr(pytorch_grad_cam, kind)(model=model, target_layers=[module]) as cam:
            return cam(images_BCHW, None)

    def impute(missing_BHW: Tensor) -> Callable[[], object]:
        kept = (~missing_BHW).float().cpu()
        solve = NoisyLinearImputer(noise=0.0)
        return lambda: [solve(image, keep) for image, keep in zip(pixels_BCHW.cpu(), kept, strict=True)]

    count, peer, one = len(pixels_BCHW), "pytorch-grad-cam", pixels_BCHW[:1]
    return [
        BenchCase("gradcam", peer, lambda: run("GradCAM", pixels_BCHW), count, count),
        BenchCase(
            "eight gradient methods",
            peer,
            lambda: [run(kind, pixels_BCHW) for kind in _GRADIENT_METHODS],
            count,
            8 * count,
        ),
        BenchCase("scorecam", peer, lambda: run("ScoreCAM", one), 1, _channels(model, layer, one) + 1),
        *(
            BenchCase(f"ROAD, {share:.0%} guessed", peer, impute(missing), count, 0)
            for share, missing in missing_pixels(pixels_BCHW)
        ),
    ]


def _torchcam(model: nn.Module, layer: str, pixels_BCHW: Tensor) -> list[BenchCase]:
    from torchcam import methods

    def run(kind: str, images_BCHW: Tensor) -> object:
        with getattr(methods, kind)(model, layer, input_shape=tuple(images_BCHW.shape[1:])) as extractor:
            logits_BN = model(images_BCHW)
            return extractor(logits_BN.argmax(1).tolist(), logits_BN)

    count, one = len(pixels_BCHW), pixels_BCHW[:1]
    return [
        BenchCase("gradcam", "torchcam", lambda: run("GradCAM", pixels_BCHW), count, count),
        BenchCase("scorecam", "torchcam", lambda: run("ScoreCAM", one), 1, _channels(model, layer, one) + 1),
    ]


def _captum(model: nn.Module, layer: str, pixels_BCHW: Tensor) -> list[BenchCase]:
    from captum.attr import LayerGradCam

    def work() -> object:
        with torch.no_grad():
            targets_B = model(pixels_BCHW).argmax(1)
        return LayerGradCam(model, model.get_submodule(layer)).attribute(pixels_BCHW, target=targets_B)

    return [BenchCase("gradcam", "captum", work, len(pixels_BCHW), len(pixels_BCHW))]


def _channels(model: nn.Module, layer: str, pixels_BCHW: Tensor) -> int:
    """Count the channels of a layer, each of which is a pass of exact Score-CAM."""
    channels = list[int]()

    def keep(_module: object, _inputs: object, output: Any) -> None:  # noqa: ANN401 - the output of any module
        channels.append(output.shape[1])

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.no_grad():
            model(pixels_BCHW)
    finally:
        handle.remove()
    return channels[0]


_PEERS: dict[str, Callable[[nn.Module, str, Tensor], list[BenchCase]]] = {
    "pytorch-grad-cam": _pytorch_grad_cam,
    "torchcam": _torchcam,
    "captum": _captum,
}
PEERS = tuple(_PEERS)
