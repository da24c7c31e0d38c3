"""Converts a layer's output (channels first, channels last, or tokens) to activation maps (P, K, u, v) and back.

Legend: P images, K channels, (u, v) grid, T tokens.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.errors import LayerError

_PREFIXES = (0, 1, 2, 4, 5)
"""Possible numbers of tokens before the patches: class, distillation and four register tokens of known families."""


@dataclass(frozen=True)
class GridView:
    """Layout of one layer's output.

    Attributes:
        kind: channels_first (P, K, u, v), channels_last (P, u, v, K), or tokens (P, T, K) with the patches last, in
            raster order.
        height, width: size of the grid in cells.
        prefix: number of tokens before the patches.
    """

    kind: Literal["channels_first", "channels_last", "tokens"]
    height: int
    width: int
    prefix: int = 0

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


def view_of(raw: Tensor, layer: str, image_size: tuple[int, int], *, channels_last: bool) -> GridView:
    """Infer the layout of a layer's output from its shape.

    Args:
        raw: the output.
        layer: the layer's name, for the error message.
        image_size: (H, W) of the images; the grid of tokens has the same aspect ratio.
        channels_last: whether an output with four dimensions is (P, u, v, K).

    Raises:
        LayerError: the output is neither maps nor tokens of a grid, or its grid has a single cell.
    """
    if raw.ndim == 4:
        height, width = raw.shape[1:3] if channels_last else raw.shape[2:4]
        if height * width < 2:
            raise LayerError(
                f"layer '{layer}' outputs a grid of one cell for images of {image_size[0]} x {image_size[1]}; "
                "choose an earlier layer or larger images"
            )
        return GridView("channels_last" if channels_last else "channels_first", height, width)
    if raw.ndim == 3:
        for prefix in _PREFIXES:
            grid = _token_grid(raw.shape[1] - prefix, image_size)
            if grid:
                return GridView("tokens", *grid, prefix)
    raise LayerError(
        f"layer '{layer}' outputs shape {tuple(raw.shape)}, neither activation maps (B, K, u, v) nor tokens of a grid"
    )


def _token_grid(tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the grid with that many cells and the image's aspect ratio, or None if there is none."""
    height = math.isqrt(max(0, tokens) * image_size[0] // image_size[1])
    if height < 2 or tokens % height:
        return None
    width = tokens // height
    return (height, width) if height * image_size[1] == width * image_size[0] else None
