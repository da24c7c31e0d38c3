"""Converts a layer's output (channels first, channels last, or tokens) to activation maps (P, K, u, v) and back.

Legend: P images, K channels, (u, v) grid, T tokens, (H, W) pixels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from pipeline.errors import LayerError

GridKind = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class GridView:
    """Layout of one layer's output.

    Attributes:
        kind: channels_first (P, K, u, v), channels_last (P, u, v, K), or tokens (P, T, K) with the patches last, in
            raster order.
        height, width: size of the grid in cells.
        prefix: number of tokens before the patches.
    """

    kind: GridKind
    height: int
    width: int
    prefix: int = 0

    def __str__(self) -> str:
        tokens = f" after {self.prefix} tokens" if self.prefix else ""
        return f"{self.kind} {self.height} x {self.width}{tokens}"

    @property
    def cells(self) -> int:
        """Number of cells of the grid."""
        return self.height * self.width

    def grid(self, raw: Tensor) -> Tensor:
        """Convert a layer's output, or its gradient, to maps (P, K, u, v)."""
        if self.kind == "channels_first":
            return raw
        if self.kind == "channels_last":
            return raw.permute(0, 3, 1, 2)
        patches_PTK = raw[:, self.prefix :]
        return patches_PTK.transpose(1, 2).reshape(len(raw), -1, self.height, self.width)

    def raw(self, acts_PKuv: Tensor, like: Tensor) -> Tensor:
        """Convert maps (P, K, u, v) to the layer's layout; dtype and prefix tokens come from its output `like`."""
        acts_PKuv = acts_PKuv.to(like.dtype)
        if self.kind == "channels_first":
            return acts_PKuv
        if self.kind == "channels_last":
            return acts_PKuv.permute(0, 2, 3, 1).contiguous()
        patches_PTK = acts_PKuv.flatten(2).transpose(1, 2)
        return torch.cat([like[:1, : self.prefix].expand(len(patches_PTK), -1, -1), patches_PTK], 1)

    def fits(self, shape: Sequence[int]) -> bool:
        """Tell whether an output of that shape can have this layout."""
        if self.kind == "tokens":
            return len(shape) == 3 and shape[1] == self.prefix + self.height * self.width
        sides = tuple(shape[2:4] if self.kind == "channels_first" else shape[1:3])
        return len(shape) == 4 and sides == (self.height, self.width)


@dataclass(frozen=True)
class FunctionView:
    """Layout that two functions of the user define, such as tokens that are not in raster order.

    Attributes:
        name: the function that returned the two, for messages.
        to_maps: converts a layer's output, or its gradient, to maps (P, K, u, v) by moving numbers only.
        to_layer: converts maps (P, K, u, v) back; the numbers that are not part of a map come from the layer's output
            of one image, its second argument.
        height, width: size of the grid in cells.
    """

    name: str
    to_maps: Callable[[Tensor], Tensor]
    to_layer: Callable[[Tensor, Tensor], Tensor]
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.name} {self.height} x {self.width}"

    @property
    def cells(self) -> int:
        """Number of cells of the grid."""
        return self.height * self.width

    def grid(self, raw: Tensor) -> Tensor:
        """Convert a layer's output, or its gradient, to maps (P, K, u, v)."""
        return self.to_maps(raw)

    def raw(self, acts_PKuv: Tensor, like: Tensor) -> Tensor:
        """Convert maps (P, K, u, v) to the layer's layout; dtype and other numbers come from its output `like`."""
        return self.to_layer(acts_PKuv.to(like.dtype), like[:1])


View = GridView | FunctionView
"""How the output of a layer is read as maps."""


def readings(shape: Sequence[int], size: tuple[int, int]) -> Iterator[GridView]:
    """Yield every layout that an output of that shape can have for images of a size (H, W).

    A grid has at least two cells. One of tokens, and one that is a single cell high or wide, has the proportions of
    the image. There are fewer tokens before the patches than patches.
    """
    if len(shape) == 4:
        for view in (GridView("channels_first", *shape[2:4]), GridView("channels_last", *shape[1:3])):
            flat = min(view.height, view.width) == 1
            if view.cells > 1 and (not flat or (view.height, view.width) in _proportional(size)):
                yield view
    elif len(shape) == 3:
        for height, width in _proportional(size):
            prefix = shape[1] - height * width
            if height * width > 1 and 0 <= prefix < height * width:
                yield GridView("tokens", height, width, prefix)


@lru_cache(maxsize=8)
def _proportional(size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """List the grids with the proportions of an image: exactly, or but for the partial cells at its borders."""
    common = math.gcd(*size)
    exact = [(n * size[0] // common, n * size[1] // common) for n in range(1, common + 1)]
    strides = range(1, max(size) + 1)
    dropped = [(size[0] // stride, size[1] // stride) for stride in strides]
    kept = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]
    return tuple(dict.fromkeys([*exact, *dropped, *kept]))


def function_view(name: str, pair: object, raw: Tensor, layer: str) -> FunctionView:
    """Check the two functions of a user's layout on the shape of a layer's output, and return the layout.

    Args:
        name: the function that returned the pair.
        pair: what it returned.
        raw: an output of the layer for several images.
        layer: the layer's name, for the error message.

    Raises:
        LayerError: it is no pair of functions, or they lose rows, compute numbers instead of moving them, or are not
            inverse to each other.
    """
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(map(callable, pair)):
        raise LayerError(f"layout '{name}' must return two functions (to_maps, to_layer), not {type(pair).__name__}")
    to_maps, to_layer = pair
    places = torch.arange(raw.numel(), dtype=torch.float64, device=raw.device).reshape(raw.shape)
    try:
        maps_PKuv = to_maps(places)
        problem = _problem_of_maps(maps_PKuv, raw) or _problem_of_inverse(to_maps, to_layer, maps_PKuv, places)
    except Exception as error:
        raise LayerError(
            f"layout '{name}' does not fit layer '{layer}', whose output is {tuple(raw.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if problem:
        raise LayerError(f"layout '{name}' does not fit layer '{layer}', whose output is {tuple(raw.shape)}: {problem}")
    return FunctionView(name, to_maps, to_layer, maps_PKuv.shape[2], maps_PKuv.shape[3])


def _problem_of_maps(maps_PKuv: object, raw: Tensor) -> str:
    """Say what is wrong with the maps of a tensor whose numbers are their own places; "" if nothing is."""
    if not isinstance(maps_PKuv, Tensor) or maps_PKuv.ndim != 4 or len(maps_PKuv) != len(raw):
        shape = tuple(maps_PKuv.shape) if isinstance(maps_PKuv, Tensor) else type(maps_PKuv).__name__
        return f"to_maps gives {shape}, not {len(raw)} rows of maps (K, u, v)"
    if maps_PKuv.shape[2] * maps_PKuv.shape[3] < 2:
        return "to_maps gives a grid of one cell"
    per_row = raw[0].numel()
    rows_PKuv = torch.arange(len(raw), dtype=torch.float64, device=raw.device)[:, None, None, None]
    if not torch.equal((maps_PKuv / per_row).floor(), rows_PKuv.expand_as(maps_PKuv)):
        return "to_maps must move numbers within each row, not compute new ones or mix rows"
    if len(torch.unique(maps_PKuv)) != maps_PKuv.numel():
        return "to_maps uses a number of the layer more than once"
    return ""


def _problem_of_inverse(
    to_maps: Callable[[Tensor], Tensor],
    to_layer: Callable[[Tensor, Tensor], Tensor],
    maps_PKuv: Tensor,
    places: Tensor,
) -> str:
    """Say what is wrong with the way back from maps; "" if nothing is."""
    other_PKuv = maps_PKuv + 0.5
    back = to_layer(other_PKuv, places[:1])
    if not isinstance(back, Tensor) or back.shape != places.shape:
        shape = tuple(back.shape) if isinstance(back, Tensor) else type(back).__name__
        return f"to_layer gives {shape}, not the shape of the layer's output"
    if not torch.equal(to_maps(back), other_PKuv):
        return "to_layer is not the inverse of to_maps"
    untouched = back[0] == places[0]
    if int(untouched.sum()) != places[0].numel() - maps_PKuv[0].numel():
        return "to_layer must take the numbers that no map holds from its second argument"
    return ""
