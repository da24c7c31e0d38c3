"""Finds out what a layer's output means by experiment: a patch of the image is changed, and the output shows where.

One image is run together with copies of it in which the same patch lies in a corner or in the centre. The energy of a
change, the squared difference to the image without a patch summed over the channels, belongs to the cells of a grid if
the output is read in the right way. Then the patches that change a cell most are those that lie where the cell lies.

A network with random weights may answer to the image more weakly than float32 resolves, or spread every change over a
tiny grid. What a first trial cannot decide is tried again in float64, with several different patches.

Legend: S images of a trial (the first one without a patch), P patches, K channels, C colours, (H, W) pixels, (u, v)
grid, T tokens.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import CamatlasError
from pipeline.model.engine import Exact
from pipeline.model.layout import FunctionView, GridView, View, readings
from pipeline.model.outputs import Outputs

Shape = tuple[int, int, int]
"""Colours, height and width of the images, (C, H, W)."""
Runs = Sequence[tuple[nn.Module, Callable[[], object]]]
"""Trials: the model that runs, and what runs it."""
Seen = TypeVar("Seen")

PLACES = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
"""Where the patches lie: from the top left corner (0, 0) to the bottom right one (1, 1)."""
IMAGES = 1 + len(PLACES)
"""Number of images of one trial."""
_SIDE = 3
"""The image is this many times as high and wide as a patch."""
_FOLLOWS = 0.5
"""Least correlation between the places of cells and of the patches that change them; wrong readings stay below 0.3."""
_FEW, _FOLLOWS_ON_FEW, _SLOPE_ON_FEW = 9, 0.9, 0.1
"""Below nine cells, where chance correlates: the least correlation, and how far the place must move across the grid."""
_CONTENTS = 4
"""Number of different patches in the second trial."""
_TINY = torch.finfo(torch.float64).tiny
_BASE, _PATCH = 0.3, 2.0
"""Standard deviation of the noise outside of the patch, and of the coarse squares in it; images have about 1."""


def shape_of(pixels_BCHW: Tensor) -> Shape:
    """Return the colours, height and width of images."""
    return pixels_BCHW.shape[1], pixels_BCHW.shape[2], pixels_BCHW.shape[3]


def patched_images(shape: Shape, content: int, device: torch.device) -> Tensor:
    """Return an image of noise, and copies of it with the same patch at each place, (S, C, H, W).

    Args:
        shape: colours, height and width.
        content: chooses the noise and the content of the patch.
        device: where the images are needed; their content does not depend on it.
    """
    colours, height, width = shape
    rng = torch.Generator().manual_seed(content)
    images_SCHW = (_BASE * torch.randn(shape, generator=rng)).repeat(IMAGES, 1, 1, 1)
    patch_Chw = torch.randn(colours, -(-height // _SIDE), -(-width // _SIDE), generator=rng)
    squares_1C33 = torch.randn(1, colours, 3, 3, generator=rng)
    patch_Chw += _PATCH * functional.interpolate(squares_1C33, patch_Chw.shape[1:])[0]
    for image_CHW, (down, right) in zip(images_SCHW[1:], PLACES, strict=True):
        top = round(down * (height - patch_Chw.shape[1]))
        left = round(right * (width - patch_Chw.shape[2]))
        image_CHW[:, top : top + patch_Chw.shape[1], left : left + patch_Chw.shape[2]] = patch_Chw
    return images_SCHW.to(device)


@dataclass
class Response:
    """What a layer gave for the images of the trials.

    Attributes:
        shape: shape of the output for all images of one trial.
        energies: energies of the changes, relative to those of the whole output, by the dimension of the channels.
        scores: how well changes follow the patch in every layout that fits, once this is known.
        raw: an output, where it is kept.
    """

    shape: tuple[int, ...]
    energies: dict[int, Tensor] = field(default_factory=dict)
    scores: dict[GridView, float] | None = None
    raw: Tensor | None = None

    @property
    def one_row_per_image(self) -> bool:
        """Whether the first dimension is that of the images."""
        return len(self.shape) > 0 and self.shape[0] == IMAGES

    def add(self, output: Tensor) -> None:
        """Add the energies of an output, (S, ...)."""
        if not self.one_row_per_image or output.ndim not in (3, 4):
            return
        changes = (output[1:] - output[:1]).double().square()
        for channels in (1, 3) if output.ndim == 4 else (2,):
            energy = changes.sum(channels)
            total_P = energy.flatten(1).sum(1).clamp_min(_TINY)
            relative = (energy / total_P.reshape(-1, *[1] * (energy.ndim - 1))).float().cpu()
            self.energies[channels] = self.energies.get(channels, 0) + relative

    @property
    def changes(self) -> bool:
        """Whether the output changed with the image at all."""
        return any(bool(energy.any()) for energy in self.energies.values())

    def views(self, size: tuple[int, int]) -> dict[GridView, float]:
        """Return every layout that fits the shape, with how well changes follow the patch in it."""
        if self.scores is None:
            fitting = readings(self.shape, size) if self.one_row_per_image and self.energies else ()
            self.scores = {view: self.follows(view) for view in fitting}
        return self.scores

    def follows(self, view: View) -> float:
        """Return how well changes follow the patch in a layout, from -1 to 1: the worse one of both axes."""
        return _score(_shares(self._energy(view)))

    def sharpness(self, view: View) -> float:
        """Return the energy's share of the patch that changes a cell most, on average over the cells."""
        share_Puv = _shares(self._energy(view))
        changed_uv = share_Puv.sum(0) > 0
        return float(share_Puv.amax(0)[changed_uv].mean()) if bool(changed_uv.any()) else 0.0

    def _energy(self, view: View) -> Tensor:
        """Return the energy of the change in each cell by each patch, (P, u, v)."""
        if isinstance(view, FunctionView):
            assert self.raw is not None, "the output of a layer with a stated layout is kept"
            maps_SKuv = view.grid(self.raw)
            return (maps_SKuv[1:] - maps_SKuv[:1]).double().square().sum(1).cpu()
        energy = self.energies[{"channels_first": 1, "channels_last": 3, "tokens": 2}[view.kind]]
        return energy[:, view.prefix :].reshape(len(energy), view.height, view.width)

    def view(self, size: tuple[int, int]) -> GridView | None:
        """Return the one layout in which changes follow the patch; None if there is none, or more than one."""
        following = [view for view, score in self.views(size).items() if is_following(score)]
        return following[0] if len(following) == 1 else None


def is_following(score: float) -> bool:
    """Tell from the score of a layout whether changes follow the patch in it."""
    return score >= _FOLLOWS


def _shares(energy_Puv: Tensor) -> Tensor:
    """Return the share of each patch in the change of each cell, patches weighing the same; 0 where nothing changes."""
    energy_Puv = energy_Puv.double().nan_to_num(0, 0, 0)
    relative_Puv = energy_Puv / energy_Puv.flatten(1).sum(1).clamp_min(_TINY)[:, None, None]
    return relative_Puv / relative_Puv.sum(0).clamp_min(_TINY)


def _score(share_Puv: Tensor) -> float:
    """Correlate the place of each cell with the mean place of the patches that change it; the worse of both axes."""
    changed_uv = share_Puv.sum(0) > 0
    scores = [0.0]
    for axis, cells in enumerate(changed_uv.shape):
        if cells > 1 and bool(changed_uv.any()):
            places_P = torch.tensor([place[axis] for place in PLACES], dtype=torch.float64)
            place_uv = torch.tensordot(places_P, share_Puv, 1)
            own_cells = torch.linspace(0, 1, cells, dtype=torch.float64)
            own_uv = own_cells.reshape((-1, 1) if axis == 0 else (1, -1)).expand_as(place_uv)
            scores.append(_axis_score(place_uv[changed_uv], own_uv[changed_uv]))
    return min(scores[1:] or scores)


def _axis_score(places_N: Tensor, own_N: Tensor) -> float:
    """Return the correlation of two lists of places; 0 for a chance one on few cells."""
    places_N, own_N = places_N - places_N.mean(), own_N - own_N.mean()
    scale = float(places_N.norm() * own_N.norm())
    if scale < 1e-12:
        return 0.0
    product = float(places_N @ own_N)
    correlation, slope = product / scale, product / float(own_N @ own_N)
    by_chance = len(own_N) < _FEW and (correlation < _FOLLOWS_ON_FEW or slope < _SLOPE_ON_FEW)
    return 0.0 if by_chance else correlation


@dataclass(frozen=True)
class Trial:
    """Runs the images of the trials through a model.

    Attributes:
        model: the model.
        outputs: how the model's return value becomes logits.
        shape: colours, height and width of the images.
    """

    model: nn.Module
    outputs: Outputs
    shape: Shape

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.shape[1:]

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))

    def first(self, watch: Callable[[Runs], Seen]) -> Seen:
        """Watch one trial of the model as it is."""
        return watch([(self.model, self._run(self.model, 0))])

    def second(self, watch: Callable[[Runs], Seen]) -> Seen | None:
        """Watch trials of a float64 copy of the model with several patches; None if it has no copy that runs."""
        try:
            precise = copy.deepcopy(self.model).double()
            return watch([(precise, self._run(precise, content)) for content in range(_CONTENTS)])
        except CamatlasError:
            raise
        except Exception:  # it may hold what cannot be copied, mix in float32 of its own, or need too much memory
            return None

    def _run(self, model: nn.Module, content: int) -> Callable[[], object]:
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

        def run() -> object:
            with torch.inference_mode(False), torch.no_grad():
                images_SCHW = patched_images(self.shape, content, self.device).to(dtype)
                return Exact(model, self.outputs).logits(images_SCHW)

        return run
