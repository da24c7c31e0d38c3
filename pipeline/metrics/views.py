"""Changed images that metrics show to the model.

A view describes a family of changed images; equal views are scored once, whichever metrics request them.

Legend: P changed images, C colours, (H, W) pixels; rows_P, maps_P and steps_P name the row, map and step of each. E
heat map in [0, 1], n pixels of an image.
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
    """A frozen dataclass: which changed images, and how they are made."""

    scope: ClassVar[Scope]
    """Whether the changed images belong to an image, to a row (image, target), or to a map."""

    def count(self) -> int:
        """How many changed images there are of each image, row or map."""
        ...

    def applies(self, batch: HeatmapBatch) -> Tensor:
        """Tell which rows are asked about, (B,) bool."""
        ...

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:
        """Make changed images, (P, C, H, W)."""
        ...


class EveryRow:
    """Defaults of a view: one changed image, of every row."""

    def count(self) -> int:
        """One."""
        return 1

    def applies(self, batch: HeatmapBatch) -> Tensor:
        """Every row."""
        return torch.ones_like(batch.evidence.targets_B, dtype=torch.bool)


@dataclass(frozen=True)
class Soft(EveryRow):
    """The image seen through its heat map: x E + fill (1 - E)."""

    fill: Baseline
    scope: ClassVar[Scope] = "map"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Lay heat maps over the images."""
        map_P1HW = batch.heatmaps_BMHW[rows_P, maps_P, None]
        shown_PCHW = batch.evidence.pixels_BCHW[rows_P] * map_P1HW
        return shown_PCHW if self.fill == "mean" else shown_PCHW + batch.fill(self.fill)[rows_P] * (1 - map_P1HW)


@dataclass(frozen=True)
class TopPixels(EveryRow):
    """The image where the map is largest, on round(share n) pixels; fill elsewhere."""

    share: float
    fill: Baseline
    scope: ClassVar[Scope] = "map"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Cut the leading pixels out."""
        kept = share_of(self.share, batch)
        shown_P1HW = batch.ranks_BMHW[rows_P, maps_P, None] < kept
        return torch.where(shown_P1HW, batch.evidence.pixels_BCHW[rows_P], batch.fill(self.fill)[rows_P])


@dataclass(frozen=True)
class Removed(EveryRow):
    """The image gone: fill everywhere."""

    fill: Baseline
    scope: ClassVar[Scope] = "image"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Give the fill."""
        return batch.fill(self.fill)[rows_P]


@dataclass(frozen=True)
class Ranked(EveryRow):
    """The image between all there and all gone, pixel by pixel in the map's order, without the two ends.

    At step k = 1 .. steps - 1 the first round(k n / steps) pixels are inserted into the fill, or deleted from the
    image.
    """

    show: Literal["inserted", "deleted"]
    steps: int
    fill: Baseline
    scope: ClassVar[Scope] = "map"

    def count(self) -> int:
        """The steps without the last one."""
        return self.steps - 1

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:
        """Swap the leading pixels."""
        height, width = batch.size
        leading_P = ((steps_P + 1) * (height * width) / self.steps).round()
        swapped_P1HW = batch.ranks_BMHW[rows_P, maps_P, None] < leading_P.view(-1, 1, 1, 1)
        shown_P1HW = swapped_P1HW if self.show == "inserted" else ~swapped_P1HW
        return torch.where(shown_P1HW, batch.evidence.pixels_BCHW[rows_P], batch.fill(self.fill)[rows_P])


@dataclass(frozen=True)
class Imputed(EveryRow):
    """The image with round(share n) of its pixels (but never all) removed and guessed from those around them.

    Attributes:
        order: `most` removes the largest values of the map, `least` the smallest.
        share: of the pixels.
        sigma: standard deviation of the noise on guessed pixels, in normalised units.
    """

    order: Literal["most", "least"]
    share: float
    sigma: float
    scope: ClassVar[Scope] = "map"

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Remove and guess."""
        pixels = batch.size[0] * batch.size[1]
        removed = min(share_of(self.share, batch), pixels - 1)
        ranks_PHW = batch.ranks_BMHW[rows_P, maps_P]
        last = pixels - removed
        missing_PHW = ranks_PHW < removed if self.order == "most" else ranks_PHW >= last
        guessed_PCHW = imputed(batch.evidence.pixels_BCHW[rows_P], missing_PHW)
        if not self.sigma:
            return guessed_PCHW
        noise_PCHW = _drawn(batch, rows_P, f"road {self.share}", guessed_PCHW)
        return guessed_PCHW + self.sigma * noise_PCHW * missing_PHW[:, None]


@dataclass(frozen=True)
class Boxed(EveryRow):
    """The image with the object removed, or with nothing but the object; rows without a box are not asked about."""

    show: Literal["inside", "outside"]
    fill: Baseline
    scope: ClassVar[Scope] = "row"

    def applies(self, batch: HeatmapBatch) -> Tensor:
        """Rows with a box or mask."""
        return batch.inside_BHW.flatten(1).any(1)

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - one step
        """Cut along the box."""
        inside_P1HW = batch.inside_BHW[rows_P, None]
        shown_P1HW = inside_P1HW if self.show == "inside" else ~inside_P1HW
        return torch.where(shown_P1HW, batch.evidence.pixels_BCHW[rows_P], batch.fill(self.fill)[rows_P])


@dataclass(frozen=True)
class Perturbed(EveryRow):
    """The image less a random perturbation: x - I; see `Infidelity`."""

    perturbation: Perturbation
    samples: int
    sigma: float
    side: float
    fill: Baseline
    scope: ClassVar[Scope] = "image"

    def count(self) -> int:
        """The samples."""
        return self.samples

    def pixels(self, batch: HeatmapBatch, rows_P: Tensor, maps_P: Tensor, steps_P: Tensor) -> Tensor:  # noqa: ARG002 - shared
        """Subtract the perturbations."""
        return batch.evidence.pixels_BCHW[rows_P] - self.change(batch, rows_P, steps_P)

    def change(self, batch: HeatmapBatch, rows_P: Tensor, steps_P: Tensor) -> Tensor:
        """The perturbations I, (P, C, H, W); the same for all targets of an image."""
        pixels_PCHW = batch.evidence.pixels_BCHW[rows_P]
        away_PCHW = pixels_PCHW - batch.fill(self.fill)[rows_P]
        if self.perturbation == "square":
            return away_PCHW * self._squares(batch, rows_P, steps_P)
        noise_PCHW = torch.stack(
            [
                _drawn(batch, row[None], f"infidelity {step}", pixels_PCHW)[0]
                for row, step in zip(rows_P, steps_P.tolist(), strict=True)
            ]
        )
        return self.sigma * noise_PCHW if self.perturbation == "gaussian" else away_PCHW - self.sigma * noise_PCHW

    def _squares(self, batch: HeatmapBatch, rows_P: Tensor, steps_P: Tensor) -> Tensor:
        """One square a perturbation, anywhere inside the image, (P, 1, H, W)."""
        height, width = batch.size
        side = max(1, round(self.side * min(height, width)))
        mask_P1HW = torch.zeros(len(rows_P), 1, height, width, device=rows_P.device)
        for p, (row, step) in enumerate(zip(rows_P.tolist(), steps_P.tolist(), strict=True)):
            own = noise.generator(batch.probe.seed, batch.evidence.keys[row], f"infidelity {step}")
            top = int(torch.randint(height - side + 1, (), generator=own))
            left = int(torch.randint(width - side + 1, (), generator=own))
            mask_P1HW[p, 0, top : top + side, left : left + side] = 1
        return mask_P1HW


def share_of(share: float, batch: HeatmapBatch) -> int:
    """Number of pixels in a share of the image."""
    return round(share * batch.size[0] * batch.size[1])


def _drawn(batch: HeatmapBatch, rows_P: Tensor, purpose: str, like_PCHW: Tensor) -> Tensor:
    """Standard normal numbers of each row's image, (P, C, H, W)."""
    keys = [batch.evidence.keys[row] for row in rows_P.tolist()]
    return next(noise.normal(batch.probe.seed, keys, purpose, tuple(like_PCHW.shape[1:]), 1)).to(like_PCHW)
