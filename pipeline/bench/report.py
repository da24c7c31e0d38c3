"""Tables of the timings: shares of the forward pass, ratios to the peers, and the hours of a whole dataset."""

from collections.abc import Sequence
from typing import Any

from pipeline.bench.timing import ENGINE, OURS, CaseTiming

IMAGENET_VAL = 50_000


def case_rows(timings: Sequence[CaseTiming]) -> list[dict[str, Any]]:
    """Make one row per case: rates, share of its engine's forward pass, and our speed relative to a peer's."""
    return [_case_row(timing, timings) for timing in timings]


def _case_row(timing: CaseTiming, timings: Sequence[CaseTiming]) -> dict[str, Any]:
    forward = next(other for other in timings if other.case.by == timing.case.engine)
    return {
        "case": timing.case.name,
        "by": timing.case.by,
        "rounds": len(timing.rounds),
        "images_per_second": timing.images_per_second,
        "forwards_per_second": timing.forwards_per_second if timing.forwards else None,
        "engine": timing.case.engine.removeprefix(f"{OURS} "),
        "share_of_engine_forward": timing.forwards_per_second / forward.images_per_second if timing.forwards else None,
        "image_in_engine_forwards": forward.images_per_second / timing.images_per_second,
        "camatlas_times_as_fast": _times_as_fast(timing, timings),
    }


def projection_rows(timings: Sequence[CaseTiming]) -> list[dict[str, Any]]:
    """Project the hours of one worker over ImageNet val per method, from counted passes and the measured rate."""
    return [
        {
            "methods": timing.case.name,
            "forwards_per_image": timing.forwards / timing.case.images,
            "hours_of_imagenet_val": IMAGENET_VAL / timing.images_per_second / 3600,
        }
        for timing in timings
        if timing.case.by == OURS and timing.forwards
    ]


def _times_as_fast(timing: CaseTiming, timings: Sequence[CaseTiming]) -> float | None:
    """Return how many times as fast our case is as this one of a peer or the plain model; None for our cases."""
    if timing.case.by.startswith(OURS):
        return None
    wanted = ENGINE if timing.case.name == "forward pass" else OURS
    ours = [t for t in timings if t.case.name == timing.case.name and t.case.by == wanted]
    return ours[0].times(timing) if ours else None
