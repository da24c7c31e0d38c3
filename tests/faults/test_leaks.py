"""One process explains on and on: no hook, file, thread or memory stays behind, also after errors."""

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


class OnPurpose(Exception):  # noqa: N818 - no error of ours
    """What breaks."""


class Accident:
    """Where a model breaks: in a part of its pass, from a pass on; nowhere at first."""

    where = ""
    passes = 0
    kind: type[BaseException] = OnPurpose

    def pass_begins(self) -> None:
        self.passes -= 1

    def at(self, place: str) -> None:
        if place == self.where and self.passes < 0:
            raise self.kind("on purpose")

    def __deepcopy__(self, _memo: object) -> "Accident":
        return self  # the fast copy of a model breaks where the model does


class Breaking(torch.autograd.Function):
    """Hands values on; breaks on the way back."""

    @staticmethod
    def forward(ctx: object, values: Tensor, accident: Accident) -> Tensor:
        ctx.accident = accident  # type: ignore[attr-defined]
        return values.clone()

    @staticmethod
    def backward(ctx: object, grads: Tensor) -> tuple[Tensor, None]:
        ctx.accident.at("back")  # type: ignore[attr-defined]
        return grads, None


class Fragile(StagedNet):
    """A network that can break in its trunk, in its head, and on the way back."""

    def __init__(self) -> None:
        super().__init__(0)
        self.accident = Accident()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if isinstance(pixels_BCHW, Tensor):  # no stand-in, with which the engine follows a pass
            self.accident.pass_begins()
        self.accident.at("trunk")
        acts_BKuv = self.stage2(self.stage1(pixels_BCHW))
        self.accident.at("head")
        return self.linear(self.head(Breaking.apply(acts_BKuv, self.accident)).mean((2, 3)))

    @contextmanager
    def breaking(self, where: str, after: int, kind: type[BaseException] = OnPurpose) -> Iterator[None]:
        self.accident.where, self.accident.passes, self.accident.kind = where, after, kind
        try:
            yield
        finally:
            self.accident.where = ""


ACCIDENTS: dict[str, tuple[str, str, int, str]] = {
    "the shared pass": ("gradcam", "trunk", 0, "_observe"),
    "the head of the shared pass": ("gradcam", "head", 0, "_observe"),
    "the shared way back": ("gradcam", "back", 0, "gradients"),
    "a masked pass": ("scorecam", "trunk", 1, "answers"),
    "the head of a masked pass": ("scorecam", "head", 1, "answers"),
    "a head pass": ("recipro_cam", "head", 1, "_through"),
    "the pass of a path point": ("integrated_gradcam", "trunk", 2, "versions"),
    "the way back of a path point": ("integrated_gradcam", "back", 2, "versions"),
    "the pass back to the pixels": ("smoothgrad", "trunk", 1, "_backward"),
    "the way back to the pixels": ("smoothgrad", "back", 1, "_backward"),
    "the way back past every bias": ("fullgrad", "back", 0, "_backward"),
    "an optimised mask": ("opti_cam", "back", 1, "_backward"),
}
"""The method that meets the accident, the part that breaks, after how many passes, and who ran that pass."""


def break_in(model: Fragile, accident: str, kind: type[BaseException] = OnPurpose) -> None:
    method, where, after, runner = ACCIDENTS[accident]
    with model.breaking(where, after, kind), pytest.raises(kind, match="on purpose") as broken:
        pipeline.explain(model, images(0, side=32), methods=[method], layer="stage2", stages=model.STAGES)
    assert runner in {entry.name for entry in broken.traceback}


def belongings() -> tuple[int, int]:
    """Open files and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))  # noqa: PTH208


def hooks_of(owner: object) -> dict[str, list[object]]:
    """All hooks of a module, of a tensor or of all modules, of whatever kind."""
    fields = vars(owner) if isinstance(owner, nn.Module) else {name: getattr(owner, name) for name in dir(owner)}
    return {name: list(value.items()) for name, value in fields.items() if "hooks" in name and isinstance(value, dict)}


def state_of(model: nn.Module) -> dict[str, object]:
    """Everything about a model and about torch that a caller could find changed."""
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


def of_a_caller() -> Fragile:
    """A model in a state of its own: hooks, a gradient, frozen parts, half of it in training."""
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
    model = of_a_caller()
    copies, make = list[nn.Module](), engine.fast_copy

    def noted(*given: object) -> nn.Module:
        copies.append(make(*given))  # type: ignore[arg-type]
        return copies[-1]

    monkeypatch.setattr(engine, "fast_copy", noted)
    before = state_of(model)
    break_in(model, accident, kind)
    assert state_of(model) == before
    assert copies
    for copy in copies:
        assert all(hooks_of(module) == hooks_of(model.get_submodule(name)) for name, module in copy.named_modules())


def test_what_goes_well_leaves_the_model_as_it_was() -> None:
    model, pixels_BCHW = of_a_caller(), images(0, side=32)
    before = state_of(model)
    methods = [*METHODS, "scorecam", "recipro_cam", "fullgrad", {"smoothgrad": {"samples": 2}}]
    explanations = pipeline.explain(model, pixels_BCHW, methods=methods, layer="stage2", stages=model.STAGES)
    assert state_of(model) == before
    pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop", "insertion"])
    assert state_of(model) == before
    with model.breaking("trunk", 0), pytest.raises(OnPurpose):
        pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["deletion"])
    assert state_of(model) == before


@pytest.mark.parametrize(
    "count",
    [600, pytest.param(50_000, marks=[pytest.mark.campaign, pytest.mark.timeout(3 * 3600)])],
)
def test_nothing_stays_behind(count: int) -> None:
    model, pixels_BCHW = Fragile(), images(0, count=BATCH, side=32)
    before = state_of(model)
    done, megabytes = list[int](), list[float]()
    held: tuple[int, int] | None = None
    accidents = list(ACCIDENTS)
    for number in range(count // BATCH):
        explanations = pipeline.explain(model, pixels_BCHW, methods=METHODS, layer="stage2", seed=number)
        pipeline.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop"])
        with pytest.raises(LayerError):
            pipeline.explain(model, pixels_BCHW, layer="nowhere")
        break_in(model, accidents[number % len(accidents)])
        if number * BATCH >= count // 5:
            gc.collect()
            held = held or belongings()
            done.append(number * BATCH)
            megabytes.append(anonymous_megabytes(os.getpid()))
    assert belongings() == held
    assert state_of(model) == before
    grown = slope(done, megabytes) * (count if count < 10_000 else 10_000)
    assert grown <= (5 if count < 10_000 else 1), f"{grown:.2f} MB"
