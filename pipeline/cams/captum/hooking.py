"""Algorithms that hook the modules of the model; they run on private copies of it.

Legend: B rows (image, target), P rows of a pass, C colours, (H, W) pixels, S samples.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.cams.captum.job import Job, Route, around
from pipeline.cams.captum.scores import HookedScores
from pipeline.cams.captum.table import OF_LAYER
from pipeline.model.batching import is_out_of_memory
from pipeline.model.layer_names import module_of
from pipeline.model.private_copy import operations_of

_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def _hooked(job: Job, attr: ModuleType) -> Tensor:
    """Run an algorithm that hooks modules in padded passes: neighbours do not change a row."""
    targets_B = job.evidence.targets_B

    def one_pass(rows: slice) -> Tensor:
        count, batcher = len(targets_B[rows]), job.probe.batcher
        pixels_PCHW, targets_P = batcher.pad_images(job.pixels_BCHW[rows]), batcher.pad(targets_B[rows])
        return _on_copy(job, attr, pixels_PCHW, targets_P, count)

    return torch.cat(job.probe.batcher.run(len(targets_B), one_pass))


def _on_copy(job: Job, attr: ModuleType, pixels_PCHW: Tensor, targets_P: Tensor, count: int) -> Tensor:
    """Attribute rows on a private copy, count the first `count` rows and return their attributions."""
    scores = HookedScores(job.probe, job.pixels_BCHW[:1], sharing=job.algorithm != "LRP")  # LRP writes to parameters
    layer = [scores.layer(module_of(job.evidence.layer))] if job.algorithm in OF_LAYER else []
    method, inputs_PCHW = getattr(attr, job.algorithm)(scores, *layer), pixels_PCHW.detach().clone()
    with torch.enable_grad():
        maps_PCHW: Tensor = method.attribute(
            inputs_PCHW, additional_forward_args=(targets_P,), **_arguments(job, pixels_PCHW)
        )
    job.probe.counts.forwards += scores.forwards * count // len(pixels_PCHW)
    job.probe.counts.backwards += scores.backwards * count // len(pixels_PCHW)
    if job.algorithm == "LRP" and job.probe.outputs.kind == "binary":
        maps_PCHW = maps_PCHW * (2 * targets_P - 1)[:, None, None, None]  # captum loses the sign of -z, class 0
    return maps_PCHW[:count].detach()


def _arguments(job: Job, pixels_PCHW: Tensor) -> dict[str, Any]:
    if job.algorithm == "DeepLift":
        return {"baselines": job.baselines(pixels_PCHW).clone()}
    return {}


def _deep_lift(job: Job, attr: ModuleType) -> Tensor:
    """Run DeepLift; row by row if the model pools maxima, where captum lets the first row leak into the others."""
    calls = operations_of(job.probe.model, job.probe.outputs, job.pixels_BCHW[:1]).calls
    if not any(isinstance(job.probe.model.get_submodule(name), _POOLING) for name in calls):
        return _hooked(job, attr)
    return job.row_by_row(lambda pixels_1CHW, target_1, _key: _on_copy(job, attr, pixels_1CHW, target_1, 1))


def _deep_lift_shap(job: Job, attr: ModuleType) -> Tensor:
    """Run DeepLiftShap row by row: captum compares the image with all baselines in one pass."""

    def one(pixels_1CHW: Tensor, target_1: Tensor, key: str) -> Tensor:
        scores = HookedScores(job.probe, job.pixels_BCHW[:1])
        with torch.enable_grad():
            maps_1CHW: Tensor = attr.DeepLiftShap(scores).attribute(
                pixels_1CHW.detach().clone(),
                around(job.baselines(pixels_1CHW), pixels_1CHW, job, key),
                additional_forward_args=(target_1,),
            )
        job.probe.counts.forwards += scores.forwards
        job.probe.counts.backwards += scores.backwards
        return maps_1CHW.detach()

    return job.row_by_row(one)


def _conductance(job: Job, attr: ModuleType) -> Tensor:
    """Run LayerConductance row by row: all steps in one pass, or in smaller passes if memory runs out."""

    def one(pixels_1CHW: Tensor, target_1: Tensor, _key: str) -> Tensor:
        size = job.options["steps"] + 1
        while True:
            scores = HookedScores(job.probe, job.pixels_BCHW[:1])
            method = attr.LayerConductance(scores, scores.layer(module_of(job.evidence.layer)))
            try:
                with torch.enable_grad():
                    maps_1: Tensor = method.attribute(
                        pixels_1CHW.detach().clone(),
                        job.baselines(pixels_1CHW).clone(),
                        additional_forward_args=(target_1,),
                        n_steps=job.options["steps"],
                        internal_batch_size=None if size > job.options["steps"] else size,
                    )
            except RuntimeError as error:
                if not is_out_of_memory(error) or size <= 2:  # a step is the difference of two points
                    raise
                size //= 2
            else:
                job.probe.counts.forwards += scores.forwards
                job.probe.counts.backwards += scores.backwards
                return maps_1.detach()

    return job.row_by_row(one)


HOOKING: dict[str, Route] = {
    "GuidedBackprop": _hooked,
    "Deconvolution": _hooked,
    "GuidedGradCam": _hooked,
    "DeepLift": _deep_lift,
    "DeepLiftShap": _deep_lift_shap,
    "LRP": _hooked,
    "LayerConductance": _conductance,
}
