"""Speed as ratios, measured side by side in one run: ours and the peers' against the plain model.

A machine's speed drifts, so that only ratios mean something: every case is timed in turn, round by round, beside the
plain forward pass of the same images, and the median over rounds is told.
"""

import contextlib
import io
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.heatmaps import upsample
from pipeline.metrics.imputation import imputed
from pipeline.model.layers import resolve_layer
from pipeline.notebook import explain

PEERS = ("pytorch-grad-cam", "torchcam", "captum")


@dataclass(frozen=True)
class Case:
    """Something to time: what it does to how many images, and how many forward passes that needs at least."""

    name: str
    by: str
    work: Callable[[], object]
    images: int
    forwards: int


@dataclass(frozen=True)
class Timing:
    """What a case took.

    Attributes:
        seconds: median time of one round.
        images_per_second: of the case.
        forwards_each: time of one image in plain forward passes of one image.
        efficiency: plain time of the forwards it needs, as a share of its own time; 1 is the model's peak.
    """

    case: Case
    seconds: float
    plain_seconds_an_image: float

    @property
    def images_per_second(self) -> float:
        """Images a second."""
        return self.case.images / self.seconds

    @property
    def forwards_each(self) -> float:
        """Time of one image, in plain forward passes."""
        return self.seconds / self.case.images / self.plain_seconds_an_image

    @property
    def efficiency(self) -> float:
        """Forward passes a second, as a share of the plain model's."""
        return self.case.forwards * self.plain_seconds_an_image / self.seconds


def time_cases(cases: Iterable[Case], rounds: int, tell: Callable[[str], None] = lambda _: None) -> list[Timing]:
    """Time cases in turn; the first one is the plain model, the measure of all others; `tell` hears of the progress."""
    listed = list(cases)
    for case in listed:
        tell(f"warming up {case.name} ({case.by})")
        case.work()  # warm caches and kernels
    taken: list[list[float]] = [[] for _ in listed]
    for turn in range(rounds):
        tell(f"round {turn + 1} of {rounds}")
        for seconds, case in zip(taken, listed, strict=True):
            began = time.perf_counter()
            case.work()
            _wait()
            seconds.append(time.perf_counter() - began)
    medians = [statistics.median(seconds) for seconds in taken]
    plain = medians[0] / listed[0].images
    return [Timing(case, seconds, plain) for case, seconds in zip(listed, medians, strict=True)]


def make_cases(model: nn.Module, layer: str, pixels_BCHW: Tensor, peers: Iterable[str]) -> list[Case]:
    """Make the cases: the plain model, our methods on it, and the same methods by the peers that are asked for."""
    count, one = len(pixels_BCHW), pixels_BCHW[:1]
    name, module = resolve_layer(model, layer)

    def ours(methods: list[Any], images: Tensor) -> Callable[[], object]:
        return lambda: explain(model, images, methods=methods, layer=name, batch=count)

    counted = explain(model, one, methods=["scorecam"], layer=name, batch=count).counts.forwards
    cases = [
        Case("forward pass", "plain model", lambda: _forward(model, pixels_BCHW), count, count),
        Case("gradcam", "camatlas", ours(["gradcam"], pixels_BCHW), count, count),
        Case("gradcam + gradcam_pp", "camatlas", ours(["gradcam", "gradcam_pp"], pixels_BCHW), count, count),
        Case("scorecam", "camatlas", ours(["scorecam"], one), 1, counted),
    ]
    cases += [
        Case(f"ROAD, {share:.0%} guessed", "camatlas", partial(imputed, pixels_BCHW, missing), count, 0)
        for share, missing in _missing(pixels_BCHW)
    ]
    channels = explain(model, one, methods=[], layer=name).evidence.acts_BKuv.shape[1]
    for peer in peers:
        cases.extend(_PEER_CASES[peer](model, name, module, pixels_BCHW, channels))
    return cases


def _missing(pixels_BCHW: Tensor) -> list[tuple[float, Tensor]]:
    """Pixels (B, H, W) that ROAD removes by smooth maps, at several shares of the image."""
    cells = torch.rand(len(pixels_BCHW), 1, 7, 7, generator=torch.Generator().manual_seed(0)).to(pixels_BCHW)
    maps_BHW = upsample(cells, (pixels_BCHW.shape[2], pixels_BCHW.shape[3]))[:, 0]
    ordered_BP = maps_BHW.flatten(1).sort(dim=1, descending=True).values
    shares = [0.2, 0.5, 0.8]
    return [(share, maps_BHW > ordered_BP[:, round(share * ordered_BP.shape[1]), None, None]) for share in shares]


def _forward(model: nn.Module, pixels_BCHW: Tensor) -> Tensor:
    with torch.no_grad():
        logits_BN: Tensor = model(pixels_BCHW)
        return logits_BN


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _pytorch_grad_cam(
    model: nn.Module, _name: str, module: nn.Module, pixels_BCHW: Tensor, channels: int
) -> list[Case]:
    import pytorch_grad_cam
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    def run(kind: str, images: Tensor) -> Callable[[], object]:
        def work() -> object:
            quiet = contextlib.redirect_stderr(io.StringIO())  # its progress bar
            with quiet, getattr(pytorch_grad_cam, kind)(model=model, target_layers=[module]) as cam:
                cam.batch_size = len(pixels_BCHW)
                return cam(images, None)

        return work

    def guess(missing_BHW: Tensor) -> Callable[[], object]:
        kept = (~missing_BHW).float().cpu()
        solve = NoisyLinearImputer(noise=0.0)
        return lambda: [solve(image, keep) for image, keep in zip(pixels_BCHW.cpu(), kept, strict=True)]

    count, peer = len(pixels_BCHW), "pytorch-grad-cam"
    return [
        Case("gradcam", peer, run("GradCAM", pixels_BCHW), count, count),
        Case("scorecam", peer, run("ScoreCAM", pixels_BCHW[:1]), 1, channels + 1),
        *(Case(f"ROAD, {share:.0%} guessed", peer, guess(kept), count, 0) for share, kept in _missing(pixels_BCHW)),
    ]


def _torchcam(model: nn.Module, name: str, _module: nn.Module, pixels_BCHW: Tensor, channels: int) -> list[Case]:
    from torchcam import methods

    def run(kind: str, images: Tensor, **options: int) -> Callable[[], object]:
        def work() -> object:
            with getattr(methods, kind)(model, name, input_shape=tuple(images.shape[1:]), **options) as extractor:
                logits_BN = model(images)
                return extractor(logits_BN.argmax(1).tolist(), logits_BN)

        return work

    count = len(pixels_BCHW)
    return [
        Case("gradcam", "torchcam", run("GradCAM", pixels_BCHW), count, count),
        Case("scorecam", "torchcam", run("ScoreCAM", pixels_BCHW[:1], batch_size=count), 1, channels + 1),
    ]


def _captum(model: nn.Module, _name: str, module: nn.Module, pixels_BCHW: Tensor, _channels: int) -> list[Case]:
    from captum.attr import LayerGradCam

    def work() -> object:
        targets = _forward(model, pixels_BCHW).argmax(1)
        return LayerGradCam(model, module).attribute(pixels_BCHW, target=targets)

    return [Case("gradcam", "captum", work, len(pixels_BCHW), len(pixels_BCHW))]


_PEER_CASES: dict[str, Callable[[nn.Module, str, nn.Module, Tensor, int], list[Case]]] = {
    "pytorch-grad-cam": _pytorch_grad_cam,
    "torchcam": _torchcam,
    "captum": _captum,
}
