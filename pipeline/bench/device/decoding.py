"""How fast photographs become inputs: on one core, on all, on the device; and how fast they are copied to it."""

import io
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any, get_args

import numpy as np
import simplejpeg
import torch
from PIL import Image

from pipeline.bench.device.clock import Device
from pipeline.bench.device.scale import Scale
from pipeline.data.decode import frame_image
from pipeline.data.limits import DecodeLimits
from pipeline.data.shrinking import check_resizer
from pipeline.demo.scenes import make_scene
from pipeline.errors import ConfigError, first_line
from pipeline.settings.libraries import import_torchvision
from pipeline.settings.preprocess import Preprocess, Resizer

PREPROCESS = Preprocess(224, 256)
"""The size at which networks of ImageNet read photographs."""
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90
_GRAIN = 10.0
"""Standard deviation of the noise, which makes files as large as those of photographs."""
_REPEATS = 5
_COPIED = 128
"""Images that are copied together."""


def photographs(count: int) -> list[bytes]:
    """Encode scenes of the usual size of ImageNet, with the grain of photographs."""
    random = np.random.default_rng(0)
    return [_encoded(make_scene(index % 24).image, random) for index in range(count)]


def _encoded(scene: Image.Image, random: np.random.Generator) -> bytes:
    large = np.asarray(scene.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC), np.float64)
    grainy = np.clip(large + random.normal(0, _GRAIN, large.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grainy).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def decoding(device: Device, scale: Scale) -> dict[str, Any]:
    """Measure the rates of decoding and framing, and of copies to a GPU, in images per second."""
    data = photographs(scale.photographs)
    found: dict[str, Any] = {
        "kilobytes": statistics.fmean(map(len, data)) / 1e3,
        "decoded_alone": _rate(partial(_alone, data), len(data)),
        "one_core": {resizer: _rate(partial(framed, data, resizer), len(data)) for resizer in resizers()},
    }
    cores = os.cpu_count() or 1
    found["cores"], found["all_cores"] = cores, _with_processes(data, cores)
    if device.is_gpu:
        found["on_the_device"] = _on_the_device(device, data)
        found["copies"] = _copies(device)
    return found


def resizers() -> list[Resizer]:
    """List the resizers whose libraries are installed."""
    return [resizer for resizer in get_args(Resizer) if _is_installed(resizer)]


def _is_installed(resizer: Resizer) -> bool:
    try:
        check_resizer(resizer)
    except ConfigError:
        return False
    return True


def framed(data: list[bytes], resizer: Resizer = "pillow") -> int:
    """Decode photographs and fit them to the input; return the number of their pixels."""
    preprocess = replace(PREPROCESS, resizer=resizer)
    return sum(frame_image(each, None, preprocess, DecodeLimits()).pixels_HWC.size for each in data)


def _alone(data: list[bytes]) -> int:
    return sum(simplejpeg.decode_jpeg(each).size for each in data)


def _rate(work: Callable[[], object], images: int) -> float:
    """Return the best of a few rates of one core, by CPU time: others can only slow it down."""
    work()
    return images / min(cpu_seconds(work) for _ in range(_REPEATS))


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call, which does not count what other processes take."""
    began = time.process_time()
    work()
    return time.process_time() - began


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _with_processes(data: list[bytes], processes: int) -> float:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(framed, [data[:1]] * processes))  # starts them, and imports
        tasks = processes * _REPEATS
        return tasks * len(data) / _seconds(lambda: list(pool.map(framed, [data] * tasks)))


def _on_the_device(device: Device, data: list[bytes]) -> float | str:
    import_torchvision()
    from torchvision.io import decode_jpeg

    encoded = [torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in data]
    try:
        return len(data) / device.median(lambda: decode_jpeg(encoded, device=device.name))
    except RuntimeError as error:  # torchvision without nvJPEG
        return first_line(error)


def _copies(device: Device) -> dict[str, float]:
    """Time copies of uint8 images: from ordinary memory, from pinned memory, and from memory pinned for the copy."""
    pixels_NHWC = torch.zeros(_COPIED, *PREPROCESS.size, 3, dtype=torch.uint8)
    pinned_NHWC = pixels_NHWC.pin_memory()
    ways: dict[str, Callable[[], object]] = {
        "ordinary": lambda: pixels_NHWC.to(device.name),
        "pinned": lambda: pinned_NHWC.to(device.name, non_blocking=True),
        "pinned_anew": lambda: pixels_NHWC.pin_memory().to(device.name, non_blocking=True),
    }
    return {name: _COPIED / device.median(copy) for name, copy in ways.items()}
