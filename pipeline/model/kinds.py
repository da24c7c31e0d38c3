"""Names the kinds of models that cannot be explained, and says what to do about an exception that a model raised."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from pipeline.errors import CamatlasError, ConfigError, first_line
from pipeline.model.batching import is_out_of_memory
from pipeline.model.tasks.base import Task
from pipeline.settings.functions import place_of

WHERE = "model.name"
_VOLUMES = (nn.Conv3d, nn.ConvTranspose3d)
_TOKENS = (nn.Embedding, nn.EmbeddingBag)
_ADVICE = {
    "use_reentrant=true": (
        "the model uses reentrant checkpointing, which cannot give the gradients of activations; set "
        "use_reentrant=False in its torch.utils.checkpoint.checkpoint, or switch checkpointing off"
    ),
    "inference tensors cannot": "the forward pass uses torch.inference_mode; use torch.no_grad outside of the model",
    "does not require grad": "the forward pass switches gradients off (no_grad, detach or inference_mode); remove that",
    "channels, but got": "the model takes images of another number of channels; set model.preprocess.channels",
    "doesn't match model": "the model takes images of another size; set model.preprocess.crop",
    "wrong image": "the model takes images of another size; set model.preprocess.crop",
    "shapes cannot be multiplied": "the classifier fits another image size; set model.preprocess.crop",
    "expected all tensors to be on the same device": "parts of the model are on different devices; build it on the CPU",
}
"""What to do about an exception, by a part of its message in lower case."""


def check_kind(model: nn.Module, task: Task | None = None) -> None:
    """Raise ConfigError for a kind of model that cannot be explained, as far as that shows without running it.

    Args:
        model: the model.
        task: makes outputs (B, N) of what it returns; None for a classifier.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError.one(
            WHERE, f"it is a {type(model).__name__}, not a torch module", "wrap what it does in the forward of a module"
        )
    kind = _kind(model) or (_other_task(model) if task is None else None)
    if kind is not None:
        raise ConfigError.one(WHERE, *kind)


@contextmanager
def exceptions_told(
    model: nn.Module, pixels_BCHW: Tensor, during: str = "the forward pass", kind: type[Exception] = Exception
) -> Iterator[None]:
    """Turn an exception of a model into a ConfigError that says what was fed, what was raised, and what to do.

    Errors of camatlas, and those for lack of memory, are raised as they are.
    """
    try:
        yield
    except CamatlasError:
        raise
    except kind as error:
        if is_out_of_memory(error):
            raise
        fed = f"{str(pixels_BCHW.dtype).removeprefix('torch.')} images {tuple(pixels_BCHW.shape)}"
        raise ConfigError.one(
            WHERE, f"{during} of {fed} raised {first_line(error)}{place_of(error)}", _advice(model, error)
        ) from error


def _kind(model: nn.Module) -> tuple[str, str] | None:
    """Return what kind of unsuitable model this is, and what to do; None for all others."""
    if isinstance(model, torch.jit.ScriptModule):
        return (
            "the model is a TorchScript module, whose layers cannot be observed",
            "give the Python model it was made of",
        )
    if isinstance(model, fx.GraphModule) and not _called_modules(model):
        return "the model is an exported graph, which has no layers", "give the Python model that was exported"
    tensors = [*model.parameters(), *model.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        return "the model has lazy layers without shapes", "run it on one image in the function that builds it"
    if any(tensor.is_meta for tensor in tensors):
        return "the model is on the meta device, so it has no weights", "build it on the CPU, for example with to_empty"
    if name := _quantised(model):
        return (
            f"the model is quantised (layer '{name}'), and quantised layers have no gradients",
            "give the float model that it was made of",
        )
    return None


def _other_task(model: nn.Module) -> tuple[str, str] | None:
    """Return what a model of torchvision returns instead of logits, and which task makes logits of it."""
    defined_in, name = type(model).__module__, type(model).__name__
    if defined_in.startswith("torchvision.models.detection"):
        what = "is a detection model, which returns boxes instead of one row of logits"
        return f"{name} {what}", "set model.task: detection"
    if defined_in.startswith("torchvision.models.segmentation"):
        what = "is a segmentation model, which returns logits of pixels instead of one row of logits"
        return f"{name} {what}", "set model.task: segmentation"
    return None


def _called_modules(model: fx.GraphModule) -> set[str]:
    """Return the modules that a graph calls, without the check of the inputs that torch.export adds."""
    return {str(node.target) for node in model.graph.nodes if node.op == "call_module"} - {"_guards_fn"}


def _quantised(model: nn.Module) -> str | None:
    """Return the name of a quantised layer, or None."""
    for name, module in model.named_modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        integers = isinstance(weight, Tensor) and not (weight.is_floating_point() or weight.is_complex())
        if ".ao.nn." in type(module).__module__ or "quantized" in type(module).__module__ or integers:
            return str(name)
    return None


def _advice(model: nn.Module, error: Exception) -> str:
    """Say what to do about an exception."""
    needed = _needed_inputs(model)
    if isinstance(error, TypeError) and len(needed) != 1:
        return (
            f"the model takes {len(needed)} inputs ({', '.join(needed)}); wrap it in a module that takes images alone"
        )
    if any(isinstance(module, _VOLUMES) for module in model.modules()):
        return "the model has 3-D convolutions, for volumes or videos; images are (B, C, H, W)"
    for part, advice in _ADVICE.items():
        if part in str(error).lower():
            return advice
    if any(isinstance(module, _TOKENS) for module in model.modules()):
        return "the model takes indices of tokens; images are (B, C, H, W)"
    return "run the model on such a tensor in Python, and compare model.preprocess with what it needs"


def _needed_inputs(model: nn.Module) -> list[str]:
    """Return the names of the inputs that a forward pass cannot do without."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return ["images"]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variadic]
