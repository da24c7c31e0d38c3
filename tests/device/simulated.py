"""A simulated CUDA device on a machine without one.

`SimulatedTensor` says that it lives on cuda:0, and holds a tensor of the host, on which every operation runs: so values
are those of the CPU. It refuses what CUDA refuses (tensors of two devices, reading its memory as a NumPy array, random
generators of the host, pinning), and notes what makes the host wait, see `rules.py`. `simulated()` makes everything
that names the device land on it.

What it does not simulate: time, memory, work that goes on beside the host's, kernels of CUDA and their rounding, and
several devices.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from unittest import mock

import torch
from device import rules
from device.ledger import Ledger
from device.streams import Stream
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map_only

DEVICE = torch.device("cuda", 0)
_NO_NUMPY = (
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first."
)
_OF_NUMBERS = ("tensor", "as_tensor", "asarray")
_ledger = Ledger()


class SimulatedTensor(Tensor):
    """A tensor on the simulated device; `held` is the tensor of the host with its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type["SimulatedTensor"], held: Tensor) -> "SimulatedTensor":
        tensor: SimulatedTensor = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device="cpu"
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        rules.refuse(func, args, kwargs, is_here)
        for reason in rules.waits(func, args, kwargs, is_here):
            _ledger.wait(reason)
        if rules.is_launch(func):
            _ledger.launch(func._schema.name.removeprefix("aten::"))
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        with torch._C.DisableTorchFunction():
            held_args, held_kwargs = tree_map_only(SimulatedTensor, lambda tensor: tensor.held, (args, kwargs))
            out = func(*held_args, **held_kwargs)
            out = tree_map_only(Tensor, on_device, out)
            return return_and_correct_aliasing(func, args, kwargs, out)

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def __repr__(self, **_: object) -> str:
        return f"simulated({self.held})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = SimulatedTensor(self.held.clone())
        is_parameter = isinstance(self, nn.Parameter)
        memo[id(self)] = nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        return memo[id(self)]

    def numpy(self, **_: object) -> Any:
        raise TypeError(_NO_NUMPY)

    def __array__(self, *_: object, **__: object) -> Any:
        raise TypeError(_NO_NUMPY)

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def pin_memory(self, *_: object) -> Tensor:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")

    def record_stream(self, _: object) -> None:
        """Does nothing: the simulation has one stream."""

    def tolist(self) -> Any:
        _ledger.wait("tolist")
        return self.held.tolist()

    def cpu(self, *_: object, **__: object) -> Tensor:
        return self.to("cpu")

    def cuda(self, *_: object, **__: object) -> Tensor:
        return self

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        target = Target.of(args, kwargs)
        if target.device is None or target.device.type == "cuda":
            return super().to(target.dtype or self.dtype, **target.others)
        if target.non_blocking:
            raise RuntimeError("a copy to the host that does not wait: its memory would be read before it has arrived")
        converted = self if target.dtype is None else super().to(target.dtype)
        _ledger.wait("copy to the host")
        return to_host(converted)


class Target(NamedTuple):
    """Where `Tensor.to` moves a tensor: arguments of `to` that are not set are None."""

    device: torch.device | None
    dtype: torch.dtype | None
    non_blocking: bool
    others: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> "Target":
        """Read the arguments of `to`: a device, a dtype, both, or another tensor."""
        others = dict(kwargs)
        device, dtype = others.pop("device", None), others.pop("dtype", None)
        non_blocking = others.pop("non_blocking", False)
        for given in (*args, *(others.pop(name) for name in ("other", "tensor") if name in others)):
            if isinstance(given, Tensor):
                device, dtype = given.device, given.dtype
            elif isinstance(given, torch.dtype):
                dtype = given
            elif isinstance(given, bool):
                non_blocking = non_blocking or given
            elif given is not None:
                device = given
        return cls(None if device is None else torch.device(device), dtype, non_blocking, others)


class _Landing(TorchFunctionMode):
    """Makes tensors of the host, and new ones, land on the simulated device where a call names it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], Tensor):
            if name == "one_hot" and is_here(args[0]):
                return _one_hot(*args, **kwargs)
            if name == "new_tensor" and is_here(args[0]):
                return _made(torch.tensor, args[1:], {"dtype": args[0].dtype, "device": DEVICE, **kwargs})
            if name in _OF_NUMBERS and is_here(args[0]) and kwargs.get("device") is not None:
                return args[0].to(kwargs["device"], kwargs.get("dtype") or args[0].dtype)
            if not is_here(args[0]) and name in _FROM_HOST:
                return _FROM_HOST[name](func, args, kwargs)
        if _names_device(kwargs.get("device")):
            return _made(func, args, kwargs)
        if func is torch.autograd.grad:
            with _LandingZeros():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


class _LandingZeros(TorchDispatchMode):
    """Lands the zeros that autograd makes for gradients that vanish; they are made below Python's factories."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return on_device(out) if func is torch.ops.aten.zeros.default else out


def _moved(func: Any, args: Any, kwargs: Any) -> Tensor:
    """`Tensor.to` of a tensor of the host."""
    target = Target.of(args[1:], kwargs)
    if target.device is None or target.device.type == "cpu":
        return func(*args, **kwargs)
    tensor: Tensor = args[0]
    if target.non_blocking and _is_pinned(tensor):
        _ledger.copy()
    else:
        _ledger.wait("copy of pageable memory to the device")
    return _landed(tensor if target.dtype is None else tensor.to(target.dtype))


def _pinned(func: Any, args: Any, kwargs: Any) -> Tensor:
    copy = args[0].clone()
    copy.untyped_storage().simulated_pinned = copy  # a part of pinned memory is pinned, too
    return copy


def _is_pinned(tensor: Tensor) -> bool:
    return hasattr(tensor.untyped_storage(), "simulated_pinned")


_FROM_HOST = {
    "to": _moved,
    "type_as": _moved,
    "cuda": lambda func, args, kwargs: _moved(func, (args[0], DEVICE), kwargs),
    "pin_memory": _pinned,
}


def _made(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Call a factory of tensors with the name of the simulated device."""
    rules.refuse_generator(kwargs.get("generator"))
    del kwargs["device"]
    if args and isinstance(args[0], SimulatedTensor):  # zeros_like, new_zeros and the like
        return func(*args, **kwargs)
    name = getattr(func, "__name__", "")
    if name in _OF_NUMBERS:
        _ledger.wait("numbers of the host to the device")
    elif not name.startswith("empty"):
        _ledger.launch(name)
    return _landed(func(*args, **kwargs))


def _one_hot(index: Tensor, num_classes: int) -> Tensor:
    """As CUDA does it: without reading the smallest and the largest index."""
    return index.new_zeros(*index.shape, num_classes).scatter_(-1, index[..., None], 1)


def is_here(tensor: Tensor) -> bool:
    """Tell whether a tensor is on the simulated device."""
    return isinstance(tensor, SimulatedTensor)


def on_device(tensor: Tensor) -> Tensor:
    """Put a tensor onto the device, sharing its memory."""
    return tensor if is_here(tensor) else SimulatedTensor(tensor)


def to_host(tensor: Tensor) -> Tensor:
    """Return a copy on the host."""
    if not isinstance(tensor, SimulatedTensor):
        return tensor
    if tensor.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("the simulation does not differentiate copies between devices")
    return tensor.held.clone()


def _landed(tensor: Tensor) -> Tensor:
    if tensor.requires_grad and not tensor.is_leaf and torch.is_grad_enabled():
        raise NotImplementedError("the simulation does not differentiate copies between devices")
    return SimulatedTensor(tensor.detach().clone()).requires_grad_(tensor.requires_grad)


def _names_device(device: object) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda"


class _Autocast(torch.autocast):
    """Autocast of the simulated device, which is that of the CPU; autocast of the CPU has no effect on a device."""

    def __init__(self, device_type: str, *args: Any, enabled: bool = True, **kwargs: Any) -> None:
        super().__init__("cpu", *args, enabled=enabled and device_type == "cuda", **kwargs)


@contextlib.contextmanager
def simulated() -> Iterator[Ledger]:
    """Simulate a CUDA device, and yield what the host asks of it."""
    global _ledger
    before, _ledger = _ledger, Ledger()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # or a moved parameter would keep its class
    ledger = _ledger
    functions = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *_: "simulated",
        "synchronize": lambda *_: ledger.wait("synchronize"),
        "Stream": Stream,
        "Event": Stream,
        "current_stream": Stream,
        "stream": lambda _: contextlib.nullcontext(),
        "is_current_stream_capturing": lambda: False,
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda *_: 0,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
    }
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.multiple(torch.cuda, **functions))
            stack.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", return_value=None))
            stack.enter_context(mock.patch.object(torch, "autocast", _Autocast))
            stack.enter_context(_Landing())
            yield ledger
    finally:
        _ledger = before
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
