"""An algorithm of captum with its parameters and the rows that it explains.

Legend: B rows (image, target), C colours, (H, W) pixels, S samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pipeline.cams.captum.library import drawing
from pipeline.model import noise
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe


@dataclass(frozen=True)
class Job:
    """An algorithm with its parameters, and the rows that it explains."""

    algorithm: str
    options: Mapping[str, Any]
    evidence: Evidence
    probe: Probe

    @property
    def pixels_BCHW(self) -> Tensor:
        """The images of the rows."""
        return self.evidence.pixels_BCHW

    def baselines(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the baselines of images, (B, C, H, W)."""
        return self.probe.baseline_pixels(self.options["baseline"], pixels_BCHW)

    def row_by_row(self, one: Callable[[Tensor, Tensor, str], Tensor]) -> Tensor:
        """Call `one` with the image (1, C, H, W), the target (1,) and the key of each row."""
        rows = zip(_ones(self.pixels_BCHW), _ones(self.evidence.targets_B), self.evidence.keys, strict=True)
        return torch.cat([one(*row) for row in rows])

    def drawn(self, one: Callable[[Tensor, Tensor, Tensor, str], Tensor]) -> Tensor:
        """Call `one` with image, baseline, target and key of each row, on the CPU, with random numbers of its own."""

        def alone(pixels_1CHW: Tensor, target_1: Tensor, key: str) -> Tensor:
            with drawing(self.probe.seed, key, f"captum {self.algorithm}"):
                return one(pixels_1CHW.cpu(), self.baselines(pixels_1CHW).cpu(), target_1.cpu(), key)

        return self.row_by_row(alone)


Route = Callable[[Job, ModuleType], Tensor]
"""Runs a job with the module `captum.attr`: (B, C, H, W), or (B, ...) in the layout of a layer."""


def around(baseline_1CHW: Tensor, pixels_1CHW: Tensor, job: Job, key: str) -> Tensor:
    """Return the distribution of baselines: the baseline with noise of sigma times the image's range, (S, C, H, W)."""
    scale = job.options["sigma"] * (pixels_1CHW.max() - pixels_1CHW.min())
    shape, samples, device = tuple(pixels_1CHW.shape[1:]), job.options["samples"], pixels_1CHW.device
    drawn = noise.normal(job.probe.seed, [key], f"captum {job.algorithm}", shape, samples, device)
    around_SCHW: Tensor = baseline_1CHW + scale * torch.cat(list(drawn))
    return around_SCHW


def _ones(tensor: Tensor) -> list[Tensor]:
    """Return the rows of a tensor as tensors of one row."""
    return [tensor[row : row + 1] for row in range(len(tensor))]


def cells_of(pixels_BCHW: Tensor, cells: int) -> Tensor:
    """Return the number of each pixel's cell in a grid of cells x cells, (1, 1, H, W)."""
    height, width = pixels_BCHW.shape[-2:]
    down, across = (torch.arange(side, device=pixels_BCHW.device) * cells // side for side in (height, width))
    return (down[:, None] * cells + across)[None, None]
