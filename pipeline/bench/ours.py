"""Our own cases: the plain model, the engine's forward pass, and methods on the engine as in a worker.

Legend: B images, C colours, (H, W) pixels.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.bench.timing import OURS, BenchCase
from pipeline.cams import CamMethod, NetShape
from pipeline.explain.explanations import explain_evidence, observe
from pipeline.maps.heatmaps import upsample
from pipeline.metrics.imputation import imputed
from pipeline.model.arithmetic import multiplying
from pipeline.model.baselines import Normalisation
from pipeline.model.batching import Batcher
from pipeline.model.counts import Counts
from pipeline.model.engine import Engine, fast_copy
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe
from pipeline.model.scorer import Scorer
from pipeline.settings.precision import Precision

GRADIENT_METHODS = (
    "gradcam", "gradcam_pp", "xgradcam", "hirescam", "layercam", "elementwise_gradcam", "eigen_gradcam", "shapley_cam",
)  # fmt: skip
"""Gradient methods that share one pass; peers run them one after the other."""


def engine_name(precision: Precision, *, compiled: bool) -> str:
    """Return the name of an engine, as `BenchCase` uses it."""
    return f"{OURS} {precision} compiled" if compiled else f"{OURS} {precision}"


def forward_cases(
    model: nn.Module, pixels_BCHW: Tensor, precision: Precision = "fp32", *, compiled: bool = False
) -> list[BenchCase]:
    """Make cases of the plain model's forward pass and the engine's: in fp32, bf16 and `precision`, also compiled."""
    count = len(pixels_BCHW)
    kinds: dict[tuple[Precision, bool], None] = dict.fromkeys(
        [("fp32", False), ("bf16", False), (precision, False), (precision, compiled)]
    )
    cases = [BenchCase("forward pass", "plain model", partial(_plain, model, pixels_BCHW), count, count)]
    for name, is_compiled in kinds:
        by = engine_name(name, compiled=is_compiled)
        work = partial(_masked, Engine(model, name, (), compiled=is_compiled), pixels_BCHW, name)
        cases.append(BenchCase("forward pass", by, work, count, count, engine=by))
    return cases


def method_case(
    probe: Probe, name: str, methods: Mapping[str, CamMethod], pixels_BCHW: Tensor, shape: NetShape, engine: str
) -> BenchCase:
    """Make the case of methods that run together; `forwards` is the upper bound that their costs give."""

    def work() -> None:
        explain_evidence(observe(pixels_BCHW, methods, probe).evidence(), methods, probe)

    most = 1 + sum(method.cost(shape).forwards for method in methods.values())
    return BenchCase(name, OURS, work, len(pixels_BCHW), most * len(pixels_BCHW), probe.counts, engine)


def first_step_cases(model: nn.Module, pixels_BCHW: Tensor) -> list[BenchCase]:
    """Make the case of a masked pass before its second layer: make masks, apply them, run the first convolution.

    A shortcut through the linearity of the first layer could save at most a part of this. Empty without a convolution.
    """
    count = len(pixels_BCHW)
    first = next((module for module in fast_copy(model, "fp32", ()).modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return []
    scorer = Scorer(lambda masked_PCHW: first(masked_PCHW)[:, :, 0, 0], Counts(), Normalisation(), Batcher(count))
    grids_1Muv = torch.rand(1, count, 7, 7, generator=torch.Generator().manual_seed(0)).to(pixels_BCHW)
    masks = MaskStream(grids_1Muv, MaskLook("upsample_first"))
    target_1 = torch.zeros(1, dtype=torch.long, device=pixels_BCHW.device)
    return [
        BenchCase(
            "masks and first layer, fp32", OURS, lambda: scorer.scores(pixels_BCHW[:1], masks, target_1), count, 0
        )
    ]


def road_cases(pixels_BCHW: Tensor) -> list[BenchCase]:
    """Make the cases of ROAD's imputation at several shares of the image; no model runs."""
    return [
        BenchCase(f"ROAD, {share:.0%} guessed", OURS, partial(imputed, pixels_BCHW, missing), len(pixels_BCHW), 0)
        for share, missing in missing_pixels(pixels_BCHW)
    ]


def missing_pixels(pixels_BCHW: Tensor) -> list[tuple[float, Tensor]]:
    """Choose pixels (B, H, W) that ROAD would remove, by smooth random maps, at several shares of the image."""
    cells = torch.rand(len(pixels_BCHW), 1, 7, 7, generator=torch.Generator().manual_seed(0)).to(pixels_BCHW)
    maps_BHW = upsample(cells, (pixels_BCHW.shape[2], pixels_BCHW.shape[3]))[:, 0]
    ordered_BP = maps_BHW.flatten(1).sort(dim=1, descending=True).values
    shares = [0.2, 0.5, 0.8]
    return [(share, maps_BHW > ordered_BP[:, round(share * ordered_BP.shape[1]), None, None]) for share in shares]


@torch.no_grad()
def _masked(engine: Engine, pixels_BCHW: Tensor, precision: Precision) -> Tensor:
    with multiplying(precision):
        return engine.masked(pixels_BCHW)


@torch.no_grad()
def _plain(model: nn.Module, pixels_BCHW: Tensor) -> Tensor:
    logits_BN: Tensor = model(pixels_BCHW)
    return logits_BN
