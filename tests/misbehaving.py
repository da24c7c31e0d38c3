"""Methods and metrics of a user that do what they must not, and what is said of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import camatlas

Do = Callable[[Any, Any], Tensor]


def method_of(
    do: Do, only: str = "", *, needs: camatlas.Needs | None = None, declared: Any = None, params: Any = None
) -> Any:
    """Make a method that does what a test wants; a plain one where the image that it fails on is not in the batch."""

    @dataclass(frozen=True)
    class Mine(camatlas.BaseMethod):
        params: Any = None
        name: ClassVar[str] = "mine"

        def __call__(self, evidence: Any, probe: Any) -> Tensor:
            return do(evidence, probe) if not only or only in evidence.keys else plain(evidence, probe)

    Mine.__qualname__ = "Mine"
    if needs is not None:
        Mine.needs = needs
    if declared is not None:
        Mine.cost = lambda self, net: declared  # type: ignore[attr-defined]
    return Mine(params)


def metric_of(do: Callable[[Any], Tensor], *seen: Any, reads: str = "probability") -> Any:
    """Make a metric that does what a test wants."""

    @dataclass(frozen=True)
    class Valued(camatlas.BaseMetric):
        name: ClassVar[str] = "valued"

        def views(self) -> tuple[Any, ...]:
            return seen

        def __call__(self, batch: Any) -> Tensor:
            return do(batch)

    Valued.__qualname__ = "Valued"
    Valued.reads = reads  # type: ignore[assignment]
    return Valued()


def plain(evidence: Any, probe: Any) -> Tensor:
    return evidence.acts_BKuv.relu().mean(1)


def on_rows(key: str, evidence: Any, do: Do, factor: float) -> Tensor:
    """Multiply the maps of one image by a number."""
    factors = torch.tensor([factor if each == key else 1.0 for each in evidence.keys])
    return do(evidence, None) * factors[:, None, None]


def raising(evidence: Any, probe: Any) -> Tensor:
    raise KeyError("oops")


def exiting(evidence: Any, probe: Any) -> Tensor:
    raise SystemExit(3)


def flat(evidence: Any, probe: Any) -> Tensor:
    return evidence.acts_BKuv.mean((1, 2, 3))


def nan(evidence: Any, probe: Any) -> Tensor:
    return plain(evidence, probe) * torch.nan


def training(evidence: Any, probe: Any) -> Tensor:
    probe.model.train()
    return plain(evidence, probe)


def frozen(evidence: Any, probe: Any) -> Tensor:
    probe.model.requires_grad_(False)
    return plain(evidence, probe)


def hooked(evidence: Any, probe: Any) -> Tensor:
    probe.model.features[0].register_forward_hook(lambda *_: None)
    return plain(evidence, probe)


def doubled(evidence: Any, probe: Any) -> Tensor:
    with torch.no_grad():
        probe.model.linear.weight.mul_(2)
    return plain(evidence, probe)


def doubled_unseen(evidence: Any, probe: Any) -> Tensor:
    probe.model.linear.weight.data.mul_(2)  # which no version counter shows
    return plain(evidence, probe)


def replaced(evidence: Any, probe: Any) -> Tensor:
    probe.model.linear.weight.data = torch.zeros_like(probe.model.linear.weight)
    return plain(evidence, probe)


def swapped(evidence: Any, probe: Any) -> Tensor:
    probe.model.linear = nn.Identity()
    return plain(evidence, probe)


def patched(evidence: Any, probe: Any) -> Tensor:
    probe.model.forward = lambda pixels: pixels
    return plain(evidence, probe)


def differentiated(evidence: Any, probe: Any) -> Tensor:
    with torch.enable_grad():
        probe.model(evidence.pixels_BCHW).sum().backward()
    return plain(evidence, probe)


def reseeded(evidence: Any, probe: Any) -> Tensor:
    probe.seed = 7
    return plain(evidence, probe)


CHANGES: dict[Do, str] = {
    training: "changed the training mode of the model",
    frozen: "changed requires_grad of features.0.weight",
    hooked: "changed the hooks of features.0",
    doubled: "changed the values of linear.weight",
    doubled_unseen: "changed the values of linear.weight",
    replaced: "changed the values of linear.weight",
    swapped: "changed the modules of the model",
    patched: "changed the forward function of the model",
    differentiated: "changed the gradient of features.0.weight (torch.autograd.grad leaves none)",
    reseeded: "changed the probe's seed",
}
FAULTS: dict[Do, str] = {
    raising: "raised KeyError: 'oops'",
    exiting: "raised SystemExit: 3",
    flat: "returned a tensor of the shape (1,); a method returns a float tensor (1, u, v)",
    lambda evidence, probe: None: "returned a NoneType; a method returns",  # type: ignore[dict-item, return-value]
    lambda evidence, probe: plain(evidence, probe) > 0: "returned a tensor of torch.bool",
    **CHANGES,
}


def random_each_call(evidence: Any, probe: Any) -> Tensor:
    return plain(evidence, probe) + torch.rand(1)


def scaled_by_batch(evidence: Any, probe: Any) -> Tensor:
    return plain(evidence, probe) / plain(evidence, probe).amax()


def of_first_target(evidence: Any, probe: Any) -> Tensor:
    return evidence.gradients(lambda logits_RN, targets_R: logits_RN[:, targets_R[0]])[evidence.layer].mean(1)


def in_place(evidence: Any, probe: Any) -> Tensor:
    evidence.acts_BKuv.relu_()
    evidence.acts_BKuv.sub_(1)
    evidence.pixels_BCHW.zero_()
    return evidence.acts_BKuv.mean(1)


def gradient_without_need(evidence: Any, probe: Any) -> Tensor:
    return (evidence.grads_BKuv * evidence.acts_BKuv).sum(1)


def forward_twice(evidence: Any, probe: Any) -> Tensor:
    for scale in (0.5, 0.9):
        probe.capture(evidence.pixels_BCHW * scale, evidence.targets_B, gradients=True)
    return plain(evidence, probe)


def state(model: nn.Module) -> list[Any]:
    return [
        *((name, tensor.clone(), tensor.requires_grad) for name, tensor in model.state_dict(keep_vars=True).items()),
        *((name, module.training, dict(module._forward_hooks)) for name, module in model.named_modules()),
        *(parameter.grad is None for parameter in model.parameters()),
    ]


def faded(evidence: Any, probe: Any) -> Tensor:
    for weights_BTT in evidence.attention.weights:
        weights_BTT.zero_()
    return plain(evidence, probe)
