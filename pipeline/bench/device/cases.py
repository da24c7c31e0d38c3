"""Ten cases of methods and metrics, as a worker runs them: from decoded images to rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from pipeline.bench.device.clock import Device
from pipeline.bench.device.scale import Scale
from pipeline.bench.device.subjects import chunk_of
from pipeline.bench.device.waits import counted_waits
from pipeline.bench.ours import GRADIENT_METHODS
from pipeline.cams import build_methods
from pipeline.data.decode import DecodedChunk
from pipeline.errors import first_line
from pipeline.explain.explainer import Explainer, ExplainerSpec
from pipeline.metrics import build_metrics
from pipeline.metrics.cost import metrics_cost
from pipeline.model.baselines import Normalisation
from pipeline.model.device_failure import is_device_failure
from pipeline.model.trial import LoadedModel
from pipeline.run.preflight import net_shape
from pipeline.settings.precision import Precision
from pipeline.settings.targets import TargetRules

_LINES = 5
"""Most lines that are named for their waits."""


@dataclass(frozen=True)
class Case:
    """Methods and metrics that run together, as in a run file."""

    name: str
    methods: tuple[object, ...]
    metrics: tuple[object, ...] = ()


CASES = (
    Case("gradcam", ("gradcam",)),
    Case("eight gradient methods", GRADIENT_METHODS),
    Case("insertion and deletion", ("gradcam",), ("insertion", "deletion")),
    Case("road", ("gradcam",), ("road",)),
    Case("boxes", ("gradcam",), ("pointing_game", "energy_in_box", "box_iou_curve")),
    Case("scorecam, 64 clusters", ({"scorecam": {"clusters": 64}},)),
    Case("sscam, 4 samples, 16 clusters", ({"sscam": {"samples": 4, "clusters": 16}},)),
    Case("rise, 256 masks", ({"rise": {"num_masks": 256}},)),
    Case("opti_cam, 20 iterations", ({"opti_cam": {"iterations": 20}},)),
    Case("recipro_cam", ("recipro_cam",)),
)


def explainer_for(
    loaded: LoadedModel, device: Device, case: Case, precision: Precision, batch: int | None = None
) -> Explainer:
    """Make an Explainer as a worker does; without a size of its passes, it finds the fastest."""
    methods, metrics, shape = build_methods(case.methods), build_metrics(case.metrics), net_shape(loaded)
    passes = sum(method.cost(shape).forwards for method in methods.values())
    spec = ExplainerSpec(
        layer=loaded.layer, stages=loaded.stages, methods=methods, metrics=metrics,
        normalisation=Normalisation(loaded.preprocess.mean, loaded.preprocess.std), classes=loaded.classes,
        outputs=loaded.outputs, targets=TargetRules(("predicted",)), precision=precision, maps="u8",
        device=device.name, batch=batch, size=loaded.preprocess.size,
        passes=passes + metrics_cost(metrics.values(), methods, shape).forwards, layouts=loaded.layouts,
    )  # fmt: skip
    return Explainer(loaded.model, spec)


def timed_cases(
    device: Device,
    scale: Scale,
    loaded: LoadedModel,
    forward_rate: float | None,
    say: Callable[[str], None],
    cases: tuple[Case, ...] = CASES,
    has_time: Callable[[], bool] = lambda: True,
) -> list[dict[str, Any]]:
    """Time the cases on as many images as the time allows, and count the waits and kernels of a few images.

    `forward_rate` is the images per second of the engine's forward pass at the same precision, in bf16 on a GPU.
    """
    rows = list[dict[str, Any]]()
    for case in cases:
        if not has_time():
            rows.append({"case": case.name, "failed": "left out: no time was left"})
            continue
        say(f"case: {case.name}")
        try:
            rows.append(_timed_case(device, scale, loaded, case, forward_rate))
        except Exception as error:  # whatever a device raises
            rows.append({"case": case.name, "failed": first_line(error)})
            if is_device_failure(error):
                break  # no later case could run in this process
    return rows


def _timed_case(
    device: Device, scale: Scale, loaded: LoadedModel, case: Case, forward_rate: float | None
) -> dict[str, Any]:
    if device.is_gpu:
        torch.cuda.reset_peak_memory_stats()
    explainer = explainer_for(loaded, device, case, "bf16" if device.is_gpu else "fp32", None if device.is_gpu else 16)
    everything = chunk_of(scale.images, scale.side)
    some = first_images(everything, scale.warm)
    explained(explainer, some)  # warms up
    with counted_waits(device) as waits:
        seconds = device.once(lambda: explained(explainer, some))
    count = max(scale.warm, min(scale.images, int(scale.warm * scale.seconds / seconds)))
    explainer.usage()
    codes = list[str]()
    seconds = device.once(lambda: codes.extend(explained(explainer, first_images(everything, count))))
    usage = explainer.usage()
    forwards = usage.passes["forward"] / seconds
    return {
        "case": case.name,
        "images": count,
        "images_per_second": count / seconds,
        "forwards_per_image": usage.passes["forward"] / count,
        "share_of_forward_rate": None if forward_rate is None else forwards / forward_rate,
        "waits": sum(waits.values()) if device.is_gpu else None,
        "waiting_lines": dict(waits.most_common(_LINES)),
        "images_of_waits": scale.warm,
        "kernels": kernels(device, explainer, some),
        "stages": {name: took / seconds for name, took in usage.seconds.items()},
        "pass": explainer.probe.batcher.size,
        "peak_gigabytes": torch.cuda.max_memory_allocated() / 1e9 if device.is_gpu else None,
        "error_codes": sorted(set(codes)),
    }


def first_images(chunk: DecodedChunk, count: int) -> DecodedChunk:
    """Keep the first images of a chunk."""
    return replace(chunk, samples=chunk.samples[:count], pixels_NHWC=chunk.pixels_NHWC[:count])


def explained(explainer: Explainer, chunk: DecodedChunk) -> list[str]:
    """Explain a chunk, and return the error codes of its rows."""
    return [code for table in explainer.tables(chunk) for code in table["error_code"].to_pylist() if code is not None]


def kernels(device: Device, explainer: Explainer, chunk: DecodedChunk) -> Mapping[str, float] | None:
    """Count the kernels of a chunk and add up their milliseconds; None on a CPU."""
    if not device.is_gpu:
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        seconds = device.once(lambda: explained(explainer, chunk))
    events = [event for event in profiled.key_averages() if event.device_type.name == "CUDA"]  # not their launches
    busy = sum(event.self_device_time_total for event in events) / 1e6
    return {"started": sum(event.count for event in events), "busy_ms": 1e3 * busy, "busy_share": busy / seconds}
