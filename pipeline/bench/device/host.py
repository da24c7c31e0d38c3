"""What one image costs the host under Grad-CAM, step by step, apart from the work of the device."""

import copy
import math
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import nn

from pipeline.bench.device.cases import Case, explained, explainer_for
from pipeline.bench.device.clock import Device
from pipeline.bench.device.decoding import PREPROCESS, cpu_seconds
from pipeline.bench.device.subjects import chunk_of, untrained
from pipeline.data.decode import DecodedChunk
from pipeline.explain.explainer import Explainer
from pipeline.model.memory import kept_freed_memory
from pipeline.model.transfers import sent
from pipeline.model.trial import LoadedModel, tried
from pipeline.run.worker import footer_of, sorted_rows
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import publish_part
from pipeline.telemetry.timers import Stopwatch

NETWORK = "resnet50"
"""The network whose passes are started, also where a rehearsal times a smaller one."""
_GRADCAM = Case("gradcam", ("gradcam",))
_TINY = 32
"""Side of images with which a device has nearly nothing to do."""
_FEW, _MANY = 64, 256
"""Images of two chunks; their difference is the cost of images, without that of a chunk."""
_NARROWER = 16
_REPEATS = 9


@dataclass(frozen=True)
class HostCosts:
    """Seconds of one core.

    Attributes:
        pass_launching: of one pass of any size, until everything is started: measured with few channels, so that the
            work itself takes next to nothing.
        unpacking: of an image, to take it from the message of a reader.
        copying: of an image, until its copy to the device is started.
        rows: of an image: its row, and all else that its worker does for it.
        publishing: of an image: its share of a part, encoded, checked and written, in the worker's other thread.
        decoding: of an image, in a reader.
    """

    pass_launching: float
    unpacking: float
    copying: float
    rows: float
    publishing: float
    decoding: float = math.nan


def host_costs(device: Device) -> HostCosts:
    """Measure all steps but decoding; each is the best of a few repetitions, as others can only slow a core down."""
    with kept_freed_memory():  # as in a worker
        return _host_costs(device)


def _host_costs(device: Device) -> HostCosts:
    chunk = chunk_of(_MANY, PREPROCESS.size[0])
    return HostCosts(
        pass_launching=_pass_launching(device),
        unpacking=_unpacking(chunk) / _MANY,
        copying=_best(lambda: sent(torch.tensor(chunk.pixels_NHWC), torch.device(device.name))) / _MANY,
        rows=_rows(device),
        publishing=_publishing(device) / _MANY,
    )


def _pass_launching(device: Device) -> float:
    """Time a pass of one tiny image through the layers of the network, with few channels."""
    whole = untrained(NETWORK, _TINY)
    loaded = tried(narrowed(whole.model), ModelConfig(name=NETWORK), whole.preprocess, "")
    explainer = explainer_for(loaded, device, _GRADCAM, "fp32", 16)
    explainer.probe.batcher.size = 1  # not padded
    image = chunk_of(1, _TINY)
    return _best(lambda: device.once(lambda: explained(explainer, image)))  # a GPU is waited for by a busy loop


def narrowed(model: nn.Module) -> nn.Module:
    """Return a copy of a convolutional network with a sixteenth of the channels between its layers."""
    narrow = copy.deepcopy(model)
    for name, module in list(narrow.named_modules()):
        if isinstance(module, nn.Conv2d):
            small: nn.Module = nn.Conv2d(
                _fewer(module.in_channels), _fewer(module.out_channels), module.kernel_size, module.stride,  # type: ignore[arg-type]
                module.padding, module.dilation, _fewer(module.groups), module.bias is not None,  # type: ignore[arg-type]
            )  # fmt: skip
        elif isinstance(module, nn.BatchNorm2d):
            small = nn.BatchNorm2d(_fewer(module.num_features))
        elif isinstance(module, nn.Linear):
            small = nn.Linear(_fewer(module.in_features), module.out_features)
        else:
            continue
        narrow.set_submodule(name, small)
    return narrow.eval()


def _fewer(channels: int) -> int:
    return channels if channels < _NARROWER else channels // _NARROWER


def _unpacking(chunk: DecodedChunk) -> float:
    """Time the unpickling of a chunk whose pixels come apart from the message, as Ray passes arrays on."""
    buffers = list[pickle.PickleBuffer]()
    message = pickle.dumps(chunk, protocol=5, buffer_callback=buffers.append)
    return _best(lambda: pickle.loads(message, buffers=buffers))  # noqa: S301 - made one line above


def _rows(device: Device) -> float:
    """Time what is neither a pass nor a method, of many images and of few."""
    explainer = explainer_for(_thin(), device, _GRADCAM, "fp32", _MANY)
    explainer._watch = Stopwatch(time.process_time)  # the rest is a difference of CPU times
    few, many = (_least_rest(explainer, chunk_of(count, _TINY)) for count in (_FEW, _MANY))
    return max(0.0, many - few) / (_MANY - _FEW)


def _least_rest(explainer: Explainer, chunk: DecodedChunk) -> float:
    return min(_rest(explainer, chunk) for _ in range(_REPEATS))


def _rest(explainer: Explainer, chunk: DecodedChunk) -> float:
    explainer.usage()
    seconds = cpu_seconds(lambda: explained(explainer, chunk))
    return seconds - sum(explainer.usage().seconds.values())


def _publishing(device: Device) -> float:
    """Time a part: the CPU time, because a disk that is waited for needs no core."""
    chunk = chunk_of(_MANY, _TINY)
    rows = sorted_rows(explainer_for(_thin(), device, _GRADCAM, "fp32", _MANY).tables(chunk))
    return min(_published(rows, chunk) for _ in range(_REPEATS))


def _published(rows: pa.Table, chunk: DecodedChunk) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return cpu_seconds(lambda: publish_part(LocalStore(folder), rows, footer_of(chunk, "bench")))


def _thin() -> LoadedModel:
    """Make a network with nearly nothing to do, with maps of 7 x 7."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 8, 4), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    model = nn.Sequential(layers, head).eval()
    return tried(model, ModelConfig(name="thin", layer="0"), Preprocess(_TINY, None), "")


def _best(work: Callable[[], object]) -> float:
    """Return the least CPU time of a few calls."""
    work()
    return min(cpu_seconds(work) for _ in range(_REPEATS))
