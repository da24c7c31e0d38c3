"""A whole benchmark of a model: its cases and their timings.

Legend: B images, C colours, (H, W) pixels.
"""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.bench.ours import GRADIENT_METHODS, engine_name, first_step_cases, forward_cases, method_case, road_cases
from pipeline.bench.peers import peer_cases
from pipeline.bench.report import case_rows, projection_rows
from pipeline.bench.timing import BenchCase, time_cases
from pipeline.cams import CamMethod, build_methods
from pipeline.explain.explainer import BATCH_MULTIPLE, images_together
from pipeline.model.arithmetic import multiplying
from pipeline.model.baselines import Normalisation
from pipeline.model.engine import Precision
from pipeline.model.memory import kept_freed_memory
from pipeline.model.probe import Probe
from pipeline.model.zoo import LoadedModel
from pipeline.run.preflight import net_shape

_MANY = 32
"""Methods with more masked passes per image run as in a worker: in passes that are filled up to a fixed size."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Setup:
    """The settings of a benchmark.

    Attributes:
        loaded: the model.
        methods: by name.
        peers: names of the peer libraries.
        precision: precision of our methods.
        pixels_BCHW: normalised images that methods explain as one batch.
        compiled: whether masked passes are compiled, as in long runs.
    """

    loaded: LoadedModel
    methods: Mapping[str, CamMethod]
    peers: tuple[str, ...]
    precision: Precision
    pixels_BCHW: Tensor
    compiled: bool


def measured(setup: Setup, rounds: int, long_rounds: int, report: Report) -> dict[str, Any]:
    """Time all cases, on a GPU where there is one: facts of the machine, a row per case, hours per dataset.

    Raises:
        ImportError: a peer is not installed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setup.loaded.model.to(device)
    with multiplying(setup.precision):  # the plain model and other libraries multiply as ours do
        timings = time_cases(_cases(setup, setup.pixels_BCHW.to(device), report), rounds, long_rounds, report)
    return {
        "layer": setup.loaded.layer,
        "pixels": setup.loaded.preprocess.crop,
        "images": len(setup.pixels_BCHW),
        "precision": setup.precision,
        "device": torch.cuda.get_device_name(0) if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "peak_host_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_device_megabytes": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None,
        "cases": case_rows(timings),
        "imagenet_val": projection_rows(timings),
    }


def _cases(setup: Setup, pixels_BCHW: Tensor, report: Report) -> list[BenchCase]:
    """List all cases; each case of a peer follows our case of the same task."""
    loaded, shape = setup.loaded, net_shape(setup.loaded)
    engine = engine_name(setup.precision, compiled=False)
    masked_engine = engine_name(setup.precision, compiled=setup.compiled)
    with kept_freed_memory():
        probe = _probe(setup, len(pixels_BCHW), 1, compiled=False)
        masked_probe = _probe(setup, BATCH_MULTIPLE, BATCH_MULTIPLE, compiled=setup.compiled)
        best = _warm(masked_probe, pixels_BCHW)
        report(f"layer {loaded.layer}, {' x '.join(map(str, pixels_BCHW.shape[1:]))}, passes of {best} images")
        full_BCHW = pixels_BCHW[:1].repeat(best, 1, 1, 1)
        cases = forward_cases(loaded.model, full_BCHW, setup.precision, compiled=setup.compiled)
        cases.extend(first_step_cases(loaded.model, full_BCHW))
        cases.append(
            method_case(probe, "eight gradient methods", build_methods(GRADIENT_METHODS), pixels_BCHW, shape, engine)
        )
        for label, method in setup.methods.items():
            passes = method.cost(shape).forwards
            if passes > _MANY:
                some_BCHW = pixels_BCHW[: images_together(best, passes)]
                case = method_case(masked_probe, label, {label: method}, some_BCHW, shape, masked_engine)
            else:
                case = method_case(probe, label, {label: method}, pixels_BCHW, shape, engine)
            cases.append(case)
    if setup.peers:
        cases.extend(road_cases(pixels_BCHW))
    places = {case.name: place for place, case in enumerate(cases)}
    ours = comparable(setup.methods) | {name: name for name in places if name not in setup.methods}
    for peer in setup.peers:
        theirs = peer_cases(peer, loaded.model, loaded.layer, pixels_BCHW)
        cases.extend(replace(case, name=ours[case.name]) for case in theirs if case.name in ours)
    return sorted(cases, key=lambda case: places[case.name])


def comparable(methods: Mapping[str, CamMethod]) -> dict[str, str]:
    """Map the peers' names of methods to the labels of ours that do the same: exact, with default parameters."""
    return {
        name: label
        for name, exact in build_methods(["gradcam", "scorecam"]).items()
        for label, method in methods.items()
        if method == exact
    }


def _probe(setup: Setup, batch: int, multiple: int, *, compiled: bool) -> Probe:
    loaded = setup.loaded
    return Probe(
        loaded.model,
        loaded.layer,
        stages=loaded.stages,
        precision=setup.precision,
        batch=batch,
        batch_multiple=multiple,
        normalisation=Normalisation(loaded.preprocess.mean, loaded.preprocess.std),
        compiled=compiled,
        layout=loaded.layouts,
    )


def _warm(probe: Probe, pixels_BCHW: Tensor) -> int:
    """Choose the size of masked passes as a worker does, and run one of each size, because compiling takes long."""
    probe.choose_batch((pixels_BCHW.shape[1], pixels_BCHW.shape[2], pixels_BCHW.shape[3]))
    best = probe.scorer.batcher.size
    for count in {best, probe.scorer.batcher.multiple}:
        targets_P1 = torch.zeros(count, 1, dtype=torch.long, device=pixels_BCHW.device)
        probe.scorer.target_scores(lambda rows: pixels_BCHW[:1].expand(len(rows.index_P), -1, -1, -1), targets_P1)
    return best
