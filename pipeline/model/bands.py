"""Tells roughly where in the image the cells of a layer lie, for deep networks, in which most cells read all of it.

Bands of rows of a test image are changed, one at a time, and then bands of columns. What every band changes in a cell
(global attention, normalisation) says nothing; the rest says where in the image the cell lies: at the mean place of the
bands, weighted by the energies of their changes, the squared differences to the unchanged image. A line through these
places tells where the edges of the grid lie. They lie outside of the image if the model pads, shifts or shrinks it,
whether or not bands weigh the same. Then the outermost cells may hardly change at all. All this is seen in a copy of
the model whose weights are shuffled.

Legend: P images or bands, C colours, (H, W) pixels, K channels, (u, v) grid, L cells along one axis.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.model.extents import maps_of
from pipeline.model.layout import View
from pipeline.model.layout_trial import Shape, Trial
from pipeline.model.shuffled import shuffled

SIDES = (("top", "bottom"), ("left", "right"))
_BANDS = 8
_FEWEST_CELLS, _FEWEST_CHANNELS = 4, 4
"""Fewer cells along an axis do not determine a line, and fewer channels may all be zero at an edge."""
_INNER = 0.6
"""The middle part of the grid on which the line is fitted: at the edges, places are drawn inwards."""
_CELLS_OUTSIDE, _PART_OUTSIDE = 1.0, 0.1
"""The grid may reach out of the image by the larger one of so many cells and this part of it: strides make half a
cell of it, and models that were tried at most 0.8."""
_REACHED = 0.2
"""Least energy of the outermost cells, relative to the median; models that were tried have 0.34 and more."""
_CONTENTS = 8
"""A model is refused if one content of the bands makes it suspect, and so do two and more, up to so many, together."""
_ON_A_LINE = 0.9
"""Least coefficient of determination of the line; below, the trial decides nothing."""
_BASE, _BAND = 0.3, 2.0
"""Standard deviation of the unchanged noise, and of the coarse squares in a changed band."""
_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class _Line:
    """Where the grid's edges lie along one axis: 0 is the first edge of the image, 1 the last one."""

    first: float
    last: float
    certain: bool

    def outside(self, cells: int) -> tuple[bool, bool]:
        """Tell whether the grid reaches out of the image before its first edge, and after its last one."""
        allowed = max(_CELLS_OUTSIDE / cells, _PART_OUTSIDE)
        return self.certain and -self.first > allowed, self.certain and self.last - 1 > allowed


def crossed_sides(trial: Trial, view: View, layer: str, axis: int) -> list[str]:
    """Name the sides at which a layer's grid reaches out of the image, as far as changed bands tell.

    Args:
        trial: the model, how its outputs are read, and the shape of the images.
        view: layout of the layer.
        layer: its name.
        axis: 0 for the top and the bottom, 1 for the left and the right.
    """
    energy_PL, sides = torch.zeros(()), list[str]()
    for content in range(_CONTENTS):
        model = shuffled(trial.model, content)
        if model is None:
            return []
        energy_PL = energy_PL + _energies(replace(trial, model=model), view, layer, axis, content)
        sides = _crossed(energy_PL, SIDES[axis])
        if not sides:
            break
    return sides


def _crossed(energy_PL: Tensor, names: tuple[str, str]) -> list[str]:
    """Name the sides of one axis at which the grid reaches out of the image."""
    cells = energy_PL.shape[1]
    if cells < _FEWEST_CELLS:
        return []
    relative_PL = energy_PL / energy_PL.sum(1, keepdim=True).clamp_min(_TINY)  # bands weigh the same
    lines = _line(energy_PL).outside(cells), _line(relative_PL).outside(cells)
    judged = zip(names, *lines, _unreached(relative_PL), strict=True)
    return [name for name, outside, also_outside, unreached in judged if (outside and also_outside) or unreached]


def _unreached(energy_PL: Tensor) -> tuple[bool, bool]:
    """Tell of the first and the last cells whether the image hardly changes them, as if they lay beside it."""
    energy_L = energy_PL.sum(0)
    least, outer = _REACHED * energy_L.median(), max(1, round(_PART_OUTSIDE * len(energy_L)))
    first, last = energy_L[:outer].mean(), energy_L[-outer:].mean()
    return bool(first < least), bool(last < least)


def _energies(trial: Trial, view: View, layer: str, axis: int, content: int) -> Tensor:
    """Return how much each band of rows (axis 0) or columns (axis 1) changes each row or column of cells, (P, L).

    The sum is 1. Zeros decide nothing.
    """
    images_PCHW = banded_images(trial.shape, axis, content).to(trial.device)
    with torch.inference_mode(False), torch.no_grad():
        maps_PKuv = maps_of(trial, view, layer, images_PCHW)
    if maps_PKuv.shape[1] < _FEWEST_CHANNELS:
        return torch.zeros(len(maps_PKuv) - 1, maps_PKuv.shape[2 + axis], dtype=torch.float64)
    changes_Puv = (maps_PKuv[1:] - maps_PKuv[:1]).double().square().sum(1)
    energy_PL = changes_Puv.sum(2 - axis).nan_to_num(0, 0, 0).cpu()
    return energy_PL / energy_PL.sum().clamp_min(_TINY)


def banded_images(shape: Shape, axis: int, content: int) -> Tensor:
    """Return an image of noise, and copies of it in each of which another band has another content, (P, C, H, W)."""
    rng = torch.Generator().manual_seed(content)
    image_CHW = _BASE * torch.randn(shape, generator=rng)
    squares_1Cyx = torch.randn(1, shape[0], 12, 12, generator=rng)
    other_CHW = torch.randn(shape, generator=rng) + _BAND * functional.interpolate(squares_1Cyx, shape[1:])[0]
    length = shape[1 + axis]
    bands = min(_BANDS, length)
    places = torch.arange(length) * bands // length
    return torch.stack([image_CHW, *(_spliced(image_CHW, other_CHW, places == band, axis) for band in range(bands))])


def _spliced(image_CHW: Tensor, other_CHW: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Return an image with the chosen rows or columns of another one."""
    return torch.where(chosen[:, None] if axis == 0 else chosen, other_CHW, image_CHW)


def _line(energy_PL: Tensor) -> _Line:
    """Fit the places of the inner cells by a line, each cell weighing as much as the bands say about its place."""
    bands, cells = energy_PL.shape
    local_PL = energy_PL - energy_PL.amin(0)
    own_L = _centres(cells) - 0.5
    weight_L = local_PL.sum(0) * (own_L.abs() < _INNER / 2)
    place_L = _centres(bands) @ local_PL / local_PL.sum(0).clamp_min(_TINY)
    weight_L = weight_L / weight_L.sum().clamp_min(_TINY)
    own_mean, place_mean = weight_L @ own_L, weight_L @ place_L
    own_L, place_L = own_L - own_mean, place_L - place_mean
    spread, moved = float(weight_L @ own_L.square()), float(weight_L @ place_L.square())
    if min(spread, moved) < 1e-9:
        return _Line(0, 1, certain=False)
    slope = float(weight_L @ (own_L * place_L)) / spread
    middle = float(place_mean - slope * own_mean)
    unexplained = float(weight_L @ (place_L - slope * own_L).square()) / moved
    return _Line(middle - slope / 2, middle + slope / 2, certain=slope > 0 and 1 - unexplained >= _ON_A_LINE)


def _centres(number: int) -> Tensor:
    """Return the centres of equal parts of the line from 0 to 1."""
    return (torch.arange(number, dtype=torch.float64) + 0.5) / number
