"""What an algorithm of captum needs of a model: said in a sentence before the work, because captum itself says nothing.

captum hooks modules. What a model computes by functions is passed over, and modules that captum has no rule for are
differentiated as if they were linear.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.cams.captum.job import Job
from pipeline.cams.captum.table import OF_CELLS, OF_LAYER
from pipeline.model.layer_names import LayerName
from pipeline.model.operations import MOVING, Function, Operations, linear_in_image
from pipeline.model.private_copy import operations_of

_GUIDED = ("GuidedBackprop", "Deconvolution", "GuidedGradCam")
_DEEP = ("DeepLift", "DeepLiftShap")
_RECTIFIERS = ("relu", "relu_", "relu6", "threshold", "threshold_")
_MOVING_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout2d, nn.PixelShuffle)
_LINEAR_MODULES = (
    *_MOVING_MODULES, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.BatchNorm3d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d,
    nn.Upsample,
)  # fmt: skip
_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_RESCALED = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax, *_POOLING)
_WITH_RULE = (
    nn.ReLU, nn.Dropout, nn.Tanh, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Conv2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.Linear, nn.BatchNorm2d,
)  # fmt: skip
_TOLERANCE = 0.01
"""Largest part of the change of the logit by which DeepLift's attributions may miss it."""


def problem_of(job: Job) -> str:
    """Say why a model, its layer or its images do not suit an algorithm; "" if nothing speaks against it."""
    return next(_problems(job), "")


def _problems(job: Job) -> Iterator[str]:
    yield from _of_size(job.algorithm, job.options, min(job.pixels_BCHW.shape[-2:]))
    if job.algorithm in OF_LAYER:
        yield from _of_layer(job)
    if job.algorithm in (*_DEEP, "LRP") and job.probe.outputs.kind == "probabilities":
        yield "the logits are logarithms of the model's probabilities, for which captum has no rule"
    if job.algorithm in (*_GUIDED, *_DEEP, "LRP"):
        done = operations_of(job.probe.model, job.probe.outputs, job.pixels_BCHW[:1])
        ran = {name: job.probe.model.get_submodule(name) for name, times in done.calls.items() if times}
        yield from _of_operations(job.algorithm, done, ran)


def _of_size(algorithm: str, options: Mapping[str, Any], side: int) -> Iterator[str]:
    if algorithm in OF_CELLS and options["cells"] > side:
        yield f"{options['cells']} cells along each side do not fit images of {side} pixels"
    if algorithm == "Occlusion" and options["window"] > side:
        yield f"a window of {options['window']} pixels does not fit images of {side} pixels; set window and stride"
    if algorithm == "Occlusion" and options["stride"] > options["window"]:
        yield "a stride larger than the window leaves pixels between the windows unexplained"


def _of_layer(job: Job) -> Iterator[str]:
    name, raw = LayerName.parse(job.evidence.layer), job.evidence.raw
    if name.call is not None or name.is_input:
        yield f"it needs the output of a module that runs once, which the layer '{name}' is not"
    grid = job.evidence.acts_BKuv
    if job.algorithm == "GuidedGradCam" and (raw.shape != grid.shape or not torch.equal(raw.float(), grid)):
        yield f"it needs a layer that gives maps (B, K, u, v), but '{name}' gives tokens or another layout"


def _of_operations(algorithm: str, done: Operations, ran: Mapping[str, nn.Module]) -> Iterator[str]:
    if algorithm in _GUIDED:
        yield from _of_guided(done, ran)
    elif algorithm in _DEEP:
        yield from _of_deep_lift(done, ran)
    else:
        yield from _of_lrp(done, ran)


def _of_guided(done: Operations, ran: Mapping[str, nn.Module]) -> Iterator[str]:
    hidden = [function for function in done.functions if function.name in _RECTIFIERS]
    if hidden:
        yield f"it changes the gradient of nn.ReLU modules only, but the model calls {hidden[0]}"
    other = [name for name, module in ran.items() if isinstance(module, nn.ReLU6 | nn.Threshold)]
    if other:
        yield f"it changes the gradient of nn.ReLU modules only, but '{other[0]}' is {_kind(ran[other[0]])}"
    if not any(isinstance(module, nn.ReLU) for module in ran.values()):
        yield "it changes the gradient of nn.ReLU modules, but the model has none"


def _of_deep_lift(done: Operations, ran: Mapping[str, nn.Module]) -> Iterator[str]:
    for name, module in ran.items():
        if not isinstance(module, (*_LINEAR_MODULES, *_RESCALED)):
            yield f"captum has no rule of DeepLift for '{name}', {_kind(module)}"
        if isinstance(module, _POOLING) and _overlaps(module):
            yield f"captum's rule for maxima is wrong where windows overlap, as in '{name}'"
    yield from (_no_function(function, "DeepLift") for function in done.functions if not linear_in_image(function))


def _of_lrp(done: Operations, ran: Mapping[str, nn.Module]) -> Iterator[str]:
    for name, module in ran.items():
        if type(module) not in _WITH_RULE:
            yield f"captum has no rule of LRP for '{name}', {_kind(module)}"
        if done.calls[name] > 1 and not isinstance(module, nn.ReLU | nn.Dropout | nn.Tanh):
            yield f"'{name}' runs {done.calls[name]} times, and captum's rules need modules that run once"
    moving = MOVING | {"relu", "relu_"}  # relevance that reaches a zero is zero
    yield from (_no_function(function, "LRP") for function in done.functions if function.name not in moving)


def _no_function(function: Function, rule: str) -> str:
    return f"captum has no rule of {rule} for functions, and the model calls {function}"


def _overlaps(module: nn.Module) -> bool:
    assert isinstance(module, _POOLING)
    kernel, stride = module.kernel_size, module.stride
    pairs = zip(*((each,) if isinstance(each, int) else each for each in (kernel, stride)), strict=True)
    return any(window > step for window, step in pairs) or module.dilation not in (1, (1, 1), (1, 1, 1))


def _kind(module: nn.Module) -> str:
    return f"a module of type {type(module).__name__}"


def incomplete(job: Job, maps_BCHW: Tensor) -> str:
    """Say by how much attributions of DeepLift miss the change of the logit that they must add up to; "" if they do."""
    evidence, outputs = job.evidence, job.probe.outputs
    with torch.no_grad():
        start_BN = job.probe.capture(job.baselines(job.pixels_BCHW), gradients=False).logits_BN
    change_B = evidence.target_logits_B - outputs.target_logits(start_BN, evidence.targets_B)
    missing_B = (maps_BCHW.flatten(1).sum(1) - change_B).abs()
    scale_B = torch.maximum(change_B.abs(), maps_BCHW.flatten(1).abs().sum(1))
    if bool((missing_B <= _TOLERANCE * scale_B + 1e-4).all()):
        return ""
    return (
        f"its attributions add up to {float(maps_BCHW[0].sum()):.3g} on a trial image instead of "
        f"{float(change_B[0]):.3g}, the change of the logit: the model computes something that captum has no rule for"
    )
