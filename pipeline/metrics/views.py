"""Changed images on which metrics run the model.

A view describes a set of changed images; equal views are scored once, even if several metrics request them.

Legend: P changed images, C colours, (H, W) pixels; rows_P, maps_P and steps_P index the row, map and step of each.
E heat map in [0, 1], n pixels of an image.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from pipeline.metrics.heatmap_batch import HeatmapBatch
from pipeline.metrics.imputation import imputed
from pipeline.model import noise
from pipeline.model.baselines import Baseline

Scope = Literal["image", "row", "map"]
Perturbation = Literal["square", "gaussian", "noisy_baseline"]


class View(Protocol):
    """Interface of a view: a frozen dataclass that describes changed images and computes their pixels."""

    scope: ClassVar[Scope]
    """Whether the changed images belong to an image, a row (image, target), or a map."""

    def count(self) -> int:
        """Return the number of changed images per image, row or map."""
        ...

    def applies(self, batch: HeatmapBatch) -> Tensor:
        """Return which rows have changed images, (B,) bool; the host waits for those that are on a device."""
        ...

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:
        """Compute changed images, (P, C, H, W)."""
        ...


class EveryRow:
    """Defaults of a view: one changed image, and no row is left out."""

    def count(self) -> int:
        """Return 1: one changed image."""
        return 1

    def applies(self, batch: HeatmapBatch) -> Tensor:
        """Apply to every row."""
        return torch.ones(len(batch.evidence.keys), dtype=torch.bool)


@dataclass(frozen=True)
class Soft(EveryRow):
    """The image masked by its heat map: x E + fill (1 - E)."""

    fill: Baseline
    scope: ClassVar[Scope] = "map"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Compute the masked images."""
        map_P1HW = batch.heatmaps_BMHW[rows_P, maps_P, None]
        shown_PCHW = batch.evidence.pixels_BCHW[rows_P] * map_P1HW
        return shown_PCHW if self.fill == "mean" else shown_PCHW + batch.fill(self.fill)[rows_P] * (1 - map_P1HW)


@dataclass(frozen=True)
class TopPixels(EveryRow):
    """The image on the round(share n) pixels where the map is largest; fill elsewhere."""

    share: float
    fill: Baseline
    scope: ClassVar[Scope] = "map"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Keep the top pixels and fill the others."""
        kept = share_of(self.share, batch)
        shown_P1HW = batch.ranks_BMHW[rows_P, maps_P, None] < kept
        return torch.where(shown_P1HW, batch.evidence.pixels_BCHW[rows_P], batch.fill(self.fill)[rows_P])


@dataclass(frozen=True)
class Removed(EveryRow):
    """The fill instead of the image."""

    fill: Baseline
    scope: ClassVar[Scope] = "image"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Return the fill."""
        return batch.fill(self.fill)[rows_P]


@dataclass(frozen=True)
class Ranked(EveryRow):
    """The image with its top pixels inserted or deleted step by step, without the two ends of the curve.

    At step k = 1 .. steps - 1, the first round(k n / steps) pixels in the map's order are inserted into the fill, or
    deleted from the image.
    """

    show: Literal["inserted", "deleted"]
    steps: int
    fill: Baseline
    scope: ClassVar[Scope] = "map"

    def count(self) -> int:
        """Return the number of points of the curve between its two ends."""
        return self.steps - 1

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:
        """Insert or delete the top pixels."""
        height, width = batch.size
        swapped_P = ((steps_P + 1) * (height * width) / self.steps).round()
        swapped_P1HW = batch.ranks_BMHW[rows_P, maps_P, None] < swapped_P.view(-1, 1, 1, 1)
        shown_P1HW = swapped_P1HW if self.show == "inserted" else ~swapped_P1HW
        return torch.where(shown_P1HW, batch.evidence.pixels_BCHW[rows_P], batch.fill(self.fill)[rows_P])


@dataclass(frozen=True)
class Imputed(EveryRow):
    """The image with round(share n) of its pixels, but never all, removed and imputed from their neighbours.

    Attributes:
        order: `most` removes the pixels with the largest values of the map, `least` those with the smallest.
        share: fraction of the pixels to remove.
        sigma: standard deviation of the noise on imputed pixels, in normalised units.
    """

    order: Literal["most", "least"]
    share: float
    sigma: float
    scope: ClassVar[Scope] = "map"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Remove pixels, impute them and add noise."""
        missing_PHW = self.missing(batch, rows_P, maps_P)
        return self.noisy(batch, rows_P, imputed(batch.evidence.pixels_BCHW[rows_P], missing_PHW), missing_PHW)

    def missing(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor) -> Tensor:
        """Return which pixels to remove, (P, H, W) bool."""
        pixels = batch.size[0] * batch.size[1]
        removed = min(share_of(self.share, batch), pixels - 1)
        ranks_PHW = batch.ranks_BMHW[rows_P, maps_P]
        return ranks_PHW < removed if self.order == "most" else ranks_PHW >= pixels - removed

    def noisy(self, batch: HeatmapBatch, rows_P: Tensor, imputed_PCHW: Tensor, missing_PHW: Tensor) -> Tensor:
        """Add noise to the imputed pixels; the host waits for rows that are on a device."""
        if not self.sigma:
            return imputed_PCHW
        noise_PCHW = _normal_noise(batch, rows_P, f"road {self.share}", imputed_PCHW)
        return imputed_PCHW + self.sigma * noise_PCHW * missing_PHW[:, None]


@dataclass(frozen=True)
class Boxed(EveryRow):
    """The image without the object, or with only the object; rows without a box or mask are left out."""

    show: Literal["inside", "outside"]
    fill: Baseline
    scope: ClassVar[Scope] = "row"

    def applies(self, batch: HeatmapBatch) -> Tensor:
        """Apply to rows with a box or mask."""
        return batch.inside_BHW.flatten(1).any(1)

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Fill the pixels inside or outside the box or mask."""
        inside_P1HW = batch.inside_BHW[rows_P, None]
        shown_P1HW = inside_P1HW if self.show == "inside" else ~inside_P1HW
        return torch.where(shown_P1HW, batch.evidence.pixels_BCHW[rows_P], batch.fill(self.fill)[rows_P])


@dataclass(frozen=True)
class PaintedOver(EveryRow):
    """The image without one of cells^2 windows, which is imputed from the pixels around it.

    Window n = i cells + j is centred on cell (i, j) of a grid over the image, two cells wide, and clipped at the
    borders.
    """

    cells: int
    scope: ClassVar[Scope] = "image"

    def count(self) -> int:
        """Return the number of windows."""
        return self.cells**2

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - shared
        """Paint the windows over; of an image, only a window and the pixels that touch it are read."""
        windows, (height, width) = self.windows(batch.size), batch.size
        painted_PCHW = batch.evidence.pixels_BCHW[rows_P].clone()
        for p, step in enumerate(steps_P.tolist()):
            rows, columns = windows[step]
            around = (
                slice(max(0, rows.start - 1), min(height, rows.stop + 1)),
                slice(max(0, columns.start - 1), min(width, columns.stop + 1)),
            )
            missing_HW = torch.zeros(height, width, dtype=torch.bool, device=painted_PCHW.device)
            missing_HW[rows, columns] = True
            part_1Chw = painted_PCHW[p : p + 1, :, *around]
            painted_PCHW[p : p + 1, :, *around] = imputed(part_1Chw, missing_HW[None, *around])
        return painted_PCHW

    def windows(self, size: tuple[int, int]) -> list[tuple[slice, slice]]:
        """Return the rows and columns of every window."""
        spans = [[_two_cells(i, length, self.cells) for i in range(self.cells)] for length in size]
        return [(rows, columns) for rows in spans[0] for columns in spans[1]]

    def means(self, batch: HeatmapBatch) -> Tensor:
        """Compute the mean of every heat map over each window, (B, M, cells^2) double."""
        heatmaps_BMHW = batch.heatmaps_BMHW.double()
        return torch.stack(
            [heatmaps_BMHW[..., rows, columns].mean((2, 3)) for rows, columns in self.windows(batch.size)], 2
        )


@dataclass(frozen=True)
class Perturbed(EveryRow):
    """The image minus a random perturbation, x - I; see `Infidelity`."""

    perturbation: Perturbation
    samples: int
    sigma: float
    side: float
    fill: Baseline
    scope: ClassVar[Scope] = "image"

    def count(self) -> int:
        """Return the number of perturbations."""
        return self.samples

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - shared
        """Subtract the perturbations."""
        return batch.evidence.pixels_BCHW[rows_P] - self.change(batch, rows_P, steps_P)

    def change(self, batch: HeatmapBatch, rows_P: Tensor, steps_P: Tensor) -> Tensor:
        """Compute the perturbations I, (P, C, H, W), the same for all targets of an image."""
        pixels_PCHW = batch.evidence.pixels_BCHW[rows_P]
        difference_PCHW = pixels_PCHW - batch.fill(self.fill)[rows_P]
        if self.perturbation == "square":
            return difference_PCHW * self._squares(batch, rows_P, steps_P)
        noise_PCHW = torch.stack(
            [
                _normal_noise(batch, row[None], f"infidelity {step}", pixels_PCHW)[0]
                for row, step in zip(rows_P, steps_P.tolist(), strict=True)
            ]
        )
        return self.sigma * noise_PCHW if self.perturbation == "gaussian" else difference_PCHW - self.sigma * noise_PCHW

    def _squares(self, batch: HeatmapBatch, rows_P: Tensor, steps_P: Tensor) -> Tensor:
        """Draw the mask of one random square inside the image per perturbation, (P, 1, H, W)."""
        height, width = batch.size
        side = max(1, round(self.side * min(height, width)))
        mask_P1HW = torch.zeros(len(rows_P), 1, height, width, device=rows_P.device)
        for p, (row, step) in enumerate(zip(rows_P.tolist(), steps_P.tolist(), strict=True)):
            random = noise.Stream(batch.probe.seed, batch.evidence.keys[row], f"infidelity {step}")
            top, left = random.below(height - side + 1), random.below(width - side + 1)
            mask_P1HW[p, 0, top : top + side, left : left + side] = 1
        return mask_P1HW


def _two_cells(cell: int, length: int, cells: int) -> slice:
    """Return the pixels of two cells' width around the centre of a cell, at least one."""
    first, stop = (round((cell + shift) * length / cells) for shift in (-0.5, 1.5))
    first = min(max(0, first), length - 1)
    return slice(first, max(first + 1, min(length, stop)))


def share_of(share: float, batch: HeatmapBatch) -> int:
    """Return the number of pixels in a share of the image, rounded."""
    return round(share * batch.size[0] * batch.size[1])


def _normal_noise(batch: HeatmapBatch, rows_P: Tensor, purpose: str, like_PCHW: Tensor) -> Tensor:
    """Draw standard normal noise for each row's image, (P, C, H, W)."""
    keys = [batch.evidence.keys[row] for row in rows_P.tolist()]
    return next(noise.normal(batch.probe.seed, keys, purpose, tuple(like_PCHW.shape[1:]), 1, like_PCHW.device))
