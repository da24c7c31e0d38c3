"""Other versions of the images (path points, noisy copies) asked about the same targets, in passes that are full.

Legend: I images, B rows (image, target), V versions in one pass, C colours, (H, W) pixels.
"""

import itertools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pipeline.model import noise
from pipeline.model.evidence import Evidence, Readout, target_logit
from pipeline.model.probe import Probe


def versions(
    evidence: Evidence, probe: Probe, changed: Iterable[Tensor], readout: Readout = target_logit
) -> Iterator[Evidence]:
    """Run versions of the evidence's images (I, C, H, W) and differentiate the same targets' score in each.

    One forward per image and version, one head backward per row and version; several versions share a pass while the
    batch has room.
    """
    local_B = evidence.places()
    rows, images = len(local_B), len(evidence.first_rows())
    together = max(1, probe.batcher.size // images)
    waiting = iter(changed)
    while group := list(itertools.islice(waiting, together)):
        observation = probe.observe(torch.cat(group), gradients=True)
        places_VB = local_B + images * torch.arange(len(group), device=local_B.device)[:, None]
        found = observation.evidence_of(places_VB.flatten(), evidence.targets_B.repeat(len(group)), readout)
        yield from (found.select(slice(v * rows, (v + 1) * rows)) for v in range(len(group)))


def images_of(evidence: Evidence) -> Tensor:
    """The distinct images of the evidence, (I, C, H, W)."""
    return evidence.pixels_BCHW[evidence.first_rows()]


def noisy_copies(evidence: Evidence, seed: int, purpose: str, sigma: float, samples: int) -> Iterator[Tensor]:
    """Copies of the distinct images with Gaussian noise of sigma times each image's range, (I, C, H, W) each."""
    pixels_ICHW = images_of(evidence)
    scale_I111 = sigma * (pixels_ICHW.amax((1, 2, 3), keepdim=True) - pixels_ICHW.amin((1, 2, 3), keepdim=True))
    keys = [evidence.keys[row] for row in evidence.first_rows().tolist()]
    for noise_ICHW in noise.normal(seed, keys, purpose, tuple(pixels_ICHW.shape[1:]), samples):
        yield pixels_ICHW + scale_I111 * noise_ICHW.to(pixels_ICHW)
