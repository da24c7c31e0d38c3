"""Tells exactly where in the image the outer cells of a layer lie, for networks whose cells read a part of the image.

The gradient of a row of cells reaches the rows of pixels that it reads. If the middle row reads neither edge of the
image, the number of rows that it reads is the size of the receptive field. The first row of cells lies half a field
above the last row of pixels that it reads, wherever its field begins: beside the image with padding, inside of it
without. The last row likewise, and columns too. Where the middle row reaches an edge of the image, as in deep networks,
nothing is known.

Legend: P images, C colours, (H, W) pixels, K channels, (u, v) grid.
"""

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.model.engine import Exact
from pipeline.model.layer_names import module_of
from pipeline.model.layout import View
from pipeline.model.layout_trial import Trial
from pipeline.model.recording import capturing
from pipeline.model.shuffled import shuffled

_IMAGES = 4
_BEFORE, _AFTER = -1.0, 2.0
"""Stand for outer cells that read nothing, both edges, or the other half of the image: they do not lie at theirs."""


def centres_of_outer_cells(trial: Trial, view: View, layer: str, axis: int) -> tuple[float, float] | None:
    """Return where the first and the last cells along an axis have their centres; 0 and 1 are the edges of the image.

    Args:
        trial: the model, how its outputs are read, and the shape of the images.
        view: layout of the layer.
        layer: its name.
        axis: 0 for rows, 1 for columns.
    """
    noise = torch.randn(_IMAGES, *trial.shape, generator=torch.Generator().manual_seed(0))
    model = shuffled(trial.model, seed=0)  # a trained network may respond to nothing in noise
    if model is None:
        return None
    trial = replace(trial, model=model)
    with torch.inference_mode(False), torch.enable_grad():
        pixels_PCHW = noise.to(trial.device).requires_grad_()
        maps_PKuv = maps_of(trial, view, layer, pixels_PCHW)
        cells, pixels = maps_PKuv.shape[2 + axis], trial.size[axis]
        middle = _read(pixels_PCHW, maps_PKuv, axis, cells // 2)
        if middle is None or middle[0] == 0 or middle[1] == pixels:
            return None
        first, last = _read(pixels_PCHW, maps_PKuv, axis, 0), _read(pixels_PCHW, maps_PKuv, axis, cells - 1)
    half = (middle[1] - middle[0]) / 2
    before = None if first is None or first[2] > middle[2] else (first[1] - half) / pixels
    after = None if last is None or last[2] > middle[2] else (last[0] + half) / pixels
    return _BEFORE if before is None or before > 0.5 else before, _AFTER if after is None or after < 0.5 else after


def maps_of(trial: Trial, view: View, layer: str, pixels_PCHW: Tensor) -> Tensor:
    """Return what a layer gives for some images, (P, K, u, v); with its autograd graph where gradients are enabled."""
    raw = list[Tensor]()

    def take(_layer: str, tensor: Tensor) -> Tensor:
        raw.append(tensor.clone())
        return tensor

    with capturing({layer: trial.model.get_submodule(module_of(layer))}, take):
        Exact(trial.model, trial.outputs).logits(pixels_PCHW, differentiable=torch.is_grad_enabled())
    return view.grid(raw[0])


def _read(pixels_PCHW: Tensor, maps_PKuv: Tensor, axis: int, index: int) -> tuple[int, int, int] | None:
    """Return the first of the rows (or columns) of pixels that a row of cells reads, the end, and the largest step."""
    if not maps_PKuv.requires_grad:
        return None
    row = maps_PKuv.select(2 + axis, index)
    weights = torch.randn(row.shape, generator=torch.Generator().manual_seed(1)).to(row)
    (grads,) = torch.autograd.grad((row * weights).sum(), [pixels_PCHW], retain_graph=True, allow_unused=True)
    if grads is None:
        return None
    read = (grads != 0).any(0).any(0).any(1 - axis).nonzero()[:, 0]
    gap = int(read.diff().max()) if len(read) > 1 else 1
    return (int(read[0]), int(read[-1]) + 1, gap) if len(read) else None
