"""Sets how float32 numbers are multiplied: as IEEE 754 says, or with factors that are rounded to 10 bits (TF32).

PyTorch lets cuDNN round the factors of convolutions, so that fp32 on a GPU is not fp32. Here fp32 means IEEE 754 for
convolutions, recurrent layers and matrix products, on GPUs and on CPUs (where oneDNN may round too); TF32 is a
precision of its own. The float32 steps of a bf16 run multiply as IEEE 754 says.

PyTorch has an older and a newer set of switches for this, and raises an error where one that is read contradicts the
other: also in `torch.backends.cudnn.flags`, which models may use. So both say the same inside a block. What they said
before is restored at its end.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch

from pipeline.errors import ConfigError
from pipeline.settings.precision import Precision

Arithmetic = Literal["ieee", "tf32"]
Value = TypeVar("Value")

_BACKENDS: Any = torch.backends  # their attributes are made at import, where type checkers do not see them
_ON_GPUS: tuple[Any, ...] = (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn)
_ON_CPUS: tuple[Any, ...] = (_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn)
"""Stay IEEE 754 in any case: which processors could round, and how, differs from one to the next."""
_TF32_FROM = (8, 0)
"""Compute capability of the first GPUs that have TF32, Ampere."""


@dataclass(frozen=True)
class Switches:
    """What PyTorch's switches say.

    Attributes:
        fp32_precision: of matrix products, convolutions and recurrent layers on GPUs, then on CPUs.
        matmul, cudnn: the older switches; None where they contradict the newer ones, so that they cannot be read.
    """

    fp32_precision: tuple[str, ...]
    matmul: str | None
    cudnn: bool | None

    @classmethod
    def now(cls) -> "Switches":
        """Read them."""
        precisions = tuple(str(operation.fp32_precision) for operation in (*_ON_GPUS, *_ON_CPUS))
        return cls(precisions, _read(torch.get_float32_matmul_precision), _read(torch._C._get_cudnn_allow_tf32))

    @classmethod
    def of(cls, arithmetic: Arithmetic) -> "Switches":
        """Return what they say for an arithmetic."""
        is_tf32 = arithmetic == "tf32"
        precisions = (arithmetic,) * len(_ON_GPUS) + ("ieee",) * len(_ON_CPUS)
        return cls(precisions, "high" if is_tf32 else "highest", is_tf32)

    def use(self) -> None:
        """Set them: the older ones first, because they also set newer ones."""
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        if self.cudnn is not None:
            torch._C._set_cudnn_allow_tf32(self.cudnn)
        for operation, precision in zip((*_ON_GPUS, *_ON_CPUS), self.fp32_precision, strict=True):
            operation.fp32_precision = precision


def _read(switch: Callable[[], Value]) -> Value | None:
    try:
        return switch()
    except RuntimeError:  # the program has mixed both sets
        return None


class _Blocks:
    """The blocks of this process that compute now; the settings belong to the process, not to a thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: list[tuple[int, Arithmetic]] = []
        self._before = Switches.now()

    def enter(self, wanted: Arithmetic) -> None:
        """Begin a block; wait while another thread computes in another way."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_another_way(wanted))
            if not self._open:
                self._before = Switches.now()
            self._open.append((threading.get_ident(), wanted))
            Switches.of(wanted).use()

    def leave(self) -> None:
        """End the latest block of this thread."""
        with self._changed:
            mine = [place for place, (thread, _) in enumerate(self._open) if thread == threading.get_ident()]
            del self._open[mine[-1]]
            if self._open:
                Switches.of(self._open[-1][1]).use()
            else:
                self._before.use()
            self._changed.notify_all()

    def _is_another_way(self, wanted: Arithmetic) -> bool:
        return any(thread != threading.get_ident() and way != wanted for thread, way in self._open)


_BLOCKS = _Blocks()


@contextmanager
def multiplying(precision: Precision) -> Iterator[None]:
    """Multiply float32 numbers as a precision says, inside this block and in every thread.

    Blocks may be nested. Another thread that wants to multiply in another way waits until this block has ended.
    """
    _BLOCKS.enter("tf32" if precision == "tf32" else "ieee")
    try:
        yield
    finally:
        _BLOCKS.leave()


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise ConfigError for an unknown precision, and for tf32 on a device that would silently compute in fp32."""
    if precision not in get_args(Precision):
        raise ConfigError.one("precision", f"must be one of {', '.join(get_args(Precision))}, not {precision!r}")
    if precision != "tf32" or _has_tf32(device):
        return
    raise ConfigError.one(
        "precision", f"tf32 needs an NVIDIA GPU of the Ampere generation or later, not {device}", "use fp32, or bf16"
    )


def _has_tf32(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= _TF32_FROM
