"""One process explains on and on: no hook, file, thread or memory stays behind, also after errors."""

import gc
import os

import pytest
from nets import StagedNet, images

import pipeline
from jobs.memory import anonymous_megabytes, slope
from pipeline.errors import LayerError

BATCH = 20
METHODS = (
    {"integrated_gradcam": {"steps": 3}}, {"iscam": {"num_steps": 2}}, "increment_cam", "integrative_cam", "gradcam",
    {"rise": {"num_masks": 8}},
)  # fmt: skip


def belongings() -> tuple[int, int]:
    """Open files and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208


@pytest.mark.parametrize(
    "count",
    [1_000, pytest.param(20_000, marks=[pytest.mark.campaign, pytest.mark.timeout(3600)])],
)
def test_nothing_stays_behind(count: int) -> None:
    model, pixels_BCHW = StagedNet(0), images(0, count=BATCH, side=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done, megabytes = list[int](), list[float]()
    held: tuple[int, int] | None = None
    for number in range(count // BATCH):
        explanations = pipeline.explain(model, pixels_BCHW, methods=METHODS, layer="stage2", seed=number)
        pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop"])
        with pytest.raises(LayerError):
            pipeline.explain(model, pixels_BCHW, layer="nowhere")
        if number * BATCH >= count // 5:
            gc.collect()
            held = held or belongings()
            done.append(number * BATCH)
            megabytes.append(anonymous_megabytes(os.getpid()))
    assert belongings() == held
    assert not any(
        hooks
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    )
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    grown = slope(done, megabytes) * (count if count < 10_000 else 10_000)
    assert grown <= (5 if count < 10_000 else 1), f"{grown:.2f} MB"
