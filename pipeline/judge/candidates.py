"""Maps that a metric should order: graded ruins of the truth, changes that add no knowledge, and random regions.

Legend: (H, W) pixels.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.truth.shards import Known

Map = npt.NDArray[np.float64]
"""A map (H, W) with values in [0, 1]."""

TRUTH = "truth"
NOISE_LEVELS = (10, 30, 50, 70, 90)
"""Per cent of smooth noise in the mixed ruins."""

RUINS = (
    TRUTH, "blurred_4", "blurred_9", "dilated", "shifted", *(f"noise_{level}" for level in NOISE_LEVELS), "other_part",
    "inverted", "noise", "centre", "constant",
)  # fmt: skip
"""The truth and its ruins: blurred by a Gaussian of 4 and 9 pixels; dilated by 4 pixels; blurred and shifted by a
quarter of the side; mixed with smooth noise; the part of the smallest value instead; inverted; noise alone; a Gaussian
in the centre; nothing."""

SIZES = 8
"""Random regions per scene, of rising area."""


def truth_map(known: Known) -> Map:
    """Return the map that shows every part of positive value by its value per pixel, scaled to a maximum of 1."""
    map_HW = np.zeros(known.scene.index_HW.shape)
    for part, value in zip(known.scene.parts, known.values.logit_P, strict=True):
        map_HW[part.mask_HW] = max(value, 0.0) / part.mask_HW.sum()
    return scaled(map_HW)


def ruins(known: Known, random: np.random.Generator) -> dict[str, Map]:
    """Return the truth and its ruins by their names."""
    truth_HW = truth_map(known)
    soft_HW, noise_HW = blurred(truth_HW, 4), smooth_noise(truth_HW.shape, random)
    side = truth_HW.shape[0]
    least = known.scene.parts[int(known.values.logit_P.argmin())].mask_HW.astype(np.float64)
    mixed = {f"noise_{level}": mixture(truth_HW, noise_HW, level / 100) for level in NOISE_LEVELS}
    made = {
        TRUTH: truth_HW,
        "blurred_4": soft_HW,
        "blurred_9": blurred(truth_HW, 9),
        "dilated": dilated(truth_HW),
        "shifted": np.roll(soft_HW, (side // 4, side // 4), (0, 1)),
        **mixed,
        "other_part": blurred(least, 4),
        "inverted": 1 - soft_HW,
        "noise": noise_HW,
        "centre": _centre(truth_HW.shape),
        "constant": np.zeros_like(truth_HW),
    }
    return {name: made[name] for name in RUINS}


def blurred(map_HW: Map, sigma: float) -> Map:
    """Blur a map by a Gaussian, and scale it to a maximum of 1."""
    return scaled(ndimage.gaussian_filter(map_HW, sigma))


def dilated(map_HW: Map) -> Map:
    """Give each pixel the largest value within 4 pixels."""
    wide_HW: Map = ndimage.maximum_filter(map_HW, 9)
    return wide_HW


def resized(map_HW: Map) -> Map:
    """Average a map over blocks of 8 x 8 pixels, and interpolate it back."""
    height, width = map_HW.shape
    coarse = map_HW.reshape(height // 8, 8, width // 8, 8).mean((1, 3))
    return scaled(ndimage.zoom(coarse, 8, order=1, grid_mode=True, mode="nearest"))


CHANGES: dict[str, Callable[[Map], Map]] = {
    "blur": lambda map_HW: blurred(map_HW, 4),
    "dilation": dilated,
    "gamma_half": np.sqrt,
    "gamma_two": np.square,
    "resizing": resized,
    "clipping": lambda map_HW: scaled(np.minimum(map_HW, np.quantile(map_HW, 0.9))),
}
"""Changes of a map that use nothing of the model, and so cannot make it truer by knowledge."""


def random_regions(size: tuple[int, ...], random: np.random.Generator) -> list[Map]:
    """Return maps that are 1 on a random region and 0 elsewhere, of 5 to 70 % of the image."""
    fields = [smooth_noise(size, random) for _ in range(SIZES)]
    shares = np.linspace(0.05, 0.7, SIZES)
    return [
        (field > np.quantile(field, 1 - share)).astype(np.float64) for field, share in zip(fields, shares, strict=True)
    ]


def smooth_noise(size: tuple[int, ...], random: np.random.Generator) -> Map:
    """Return noise smoothed by a Gaussian of 5 pixels, scaled to [0, 1]."""
    return scaled(ndimage.gaussian_filter(random.random(size), 5))


def mixture(one_HW: Map, other_HW: Map, share: float) -> Map:
    """Mix two maps, with a share of the second."""
    return (1 - share) * one_HW + share * other_HW


def scaled(map_HW: Map) -> Map:
    """Scale a map to [0, 1]; a constant map becomes zero."""
    low, high = float(map_HW.min()), float(map_HW.max())
    return np.zeros_like(map_HW) if high <= low else (map_HW - low) / (high - low)


def _centre(size: tuple[int, ...]) -> Map:
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    away_HW = (rows - size[0] / 2) ** 2 + (columns - size[1] / 2) ** 2
    return np.asarray(np.exp(-away_HW / (2 * (size[0] / 5.5) ** 2)), np.float64)
