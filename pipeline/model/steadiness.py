"""Checks that a model gives an image the same logits in every pass: again, alone, and among other images.

Legend: B images, N classes.
"""

import random
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError

_WHERE = "model.name"
_BATCH_TOLERANCE = 1e-3
"""How far other images of a batch may change a logit, relative to the largest logit; rounding stays far below."""
_REPEAT_TOLERANCE = {"cpu": 1e-5}
"""How far equal passes may differ, relative to the largest logit; GPUs may choose another algorithm, so as above."""
_MANY = 24
"""Number of equal passes of a model that draws random numbers or changes its state, which may matter only rarely."""


class Steadiness:
    """Runs a model on a few images and raises ConfigError if its logits depend on chance, on state or on the batch.

    Args:
        model: the model.
        run: runs it in evaluation mode, without autograd, and returns logits (B, N).
        pixels_BCHW: at least two different images.
        missed: tells which classes a detector did not find, (B, N) bool. They are not compared: a detector keeps its
            best boxes only, so that which class is the last to be found may be a matter of rounding.

    Attributes:
        logits_2N: the logits of the first two images.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[Tensor], Tensor],
        pixels_BCHW: Tensor,
        missed: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._run, self._first_1CHW, self._missed = run, pixels_BCHW[:1], missed
        with torch.no_grad():
            self._first_1N = run(self._first_1CHW)  # the first pass may fill caches, which is no state
            before = _state(model)
            self.check_again()
            if _state(model) != before:
                for _ in range(_MANY):
                    self.check_again()
            self.logits_2N = run(pixels_BCHW[:2])
            self._check_alone(self._first_1N, self.logits_2N[:1])
            self._check_alone(run(pixels_BCHW[1:2]), self.logits_2N[1:])

    @torch.no_grad()
    def check_again(self) -> None:
        """Raise ConfigError if the first image has other logits now than in the first pass."""
        now_1N = self._run(self._first_1CHW)
        tolerance = _REPEAT_TOLERANCE.get(now_1N.device.type, _BATCH_TOLERANCE)
        if self._differ(self._first_1N, now_1N, tolerance):
            raise ConfigError.one(
                _WHERE,
                "the logits of an image change from one pass to the next, although the model is in evaluation mode",
                "it draws random numbers (functional dropout needs training=self.training) or keeps state between "
                "passes; build the model without that",
            )

    def check_finite(self) -> None:
        """Raise ConfigError if a logit is NaN or infinite."""
        if not self.logits_2N.isfinite().all():
            raise ConfigError.one(
                _WHERE,
                "the logits of random images contain NaN or infinity",
                "check the model's weights and model.preprocess",
            )

    def check_copy(self, copied_1N: Tensor) -> None:
        """Raise ConfigError if the engine's copy of the model gives the first image other logits than the model."""
        if self._differ(self._first_1N, copied_1N, _BATCH_TOLERANCE):
            raise ConfigError.one(
                _WHERE,
                "a copy of the model gives other logits than the model",
                "its modules share state that a copy does not have, such as functions bound to other modules",
            )

    def _check_alone(self, alone_1N: Tensor, together_1N: Tensor) -> None:
        if self._differ(alone_1N, together_1N, _BATCH_TOLERANCE):
            raise ConfigError.one(
                _WHERE,
                "an image has other logits alone than in a batch, although the model is in evaluation mode",
                "a layer normalises over the batch (batch norm without running statistics); build the model without it",
            )

    def _differ(self, one_BN: Tensor, other_BN: Tensor, tolerance: float) -> bool:
        if self._missed is not None:
            one_BN = one_BN.masked_fill(self._missed(one_BN), torch.nan)
            other_BN = other_BN.masked_fill(self._missed(other_BN), torch.nan)
        return _differ(one_BN, other_BN, tolerance)


def structure(model: nn.Module) -> tuple[object, ...]:
    """Return what identifies the modules of a model, whatever their parameters' values are.

    It changes when a module, a hook or a forward function is replaced, and when a parameter gets another shape.
    """
    return tuple(
        (
            id(module),
            type(module),
            id(vars(module).get("forward")),
            (*module._forward_hooks, *module._forward_pre_hooks),
            tuple(tuple(parameter.shape) for parameter in module.parameters(recurse=False)),
        )
        for module in model.modules()
    )


def _differ(one_BN: Tensor, other_BN: Tensor, tolerance: float) -> bool:
    """Tell whether finite logits differ by more than rounding, relative to the largest one."""
    if one_BN.shape != other_BN.shape:
        return True
    both_BN = one_BN.isfinite() & other_BN.isfinite()
    if not both_BN.any():
        return False
    one, other = one_BN[both_BN], other_BN[both_BN]
    scale = max(float(one.abs().max()), 1e-6)
    return float((one - other).abs().max()) > tolerance * scale


def _state(model: nn.Module) -> tuple[object, ...]:
    """Return what changes when a model draws random numbers, counts its calls or writes to its tensors."""
    plain = [
        value for module in model.modules() for value in vars(module).values() if isinstance(value, (int, float, str))
    ]
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_inference()]
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    return tuple(plain), tuple(tensor._version for tensor in tensors), *random_numbers(devices)


def random_numbers(devices: Iterable[torch.device] = ()) -> tuple[object, ...]:
    """Return what changes when code draws random numbers of torch, Python or numpy."""
    generators = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    _, numpy_key, numpy_place, *_ = np.random.get_state()
    return (
        tuple(state.numpy().tobytes() for state in generators),
        random.getstate(),
        np.asarray(numpy_key).tobytes(),
        numpy_place,
    )
