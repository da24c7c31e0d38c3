"""The score that captum explains: the logit of each row's target class, as captum calls it, counted and batched.

Two forms of the same number. `Scores` is a function of the pixels; it runs in passes of bounded size, and its gradient
is computed pass by pass, so that captum may ask for any number of rows. `HookedScores` is a module whose parts captum
hooks, and runs all rows at once.

Legend: P rows of a call, R rows of a pass, C colours, (H, W) pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.model.engine import Exact
from pipeline.model.private_copy import PrivateModel, operations_of
from pipeline.model.probe import Probe
from pipeline.model.recording import plain_attention


class Scores:
    """The target logits of the unchanged model in float32, in passes of at most the probe's batch."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._exact = Exact(probe.model, probe.outputs)

    def __call__(self, pixels_PCHW: Tensor, targets_P: Tensor) -> Tensor:
        """Return the logit of each row's target class, (P,), on the device of the pixels."""
        if torch.is_grad_enabled() and pixels_PCHW.requires_grad:
            scores_P: Tensor = _Differentiated.apply(pixels_PCHW, targets_P, self)
            return scores_P
        with torch.no_grad():
            passes = self._probe.batcher.run(
                len(pixels_PCHW), lambda rows: self._pass(pixels_PCHW[rows], targets_P[rows])
            )
        return torch.cat(passes).to(pixels_PCHW.device)

    def _pass(self, pixels_RCHW: Tensor, targets_R: Tensor) -> Tensor:
        scores_R = self._read(self._padded(pixels_RCHW), targets_R, differentiable=False)
        self._probe.counts.forwards += len(scores_R)
        return scores_R

    def with_gradients(self, pixels_PCHW: Tensor, targets_P: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores (P,) and the gradient of each at its own pixels, (P, C, H, W)."""
        passes = self._probe.batcher.run(
            len(pixels_PCHW), lambda rows: self._differentiated(pixels_PCHW[rows], targets_P[rows])
        )
        scores, grads = zip(*passes, strict=True)
        return torch.cat(scores).to(pixels_PCHW), torch.cat(grads).to(pixels_PCHW)

    def _differentiated(self, pixels_RCHW: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            inputs_RCHW = self._padded(pixels_RCHW.detach()).requires_grad_()
            scores_R = self._read(inputs_RCHW, targets_R, differentiable=True)
            (grads_RCHW,) = torch.autograd.grad(scores_R.sum(), inputs_RCHW)
        self._probe.counts.forwards += len(scores_R)
        self._probe.counts.backwards += len(scores_R)
        return scores_R.detach(), grads_RCHW[: len(scores_R)]

    def _padded(self, pixels_RCHW: Tensor) -> Tensor:
        return self._probe.batcher.pad_images(pixels_RCHW.to(self._probe.device, torch.float32))

    def _read(self, padded_RCHW: Tensor, targets_R: Tensor, *, differentiable: bool) -> Tensor:
        outputs, logits_PN = self._probe.outputs, self._exact.logits(padded_RCHW, differentiable=differentiable)
        logits_PN = outputs.connected(logits_PN, [padded_RCHW]) if differentiable else logits_PN
        return outputs.target_logits(logits_PN[: len(targets_R)], targets_R.to(logits_PN.device))


class _Differentiated(torch.autograd.Function):
    """Scores whose gradients are computed in the forward pass: each row's score depends on its own pixels alone."""

    @staticmethod
    def forward(ctx: Any, pixels_PCHW: Tensor, targets_P: Tensor, scores: Scores) -> Tensor:  # noqa: ANN401 - torch's
        """Compute the scores, and keep their gradients."""
        scores_P, grads_PCHW = scores.with_gradients(pixels_PCHW, targets_P)
        ctx.save_for_backward(grads_PCHW)
        return scores_P

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream_P: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's
        """Scale the kept gradients."""
        (grads_PCHW,) = ctx.saved_tensors
        return upstream_P[:, None, None, None] * grads_PCHW, None, None


class HookedScores(nn.Module):
    """The target logits of a private copy of the model, whose modules captum hooks.

    Args:
        probe: the model, on its device.
        pixels_1CHW: an image of the size that will be explained.
        sharing: whether the copy shares its parameters with the model; see `copied`.

    Attributes:
        forwards, backwards: rows that ran, including padding.
    """

    def __init__(self, probe: Probe, pixels_1CHW: Tensor, *, sharing: bool = True) -> None:
        super().__init__()
        calls = operations_of(probe.model, probe.outputs, pixels_1CHW).calls
        self.private = PrivateModel(probe.model, probe.outputs, calls, sharing=sharing)
        self._outputs = probe.outputs
        self.forwards = self.backwards = 0

    def layer(self, name: str) -> nn.Module:
        """Return a module of the copy by its name in the model."""
        return self.private.model.get_submodule(name)

    def forward(self, pixels_PCHW: Tensor, targets_P: Tensor) -> Tensor:
        """Return the logit of each row's target class, (P,)."""
        self.forwards += len(pixels_PCHW)
        with plain_attention(wanted=torch.is_grad_enabled()):
            logits_PN = self._outputs.connected(self.private(pixels_PCHW), [pixels_PCHW])
            scores_P = self._outputs.target_logits(logits_PN, targets_P)
        if scores_P.requires_grad:
            scores_P.register_hook(self._count)  # type: ignore[no-untyped-call]
        return scores_P

    def _count(self, grads_P: Tensor) -> None:
        self.backwards += len(grads_P)
