"""Algorithms that ask for scores of changed images, or for gradients at the pixels; the model is not touched.

Legend: B rows (image, target), C colours, (H, W) pixels, S samples.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pipeline.cams.captum.job import Job, Route, around, cells_of
from pipeline.cams.captum.scores import Scores

_ABLATIONS = 16
"""Changed versions of an image in one call; always the same number, since it is the order in which captum adds."""


def _plain(job: Job, attr: ModuleType) -> Tensor:
    options = {"abs": False} if job.algorithm == "Saliency" else {}
    method = getattr(attr, job.algorithm)(Scores(job.probe))
    maps_BCHW: Tensor = method.attribute(
        job.pixels_BCHW.clone(), additional_forward_args=(job.evidence.targets_B,), **options
    )
    return maps_BCHW


def _integrated_gradients(job: Job, attr: ModuleType) -> Tensor:
    method = attr.IntegratedGradients(Scores(job.probe))

    def one(pixels_1CHW: Tensor, target_1: Tensor, _key: str) -> Tensor:
        maps_1CHW: Tensor = method.attribute(
            pixels_1CHW.clone(),
            job.baselines(pixels_1CHW),
            additional_forward_args=(target_1,),
            n_steps=job.options["steps"],
        )
        return maps_1CHW

    return job.row_by_row(one)


def _gradient_shap(job: Job, attr: ModuleType) -> Tensor:
    method = attr.GradientShap(Scores(job.probe))

    def one(pixels_1CHW: Tensor, baseline_1CHW: Tensor, target_1: Tensor, key: str) -> Tensor:
        baselines_SCHW = around(baseline_1CHW, pixels_1CHW, job, key)
        maps_1CHW: Tensor = method.attribute(
            pixels_1CHW, baselines_SCHW, n_samples=job.options["samples"], additional_forward_args=(target_1,)
        )
        return maps_1CHW

    return job.drawn(one)


def _ablated(job: Job, attr: ModuleType) -> Tensor:
    """Run Occlusion and FeatureAblation, which draw nothing: several rows at once, so that passes are full."""
    method, colours = getattr(attr, job.algorithm)(Scores(job.probe)), job.pixels_BCHW.shape[1]
    if job.algorithm == "Occlusion":
        window, stride = ((colours, side, side) for side in (job.options["window"], job.options["stride"]))
        where: dict[str, Any] = {"sliding_window_shapes": window, "strides": stride}
    else:
        where = {"feature_mask": cells_of(job.pixels_BCHW, job.options["cells"])}
    rows, maps = max(1, job.probe.batcher.size // _ABLATIONS), list[Tensor]()
    for pixels_RCHW, targets_R in zip(
        torch.split(job.pixels_BCHW, rows), torch.split(job.evidence.targets_B, rows), strict=True
    ):
        maps += [
            method.attribute(
                pixels_RCHW.clone(),
                baselines=job.baselines(pixels_RCHW),
                additional_forward_args=(targets_R,),
                perturbations_per_eval=_ABLATIONS,
                **where,
            )
        ]
    return torch.cat(maps)


def _sampled(job: Job, attr: ModuleType) -> Tensor:
    """Run ShapleyValueSampling, Lime and KernelShap: row by row, with random numbers of the image's own."""
    scores = Scores(job.probe)

    def one(pixels_1CHW: Tensor, baseline_1CHW: Tensor, target_1: Tensor, _key: str) -> Tensor:
        maps_1CHW: Tensor = _sampler(job, attr, scores).attribute(
            pixels_1CHW,
            baselines=baseline_1CHW,
            additional_forward_args=(target_1,),
            feature_mask=cells_of(pixels_1CHW, job.options["cells"]),
            n_samples=job.options["samples"],
            perturbations_per_eval=job.probe.batcher.size,
        )
        return maps_1CHW

    return job.drawn(one)


def _sampler(job: Job, attr: ModuleType, scores: Scores) -> Any:  # noqa: ANN401 - captum is not typed
    if job.algorithm != "Lime":
        return getattr(attr, job.algorithm)(scores)
    from captum._utils.models.linear_model import SkLearnLasso

    return attr.Lime(scores, interpretable_model=SkLearnLasso(alpha=job.options["alpha"]))


ASKING: dict[str, Route] = {
    "Saliency": _plain,
    "InputXGradient": _plain,
    "IntegratedGradients": _integrated_gradients,
    "GradientShap": _gradient_shap,
    "Occlusion": _ablated,
    "FeatureAblation": _ablated,
    "ShapleyValueSampling": _sampled,
    "Lime": _sampled,
    "KernelShap": _sampled,
}
