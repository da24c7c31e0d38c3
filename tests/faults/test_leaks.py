"""One process explains many images: no hooks, files, threads or memory are leaked, also after errors."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from nets import StagedNet, images
from torch import Tensor, nn

import pipeline
from pipeline.bench.memory import anonymous_megabytes, slope
from pipeline.errors import LayerError
from pipeline.model import engine

BATCH = 20
METHODS = (
    {"integrated_gradcam": {"steps": 3}}, {"iscam": {"num_steps": 2}}, "increment_cam", "integrative_cam", "gradcam",
    {"rise": {"num_masks": 8}},
)  # fmt: skip


class OnPurpose(Exception):  # noqa: N818 - not an error of camatlas
    """The error that a model raises on purpose."""


class Accident:
    """Where a model fails: in which part of its pass, and after how many passes; nowhere at first."""

    where = ""
    passes = 0
    kind: type[BaseException] = OnPurpose

    def pass_begins(self) -> None:
        self.passes -= 1

    def at(self, place: str) -> None:
        if place == self.where and self.passes < 0:
            raise self.kind("on purpose")

    def __deepcopy__(self, _memo: object) -> "Accident":
        return self  # the fast copy of a model fails where the model does


class FailingBackward(torch.autograd.Function):
    """Passes values through, and may fail in the backward pass."""

    @staticmethod
    def forward(ctx: object, values: Tensor, accident: Accident) -> Tensor:
        ctx.accident = accident  # type: ignore[attr-defined]
        return values.clone()

    @staticmethod
    def backward(ctx: object, grads: Tensor) -> tuple[Tensor, None]:
        ctx.accident.at("backward")  # type: ignore[attr-defined]
        return grads, None


class Fragile(StagedNet):
    """A network that can fail in its trunk, in its head, and in the backward pass."""

    def __init__(self) -> None:
        super().__init__(0)
        self.accident = Accident()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if isinstance(pixels_BCHW, Tensor):  # not a stand-in, with which the engine traces a pass
            self.accident.pass_begins()
        self.accident.at("trunk")
        acts_BKuv = self.stage2(self.stage1(pixels_BCHW))
        self.accident.at("head")
        return self.linear(self.head(FailingBackward.apply(acts_BKuv, self.accident)).mean((2, 3)))

    @contextmanager
    def failing(self, where: str, after: int, kind: type[BaseException] = OnPurpose) -> Iterator[None]:
        self.accident.where, self.accident.passes, self.accident.kind = where, after, kind
        try:
            yield
        finally:
            self.accident.where = ""


ACCIDENTS: dict[str, tuple[str, str, int, str]] = {
    "the shared pass": ("gradcam", "trunk", 0, "_observe"),
    "the head of the shared pass": ("gradcam", "head", 0, "_observe"),
    "the shared backward pass": ("gradcam", "backward", 0, "gradients"),
    "a masked pass": ("scorecam", "trunk", 1, "target_scores"),
    "the head of a masked pass": ("scorecam", "head", 1, "target_scores"),
    "a head pass": ("recipro_cam", "head", 1, "logits"),
    "the pass of a path point": ("integrated_gradcam", "trunk", 2, "versions"),
    "the backward pass of a path point": ("integrated_gradcam", "backward", 2, "versions"),
    "the forward pass of pixel gradients": ("smoothgrad", "trunk", 1, "pixel_gradients"),
    "the backward pass to the pixels": ("smoothgrad", "backward", 1, "pixel_gradients"),
    "the backward pass through every bias": ("fullgrad", "backward", 0, "pixel_gradients"),
    "an optimised mask": ("opti_cam", "backward", 1, "pixel_gradients"),
}
"""By accident: the method, the part that fails, after how many passes, and the function that runs the pass."""


def run_and_fail(model: Fragile, accident: str, kind: type[BaseException] = OnPurpose) -> None:
    method, where, after, runner = ACCIDENTS[accident]
    tried = images(0, side=32)
    pipeline.explain(model, tried, layer="stage2", stages=model.STAGES)  # a model is tried once, before it is explained
    with model.failing(where, after, kind), pytest.raises(kind, match="on purpose") as broken:
        pipeline.explain(model, images(0, side=32), methods=[method], layer="stage2", stages=model.STAGES)
    assert runner in {entry.name for entry in broken.traceback}


def open_files_and_threads() -> tuple[int, int]:
    """Count the open files and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208


def hooks_of(owner: object) -> dict[str, list[object]]:
    """Return all hooks of a module or tensor, or the global ones of all modules, of every kind."""
    fields = vars(owner) if isinstance(owner, nn.Module) else {name: getattr(owner, name) for name in dir(owner)}
    return {name: list(value.items()) for name, value in fields.items() if "hooks" in name and isinstance(value, dict)}


def state_of(model: nn.Module) -> dict[str, object]:
    """Return all state of a model and of torch whose change a caller could notice."""
    return {
        "hooks": [hooks_of(module) for module in model.modules()],
        "hooks of all modules": hooks_of(torch.nn.modules.module),
        "hooks of tensors": [parameter._backward_hooks for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "values": {name: value.tolist() for name, value in model.state_dict().items()},
        "random": torch.get_rng_state().tolist(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
    }


def customised_model() -> Fragile:
    """Make a model in an unusual state: hooks, a gradient, frozen parameters, half of it in training mode."""
    model = Fragile()
    model.stage1.register_forward_hook(lambda _module, _inputs, output: output)
    model.stage2.register_forward_pre_hook(lambda _module, inputs: inputs)
    model.linear.bias.grad = torch.ones_like(model.linear.bias)
    model.stage1[0].weight.requires_grad_(False)
    model.stage2.train()
    return model


@pytest.mark.parametrize("kind", [OnPurpose, KeyboardInterrupt])
@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_accident_leaves_the_model_as_it_was(
    accident: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = customised_model()
    copies, make = list[nn.Module](), engine.fast_copy

    def recorded(*arguments: object) -> nn.Module:
        copies.append(make(*arguments))  # type: ignore[arg-type]
        return copies[-1]

    monkeypatch.setattr(engine, "fast_copy", recorded)
    before = state_of(model)
    run_and_fail(model, accident, kind)
    assert state_of(model) == before
    assert copies
    for copy in copies:
        assert all(hooks_of(module) == hooks_of(model.get_submodule(name)) for name, module in copy.named_modules())


def test_success_leaves_the_model_as_it_was() -> None:
    model, pixels_BCHW = customised_model(), images(0, side=32)
    before = state_of(model)
    methods = [*METHODS, "scorecam", "recipro_cam", "fullgrad", {"smoothgrad": {"samples": 2}}]
    explanations = pipeline.explain(model, pixels_BCHW, methods=methods, layer="stage2", stages=model.STAGES)
    assert state_of(model) == before
    pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop", "insertion"])
    assert state_of(model) == before
    with model.failing("trunk", 0), pytest.raises(OnPurpose):
        pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["deletion"])
    assert state_of(model) == before


@pytest.mark.parametrize(
    "count",
    [600, pytest.param(50_000, marks=[pytest.mark.campaign, pytest.mark.timeout(3 * 3600)])],
)
def test_nothing_is_leaked(count: int) -> None:
    model, pixels_BCHW = Fragile(), images(0, count=BATCH, side=32)
    before = state_of(model)
    done, megabytes = list[int](), list[float]()
    held: tuple[int, int] | None = None
    accidents = list(ACCIDENTS)
    for number in range(count // BATCH):
        explanations = pipeline.explain(
            model, pixels_BCHW, methods=METHODS, layer="stage2", stages=model.STAGES, seed=number
        )
        pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop"])
        with pytest.raises(LayerError):
            pipeline.explain(model, pixels_BCHW, layer="nowhere")
        run_and_fail(model, accidents[number % len(accidents)])
        if number * BATCH >= count // 5:
            gc.collect()
            held = held or open_files_and_threads()
            done.append(number * BATCH)
            megabytes.append(anonymous_megabytes(os.getpid()))
    assert open_files_and_threads() == held
    assert state_of(model) == before
    growth = slope(done, megabytes) * (count if count < 10_000 else 10_000)
    assert growth <= (5 if count < 10_000 else 1), f"{growth:.2f} MB"
