"""How images become the model's input: size, crop and normalisation."""

from dataclasses import dataclass
from typing import Literal

Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocess:
    """The steps from an upright image to the model's input, as its weights prescribe.

    Attributes:
        crop: side of the square input in pixels.
        resize: length of the shorter side before cropping; None squashes the image to the crop size.
        mean, std: per channel, of pixels in [0, 1].
    """

    crop: int
    resize: int | None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
