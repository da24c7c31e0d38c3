"""The rules of CUDA that a simulated device follows: what it refuses, what makes the host wait, and what is free.

The words of refusals are those of PyTorch, so that a test may compare them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
IsHere = Callable[[Tensor], bool]
"""Tells whether a tensor is on the device."""

_INDEXED = {
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
_NUMBER_AT_INDEX = aten.index_fill_.int_Scalar
"""What `x[index] = number` becomes here; on CUDA it takes an index of the host, as other assignments do."""
_COPIES = {aten.copy_.default, aten._to_copy.default}
_TAKES_SCALARS = {aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.fill_.Tensor, aten.index_fill.int_Tensor}
"""Operations that take a CPU tensor of one number besides those that PyTorch marks as pointwise."""
_WAITS = {
    aten._local_scalar_dense.default: "reads a number",
    aten.equal.default: "equal",
    aten.allclose.default: "allclose",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
    aten._linalg_eigh.default: "checks a decomposition",
    aten._linalg_svd.default: "checks a decomposition",
    aten.linalg_eig.default: "checks a decomposition",
}
_FREE = {
    aten._local_scalar_dense.default, aten.equal.default, aten.is_same_size.default, aten.detach.default,
    aten.alias.default, aten.lift_fresh.default, aten.set_.source_Tensor, aten._unsafe_view.default,
    aten._reshape_alias.default, aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default,
    aten.is_pinned.default,
}  # fmt: skip
"""Operations without work on the device, besides views."""


def refuse(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], is_here: IsHere) -> None:
    """Raise the error of CUDA for tensors of two devices, and for a random generator of the host."""
    refuse_generator(kwargs.get("generator"))
    tensors = _tensors((args, kwargs))
    strangers = [tensor for tensor in tensors if not is_here(tensor)]
    if not strangers or func in _COPIES:
        return
    if func in _INDEXED:
        _refuse_indexing(args, is_here)
        return
    if func is _NUMBER_AT_INDEX and is_here(args[0]):
        return
    is_pointwise = torch.Tag.pointwise in func.tags or func in _TAKES_SCALARS
    writes = func._schema.name.endswith("_")
    if is_pointwise and all(tensor.ndim == 0 for tensor in strangers) and (is_here(args[0]) or not writes):
        return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func})"
    )


def refuse_generator(generator: torch.Generator | None) -> None:
    """Raise the error of CUDA for a random generator of the host."""
    if generator is not None and generator.device.type != "cuda":
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def _refuse_indexing(args: Sequence[Any], is_here: IsHere) -> None:
    if not is_here(args[0]):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    if len(args) > 2 and not is_here(args[2]) and args[2].ndim:
        raise RuntimeError("expected the values of index_put_ on the device of the tensor, cuda:0, but found cpu")


def waits(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], is_here: IsHere) -> list[str]:
    """Return why the host waits for an operation, once per wait."""
    if func is aten.copy_.default:
        return _waits_of_copy(args, kwargs, is_here)
    if func in _INDEXED:
        return _waits_of_indexing(args, is_here)
    if func is _NUMBER_AT_INDEX and not is_here(args[2]):
        return ["copy of an index to the device"]
    if func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        return ["repeat_interleave by a tensor"]
    return [_WAITS[func]] if func in _WAITS else []


def _waits_of_copy(args: Sequence[Any], kwargs: Mapping[str, Any], is_here: IsHere) -> list[str]:
    here, source_here = is_here(args[0]), is_here(args[1])
    if here == source_here or not args[1].ndim:  # one number travels with the launch
        return ["copy to the host"] if source_here and not here else []
    return ["copy to the host" if source_here else "copy of pageable memory to the device"]


def _waits_of_indexing(args: Sequence[Any], is_here: IsHere) -> list[str]:
    index = [tensor for tensor in args[1] if tensor is not None]
    masks = [tensor for tensor in index if tensor.dtype in (torch.bool, torch.uint8)]
    fills_with_number = len(args) > 2 and len(index) == len(masks) == 1 and args[2].numel() == 1
    if fills_with_number and is_here(masks[0]):  # becomes masked_fill, whose number the host must know
        return ["reads the number of a masked assignment"] if is_here(args[2]) else []
    moved = ["copy of an index to the device" for tensor in index if not is_here(tensor)]
    return moved + ["index by a mask" for _ in masks]


def is_launch(func: Any) -> bool:
    """Tell whether an operation does work on the device."""
    return func not in _FREE and not func.is_view


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
