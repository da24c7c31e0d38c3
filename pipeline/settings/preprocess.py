"""How images become the model's input: size, crop, channels and normalisation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Resizer = Literal["pillow", "simd"]
Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class Preprocess:
    """The steps from an upright image to the model's input, as its weights prescribe.

    Attributes:
        crop: side of a square input in pixels, or (height, width).
        resize: length of the shorter side before cropping; (height, width) squashes the image to that size before
            cropping; None squashes it to the crop size.
        interpolation: how pixels are resized.
        mean, std: per channel, of pixels in [0, 1]; their length is the number of channels.
        antialias: whether a bilinear or bicubic filter grows with the reduction, as Pillow's does; without, it reads
            the 2 or 4 nearest pixels per axis, as OpenCV and tensors of torchvision do by default.
        crop_start: where the crop starts if its centre lies between two pixels: at the nearest even one, as
            torchvision does, or at the one below, as transformers does.
        resizer: what shrinks photographs: Pillow, or vector instructions, as `pipeline.data.shrinking` says.
    """

    crop: int | Size
    resize: int | Size | None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    antialias: bool = True
    crop_start: Literal["nearest", "below"] = "nearest"
    resizer: Resizer = "pillow"

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Preprocess":
        """Build from fields that may have been JSON, as a manifest or a request to a subprocess holds them."""
        hashable: dict[str, Any] = {
            name: tuple(value) if type(value) is list else value for name, value in fields.items()
        }
        return cls(**hashable)

    @property
    def size(self) -> Size:
        """Return (height, width) of the model's input."""
        return (self.crop, self.crop) if isinstance(self.crop, int) else self.crop

    @property
    def channels(self) -> int:
        """Return the number of channels of the model's input."""
        return len(self.mean)

    @property
    def shrinks(self) -> bool:
        """Return whether photographs are shrunk by vector instructions: at their own aspect, with a growing filter."""
        filtered = self.antialias and self.interpolation == "bilinear"
        return self.resizer == "simd" and filtered and isinstance(self.resize, int)

    def identity(self) -> dict[str, Any]:
        """Return the fields as a run's identity records them; a setting that older runs did not have only if used."""
        fields = asdict(self)
        if self.antialias:
            del fields["antialias"]
        if self.crop_start == "nearest":
            del fields["crop_start"]
        if not self.shrinks:
            del fields["resizer"]
        return fields
