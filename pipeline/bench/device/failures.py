"""Makes a device fail for real, each time in a process of its own, and records what becomes of the images."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.bench.device.apart import apart
from pipeline.bench.device.cases import Case, explained, explainer_for
from pipeline.bench.device.clock import Device
from pipeline.bench.device.scale import Scale
from pipeline.bench.device.subjects import NETWORKS, chunk_of, inputs, trained, untrained
from pipeline.errors import CamatlasError
from pipeline.model.arithmetic import multiplying
from pipeline.model.engine import Engine
from pipeline.model.trial import LoadedModel
from pipeline.settings.precision import Precision

_TOO_LARGE = 4096
"""Images in a pass that does not fit into the memory that is left."""
_IMAGES = 64
_CLUSTERS = {"scorecam": {"clusters": 64}}


def failures(device: Device, scale: Scale, seconds: float) -> dict[str, Any]:
    """Run a pass that is too large, and one that fails on the device."""
    return {
        "too_large_pass": apart(seconds, too_large_pass, device, scale),
        "failed_device": apart(seconds, failed_device, device),
    }


def too_large_pass(device: Device, scale: Scale) -> dict[str, Any]:
    """Explain images with little memory in passes that need more: they must become smaller, and no image may fail."""
    loaded = untrained(scale.network, scale.side)
    explainer = explainer_for(loaded, device, Case("", (_CLUSTERS,)), "fp32", _TOO_LARGE)
    images = chunk_of(min(_IMAGES, scale.images), scale.side)
    _leave(device, scale.spare_megabytes)
    codes = Counter(explained(explainer, images))
    return {
        "requested": _TOO_LARGE,
        "reached": explainer.probe.scorer.batcher.size,
        "images": len(images.samples),
        "error_codes": dict(codes),
    }


def _leave(device: Device, megabytes: int) -> None:
    """Leave this process so much more memory than it has now."""
    if device.is_gpu:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 1e6) / total)
        return
    import resource  # of Unix alone

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def failed_device(device: Device) -> dict[str, Any]:
    """Let a network read beyond a table, which is an assert on a GPU: the error must name the images."""
    loaded = trained(NETWORKS[0])
    loaded.model.get_submodule("head").register_forward_pre_hook(_read_beyond)
    explainer = explainer_for(loaded, device, Case("", ("gradcam",)), "fp32", 16)
    try:
        codes = explained(explainer, chunk_of(2, loaded.preprocess.size[0]))
    except CamatlasError as error:
        return {"raised": type(error).__name__, "sentence": str(error)}
    return {"error_codes": dict(Counter(codes))}


def _read_beyond(_module: nn.Module, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    table_P = values[0]
    beyond = torch.full((1,), len(table_P), device=table_P.device)
    return (table_P + table_P[beyond].sum(),)


def compiled(device: Device, scale: Scale, seconds: float) -> dict[str, Any] | str:
    """Compile forward passes and time them, in another thread than the main one, as an actor's calls are."""
    return apart(seconds, compiled_here, device, scale)


def compiled_here(device: Device, scale: Scale) -> dict[str, Any]:
    """Compile in a thread of this process."""
    loaded = untrained(scale.network, scale.side) if device.is_gpu else trained(NETWORKS[0])
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_compiled, device, loaded, "bf16" if device.is_gpu else "fp32").result()


def _compiled(device: Device, loaded: LoadedModel, precision: Precision) -> dict[str, Any]:
    engine = Engine(loaded.model.to(device.name), precision, (), compiled=True)
    pixels_PCHW = inputs(loaded, 256 if device.is_gpu else 16).to(device.name)
    with torch.no_grad(), multiplying(precision):
        first = device.once(lambda: engine.masked(pixels_PCHW))
        rate = len(pixels_PCHW) / device.median(lambda: engine.masked(pixels_PCHW))
    return {"first_call_seconds": first, "images_per_second": rate, "trouble": engine.trouble}
