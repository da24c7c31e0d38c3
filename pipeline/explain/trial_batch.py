"""Random maps of two random images, with boxes and parts, on which metrics of the user's are tried.

Legend: B rows (image, target), M maps of a row, (u, v) grid, (H, W) pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.cams import CamMethod, build_methods
from pipeline.explain.explanations import Explanations, observe, scoring_batch
from pipeline.maps.heatmaps import is_degenerate
from pipeline.metrics import Parts, ScoringBatch, Truth
from pipeline.model.probe import Probe
from pipeline.model.trial import LoadedModel, random_images


@dataclass(frozen=True)
class TrialMaps:
    """The maps of two rows by two methods, as a metric meets them."""

    explanations: Explanations
    truth: Truth

    METHODS: ClassVar[tuple[str, ...]] = ("gradcam", "eigen_cam")
    """Methods that draw maps again; the maps themselves are random."""

    def batch(self, rows: Sequence[int], places: Sequence[int]) -> ScoringBatch:
        """Return the batch of some rows and of some of the maps."""
        labels = [self.METHODS[place] for place in places]
        some = self.explanations.select(torch.tensor(rows))
        kept = replace(
            some,
            maps={label: some.maps[label] for label in labels},
            degenerate={label: some.degenerate[label] for label in labels},
            methods={label: some.methods[label] for label in labels},
        )
        truth = Truth([self.truth.boxes_xyxy[row] for row in rows], parts=[self.truth.parts[row] for row in rows])
        return scoring_batch(kept, truth).private()


def trial_maps(probe: Probe, loaded: LoadedModel) -> TrialMaps:
    """Draw random maps for two random images; the first row explains the class of its parts, in the middle a box."""
    size = loaded.preprocess.size
    pixels_2CHW = random_images((loaded.preprocess.channels, *size))[:2]
    methods: dict[str, CamMethod] = build_methods(TrialMaps.METHODS)
    with torch.inference_mode(False):
        evidence = observe(pixels_2CHW, methods, probe, ("trial 0", "trial 1")).evidence(
            None if loaded.outputs.has_confidences else torch.zeros(2, dtype=torch.long)
        )
    generator = torch.Generator().manual_seed(0)
    grid = evidence.acts_BKuv.shape[2:]
    maps = {label: torch.rand((2, *grid), generator=generator) for label in methods}
    flags = {label: is_degenerate(map_2uv) for label, map_2uv in maps.items()}
    box = torch.tensor([[size[1] / 4, size[0] / 4, 3 * size[1] / 4, 3 * size[0] / 4]])
    truth = Truth([box, box], parts=[_parts(size, int(target)) for target in evidence.targets_B])
    return TrialMaps(Explanations(maps, flags, evidence, probe, methods), truth)


def _parts(size: tuple[int, int], target: int) -> Parts:
    index_HW: Tensor = torch.zeros(size, dtype=torch.long)
    index_HW[:, : size[1] // 2], index_HW[size[0] // 2 :, size[1] // 2 :] = 1, 2
    return Parts(index_HW, torch.tensor([0.6, -0.2], dtype=torch.float64), target)
