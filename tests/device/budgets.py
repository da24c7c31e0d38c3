"""Waits and launches of the device for one batch of images: what they may be today at most, in one table.

`python tests/device/budgets.py` prints what they are, with the lines that wait. A test holds them under the numbers of
`BUDGETS`; a change that lowers one also lowers its number here.
"""

import sys
from dataclasses import dataclass

import numpy as np
from device.ledger import Ledger
from device.simulated import simulated
from device.small_nets import CLASSES, SIDE, SmallCnn, made
from explaining import SHARD, spec

from pipeline.bench.ours import GRADIENT_METHODS
from pipeline.cams import build_methods
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.data.sources import Chunk
from pipeline.explain.explainer import Explainer, ExplainerSpec
from pipeline.metrics import build_metrics

IMAGES = 16
"""One batch, and one full pass."""


@dataclass(frozen=True)
class Budget:
    """What one batch of 16 images may ask of the device, in passes of 16 images.

    Attributes:
        methods, metrics: as in a run file.
        waits: most waits of the host.
        launches: most operations started.
        passes: forward passes of the whole batch, the clean one included.
        beside: the work that is done in any case; the table shows waits per pass without its waits and passes.
    """

    methods: tuple[object, ...]
    metrics: tuple[object, ...]
    waits: int
    launches: int
    passes: int
    beside: str = ""


@dataclass(frozen=True)
class Asked:
    """What one batch asked of the device."""

    waits: int
    launches: int
    passes: float
    ledger: Ledger


BUDGETS: dict[str, Budget] = {
    "gradcam": Budget(("gradcam",), (), 2, 79, 1),
    "eight gradient methods": Budget(GRADIENT_METHODS, (), 3, 376, 1),
    "insertion and deletion": Budget(("gradcam",), ("insertion", "deletion"), 3, 1417, 41, "gradcam"),
    "scorecam, 64 clusters": Budget(({"scorecam": {"clusters": 64}},), (), 3, 3178, 65),
    "road": Budget(("gradcam",), ("road",), 4, 2551, 9, "gradcam"),
    "sscam, 4 samples, 16 clusters": Budget(({"sscam": {"samples": 4, "clusters": 16}},), (), 18, 8427, 65),
    "rise, 128 masks": Budget(({"rise": {"num_masks": 128, "grid": 8}},), (), 5, 3985, 129),
}


class Wide(SmallCnn):
    """A network with more channels than clusters."""

    def __init__(self) -> None:
        super().__init__(channels=96)


def asked(budget: Budget) -> Asked:
    """Explain a batch on the simulated device; one image before it, which fills caches, does not count."""
    with simulated() as ledger:
        explainer = Explainer(made(Wide), _settings(budget))
        list(explainer.tables(_chunk(1)))
        ledger.clear()
        before = explainer.probe.counts.forwards
        list(explainer.tables(_chunk(IMAGES)))
        passes = (explainer.probe.counts.forwards - before) / IMAGES
    return Asked(ledger.waits.total(), ledger.launches.total(), passes, ledger)


def _settings(budget: Budget) -> ExplainerSpec:
    return spec(
        layer=Wide.LAYER, stages=Wide.STAGES, methods=build_methods(budget.methods),
        metrics=build_metrics(budget.metrics), classes=CLASSES, size=(SIDE, SIDE), layouts="auto", device="cuda",
        batch=IMAGES,
    )  # fmt: skip


def _chunk(images: int) -> DecodedChunk:
    pixels_NHWC = np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    samples = tuple(DecodedSample(f"k{i}", None, (), (SIDE, SIDE)) for i in range(images))
    return DecodedChunk(Chunk(SHARD, 0, last=True), samples, pixels_NHWC, ())


def table(found: dict[str, Asked]) -> list[str]:
    """Format what batches asked, and how often the host waited for each pass of the work itself."""
    lines = ["| work | waits | launches | passes | waits per pass |", "|---|---|---|---|---|"]
    for name, each in found.items():
        beside = found.get(BUDGETS[name].beside)
        waits, passes = (
            (each.waits - beside.waits, each.passes - beside.passes) if beside else (each.waits, each.passes)
        )
        lines.append(f"| {name} | {each.waits} | {each.launches} | {each.passes:g} | {waits / passes:.2f} |")
    return lines


if __name__ == "__main__":
    all_asked = {name: asked(budget) for name, budget in BUDGETS.items()}
    lines = table(all_asked)
    for name, each in all_asked.items():
        lines += ["", name, *(f"  {times:5d} {line}" for line, times in each.ledger.lines().items())]
    sys.stdout.write("\n".join([*lines, ""]))
