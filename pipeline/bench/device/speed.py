"""What the device can do at most, and how much of it forward passes reach.

Legend: P rows of a pass, C colours, (H, W) pixels.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.bench.device.clock import Device
from pipeline.bench.device.scale import Scale
from pipeline.bench.device.subjects import inputs
from pipeline.model.arithmetic import multiplying
from pipeline.model.batching import is_out_of_memory
from pipeline.model.engine import Engine
from pipeline.model.trial import LoadedModel
from pipeline.settings.precision import Precision

PLAIN = "plain fp32"
"""The model as it comes, in float32 as IEEE 754 says."""


def ceilings(device: Device, scale: Scale) -> dict[str, Any]:
    """Measure the bandwidth of a copy, and the rate of a large product of matrices at each precision."""
    source = torch.ones(scale.floats, device=device.name)
    target = torch.empty_like(source)
    seconds = device.median(lambda: target.copy_(source))
    return {
        "copy_gigabytes_per_second": 2 * source.nbytes / seconds / 1e9,
        "product_teraflops": {name: _product(device, scale.product, name) for name in device.precisions()},
    }


def _product(device: Device, side: int, precision: Precision) -> float:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.ones(side, side, device=device.name, dtype=dtype) / side for _ in range(2))
    with multiplying(precision):
        return 2 * side**3 / device.median(lambda: one @ other) / 1e12


def forwards(device: Device, scale: Scale, loaded: LoadedModel, peaks: Mapping[str, float]) -> dict[str, Any]:
    """Time forward passes of the plain model and of the engine, as shares of the product's rate at that precision."""
    count = flops(loaded)
    model = loaded.model.to(device.name)
    found: dict[str, Any] = {"gigaflops_of_an_image": count / 1e9}
    engines: dict[str, Precision] = {f"engine {name}": name for name in device.precisions()}
    kinds: dict[str, Precision] = {PLAIN: "fp32", **engines}
    for label, precision in kinds.items():
        run = partial(_plain, model) if label == PLAIN else Engine(model, precision, (), compiled=False).masked
        with multiplying(precision):
            rates = {size: _rate(device, run, loaded, size) for size in scale.passes}
        best = max((rate for rate in rates.values() if rate is not None), default=None)
        share = None if best is None or precision not in peaks else best * count / 1e12 / peaks[precision]
        found[label] = {"images_per_second": best, "share_of_product": share, "by_images_of_a_pass": rates}
    return found


def _rate(device: Device, run: Any, loaded: LoadedModel, size: int) -> float | None:  # noqa: ANN401 - a network
    """Return images per second in passes of one size; None if such a pass does not fit into memory."""
    pixels_PCHW = inputs(loaded, size).to(device.name).contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            return size / device.median(lambda: run(pixels_PCHW))
    except RuntimeError as error:
        if is_out_of_memory(error):
            return None
        raise


def _plain(model: nn.Module, pixels_PCHW: Tensor) -> Tensor:
    logits_PN: Tensor = model(pixels_PCHW)
    return logits_PN


def flops(loaded: LoadedModel) -> int:
    """Count the operations of one image, a multiplication and an addition as two."""
    from torch.utils.flop_counter import FlopCounterMode  # imports torch's compiler

    counter, pixels_1CHW = FlopCounterMode(display=False), inputs(loaded, 1)
    with counter, torch.no_grad():
        loaded.model.cpu()(pixels_1CHW)
    return int(counter.get_total_flops())
