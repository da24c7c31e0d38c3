"""Evidence and Probe: everything the gradient methods need, from one forward pass and one short backward pass.

The trunk (input to target layer) runs without autograd; the hook on the target layer detaches its output,
makes it a leaf and switches autograd on, so that only the head (target layer to logits) is differentiated.
That works for any module tree, with frozen parameters, in-place operations behind the layer, models left in
training mode, and `torch.inference_mode()` around the call. The model is left exactly as it was found.

Legend: B images, C colours, (H, W) pixels, K channels, (u, v) grid, N classes.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import LayerError
from pipeline.model.baselines import Baseline, Normalisation, baseline_pixels
from pipeline.model.batching import Batcher
from pipeline.model.counts import Counts
from pipeline.model.layers import resolve_layer
from pipeline.model.scorer import Scorer

Precision = Literal["fp32", "bf16"]
DEFAULT_BATCH = 32


@dataclass(frozen=True)
class Evidence:
    """What one forward pass (and at most one backward pass through the head) gave, for a batch.

    Attributes:
        pixels_BCHW: the normalised input.
        layer: name of the target layer.
        acts: output of each captured layer, (B, K, u, v), float32.
        grads: derivative of the target logit with respect to `acts`; empty when none were asked for.
        logits_BN: pre-softmax outputs, float32.
        targets_B: the explained class of each image.
    """

    pixels_BCHW: Tensor
    layer: str
    acts: Mapping[str, Tensor]
    grads: Mapping[str, Tensor]
    logits_BN: Tensor
    targets_B: Tensor

    @property
    def acts_BKuv(self) -> Tensor:
        """Activations of the target layer."""
        return self.acts[self.layer]

    @property
    def grads_BKuv(self) -> Tensor:
        """Gradients of the target logit with respect to the target layer's activations."""
        return self.grads[self.layer]

    @property
    def target_logits_B(self) -> Tensor:
        """The explained logit of each image."""
        return self.logits_BN.gather(1, self.targets_B[:, None])[:, 0]

    @property
    def target_confidences_B(self) -> Tensor:
        """Softmax probability of the explained class of each image."""
        return self.logits_BN.softmax(1).gather(1, self.targets_B[:, None])[:, 0]

    def select(self, rows: Tensor | slice) -> "Evidence":
        """Keep some images of the batch."""
        return replace(
            self,
            pixels_BCHW=self.pixels_BCHW[rows],
            acts={name: acts[rows] for name, acts in self.acts.items()},
            grads={name: grads[rows] for name, grads in self.grads.items()},
            logits_BN=self.logits_BN[rows],
            targets_B=self.targets_B[rows],
        )


class Probe:
    """One model with its target layer, on one device at one precision.

    Args:
        model: any classifier that maps (B, C, H, W) to logits (B, N); never changed.
        layer: name of a module, the module itself, or "auto" for the last convolutional stage.
        precision: "fp32", or "bf16" for autocast; results are float32 either way.
        batch: most images in one pass; halved when memory runs out.
        batch_multiple: passes are filled up to a multiple of this many images, which keeps results bit-equal
            whatever the batch on backends whose kernels depend on its size (CPU: 16).
        normalisation: what made the inputs; the baselines `black` and `blur` need it.

    Raises:
        LayerError: the layer is unknown, not unique in a forward pass, or not spatial.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module = "auto",
        *,
        precision: Precision = "fp32",
        batch: int = DEFAULT_BATCH,
        batch_multiple: int = 1,
        normalisation: Normalisation | None = None,
    ) -> None:
        if any(parameter.is_inference() for parameter in model.parameters()):
            raise LayerError("the model was built inside torch.inference_mode(); build it outside, then explain it")
        self.model = model
        self.layer, self._module = resolve_layer(model, layer)
        self.precision: Precision = precision
        self.batcher = Batcher(batch, batch_multiple)
        self.normalisation = normalisation or Normalisation()
        self.counts = Counts()
        self.scorer = Scorer(self._logits, self.counts, self.normalisation, Batcher(batch, batch_multiple))
        self._baseline_acts: dict[tuple[Any, ...], Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def capture(self, pixels_BCHW: Tensor, targets_B: Tensor | None = None, *, gradients: bool) -> Evidence:
        """Run the model once and keep what the target layer did.

        Args:
            pixels_BCHW: normalised images.
            targets_B: class to explain of each image; None takes the predicted class.
            gradients: also differentiate the target logits with respect to the layer, by one head backward.
        """
        captured = self.batcher.run(
            len(pixels_BCHW),
            lambda rows: self._capture(pixels_BCHW[rows], None if targets_B is None else targets_B[rows], gradients),
        )
        return captured[0] if len(captured) == 1 else _concatenated(captured)

    def baseline_acts(self, kind: Baseline, pixels_BCHW: Tensor) -> Tensor:
        """Activations (1 or B, K, u, v) of the baseline images; those that all images share are kept."""
        if kind == "blur":
            return self.capture(baseline_pixels(kind, pixels_BCHW, self.normalisation), gradients=False).acts_BKuv
        key = (kind, tuple(pixels_BCHW.shape[1:]))
        if key not in self._baseline_acts:
            one = baseline_pixels(kind, pixels_BCHW[:1], self.normalisation)
            self._baseline_acts[key] = self.capture(one, gradients=False).acts_BKuv
        return self._baseline_acts[key]

    def baseline_pixels(self, kind: Baseline, pixels_BCHW: Tensor) -> Tensor:
        """Baseline images in the shape of the given ones."""
        return baseline_pixels(kind, pixels_BCHW, self.normalisation)

    def _capture(self, pixels_BCHW: Tensor, targets_B: Tensor | None, gradients: bool) -> Evidence:
        count = len(pixels_BCHW)
        filled_BCHW = self.batcher.fill(pixels_BCHW.to(self.device, torch.float32))
        filled_B = None if targets_B is None else self.batcher.fill(targets_B.to(self.device))
        with torch.inference_mode(False):
            evidence = self._differentiate(_normal(filled_BCHW), filled_B, gradients)
        self.counts.forwards += count
        self.counts.backwards += count if gradients else 0
        return evidence if len(filled_BCHW) == count else evidence.select(slice(count))

    def _differentiate(self, pixels_BCHW: Tensor, targets_B: Tensor | None, gradients: bool) -> Evidence:
        saved: dict[str, Tensor] = {}
        with self._recording(saved, gradients):
            logits_BN = self._logits(pixels_BCHW)
        acts_BKuv = self._spatial(saved)
        if targets_B is None:
            targets_B = logits_BN.argmax(1)
        elif bool(((targets_B < 0) | (targets_B >= logits_BN.shape[1])).any()):
            raise ValueError(f"a target is no class index below {logits_BN.shape[1]}")
        grads = {}
        if gradients:
            target_logits_B = logits_BN.gather(1, targets_B.long()[:, None])
            grads = {self.layer: self._gradient(target_logits_B.sum(), acts_BKuv)}
        return Evidence(
            pixels_BCHW,
            self.layer,
            {self.layer: acts_BKuv.detach().float()},
            grads,
            logits_BN.detach(),
            targets_B,
        )

    def _gradient(self, logit: Tensor, acts_BKuv: Tensor) -> Tensor:
        if logit.requires_grad:
            (grads_BKuv,) = torch.autograd.grad(logit, acts_BKuv, allow_unused=True)
            if grads_BKuv is not None:
                return grads_BKuv.float()
        raise LayerError(f"layer '{self.layer}' has no influence on the logits; choose a layer on the way to them")

    def _logits(self, pixels_BCHW: Tensor) -> Tensor:
        with (
            _evaluating(self.model),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            logits_BN = self.model(pixels_BCHW)
        if not isinstance(logits_BN, Tensor) or logits_BN.ndim != 2:
            raise LayerError(
                "the model must return one tensor of logits (B, N); wrap it in a module that picks them out"
            )
        return logits_BN.float()

    @contextmanager
    def _recording(self, saved: dict[str, Tensor], gradients: bool) -> Iterator[None]:
        """Run the trunk without autograd and the head with it; the hook is gone afterwards."""

        def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor:
            if self.layer in saved:
                raise LayerError(f"layer '{self.layer}' runs more than once in a forward pass; choose another")
            if not isinstance(output, Tensor):
                raise LayerError(f"layer '{self.layer}' gives {type(output).__name__}, not one tensor")
            acts = output.detach().requires_grad_(gradients)
            saved[self.layer] = acts
            torch.set_grad_enabled(gradients)  # until the no_grad below ends
            return acts.clone()  # in-place operations behind the layer change the clone

        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            handle = self._module.register_forward_hook(keep)
            stack.callback(handle.remove)
            yield

    def _spatial(self, saved: Mapping[str, Tensor]) -> Tensor:
        acts = saved.get(self.layer)
        if acts is None:
            raise LayerError(f"layer '{self.layer}' does not run in a forward pass; choose another")
        if acts.ndim != 4:
            raise LayerError(f"layer '{self.layer}' gives shape {tuple(acts.shape)}, not activation maps (B, K, u, v)")
        return acts


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and put every module back as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _normal(tensor: Tensor) -> Tensor:
    """Copy a tensor made in inference mode, which autograd would refuse."""
    return tensor.clone() if tensor.is_inference() else tensor


def _concatenated(captured: list[Evidence]) -> Evidence:
    first = captured[0]
    return Evidence(
        torch.cat([evidence.pixels_BCHW for evidence in captured]),
        first.layer,
        {name: torch.cat([evidence.acts[name] for evidence in captured]) for name in first.acts},
        {name: torch.cat([evidence.grads[name] for evidence in captured]) for name in first.grads},
        torch.cat([evidence.logits_BN for evidence in captured]),
        torch.cat([evidence.targets_B for evidence in captured]),
    )
