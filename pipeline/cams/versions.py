"""Changed versions of the images (path points, noisy copies), run through the model in full batches.

Legend: I images, B rows (image, target), V versions in one pass, C colours, (H, W) pixels.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

import torch
from torch import Tensor

from pipeline.model import noise
from pipeline.model.evidence import Evidence, Readout
from pipeline.model.probe import Probe

Rule = Literal["right", "left", "midpoint", "trapezoid"]


def versions(
    evidence: Evidence, probe: Probe, changed: Iterable[Tensor], readout: Readout | None = None
) -> Iterator[Evidence]:
    """Yield the evidence of each changed version (I, C, H, W) of the images, with gradients for the same targets.

    Costs one forward pass per image and version, and one head backward pass per row and version. A batch holds as many
    versions as fit.
    """
    known = evidence.rows
    rows, images = len(known.images_B), len(known.first_I)
    per_batch = max(1, probe.batcher.size // images)
    remaining = iter(changed)
    while group := list(itertools.islice(remaining, per_batch)):
        observation = probe.observe(torch.cat(group), gradients=True)
        places_VB = known.places_B + images * torch.arange(len(group))[:, None]
        evidence_VB = observation.evidence_of(places_VB.flatten(), known.targets_B.repeat(len(group)), readout)
        yield from (evidence_VB.select(slice(v * rows, (v + 1) * rows)) for v in range(len(group)))


def images_of(evidence: Evidence) -> Tensor:
    """Return the distinct images of the evidence, (I, C, H, W)."""
    return evidence.pixels_BCHW[evidence.first_rows()]


def noisy_copies(evidence: Evidence, seed: int, purpose: str, sigma: float, samples: int) -> Iterator[Tensor]:
    """Yield copies (I, C, H, W) of the distinct images with Gaussian noise of sigma times each image's range."""
    pixels_ICHW = images_of(evidence)
    scale_I111 = sigma * (pixels_ICHW.amax((1, 2, 3), keepdim=True) - pixels_ICHW.amin((1, 2, 3), keepdim=True))
    keys = [evidence.keys[row] for row in evidence.rows.first_I.tolist()]
    for noise_ICHW in noise.normal(seed, keys, purpose, tuple(pixels_ICHW.shape[1:]), samples, pixels_ICHW.device):
        yield pixels_ICHW + scale_I111 * noise_ICHW


def path_points(steps: int, rule: Rule) -> list[tuple[float, float]]:
    """Return the positions t in [0, 1] and the weights of the sum along the path, in order of t."""
    if rule == "trapezoid":
        return [(i / steps, 0.5 if i in (0, steps) else 1.0) for i in range(steps + 1)]
    shift = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[rule]
    return [((i + shift) / steps, 1.0) for i in range(steps)]
