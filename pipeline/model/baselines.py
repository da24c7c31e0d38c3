"""Baseline images: the pixels that replace masked pixels.

black      a black image: (0 - mean) / std in the model's normalised space
mean       zero in the model's normalised space: the mean colour of the training set
blur       the image blurred with a Gaussian (51 px, sigma 50)
rise_blur  the image blurred as in RISE (11 px, sigma 5, padded with zeros)
"""

import warnings
from typing import Annotated, Literal

import torch
from pydantic import GetPydanticSchema
from pydantic_core import core_schema
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.transfers import sent
from pipeline.settings.libraries import import_torchvision

Baseline = Literal["black", "mean", "blur", "rise_blur"]
PER_IMAGE = ("blur", "rise_blur")
"""Baselines that depend on the image."""
Reference = Baseline | Annotated[Tensor, GetPydanticSchema(lambda *_: core_schema.is_instance_schema(Tensor))]
"""A baseline by name, or a normalised image that broadcasts to (C, H, W); a leading dimension of 1 is allowed."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BLUR_KERNEL, _BLUR_SIGMA = 51, 50.0


class Normalisation:
    """Per-channel mean and standard deviation, of pixels in [0, 1], that normalise the model's inputs.

    Empty ones are not known: what needs them is refused.

    Args:
        mean, std: one number for each channel.
        doubt: why they may be others than the images have; a warning says so where they are needed.
    """

    def __init__(
        self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD, doubt: str = ""
    ) -> None:
        self.mean, self.std, self._doubt = tuple(mean), tuple(std), doubt

    @property
    def is_known(self) -> bool:
        """Whether there are a mean and a standard deviation."""
        return bool(self.mean and self.std)

    def apply(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalise pixels in [0, 1], (B, C, H, W)."""
        return (pixels_BCHW - self._column(self.mean, pixels_BCHW)) / self._column(self.std, pixels_BCHW)

    def black(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the normalised value of black, (1, C, 1, 1); raise ConfigError if the normalisation is not known."""
        if not self.is_known:
            channels = pixels_BCHW.shape[1]
            plural = "" if channels == 1 else "s"
            raise ConfigError.one(
                "baseline",
                f"'black' needs the mean and std of images of {channels} channel{plural}",
                f"give mean= and std= with {channels} number{plural} each, or another baseline, such as mean",
            )
        if self._doubt:
            warnings.warn(self._doubt, stacklevel=2)
            self._doubt = ""  # once is enough
        return -self._column(self.mean, pixels_BCHW) / self._column(self.std, pixels_BCHW)

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return sent(torch.tensor(values, dtype=like.dtype), like.device).view(1, -1, 1, 1)


def unit_pixels(pixels_BHWC: Tensor) -> Tensor:
    """Return decoded pixels, uint8 or already floats in [0, 1], as floats in [0, 1], (B, C, H, W)."""
    pixels_BCHW = pixels_BHWC.permute(0, 3, 1, 2)
    return pixels_BCHW.float().div(255) if pixels_BHWC.dtype == torch.uint8 else pixels_BCHW.float()


def baseline_pixels(kind: Reference, pixels_BCHW: Tensor, normalisation: Normalisation) -> Tensor:
    """Return the baseline of each image, (B, C, H, W).

    Raises:
        ConfigError: a given tensor does not fit the images, or is not finite (also a ValueError).
    """
    if isinstance(kind, Tensor):
        return _expanded(kind, pixels_BCHW)
    if kind == "black":
        return normalisation.black(pixels_BCHW).expand_as(pixels_BCHW)
    if kind == "mean":
        return torch.zeros_like(pixels_BCHW)
    return _rise_blurred(pixels_BCHW) if kind == "rise_blur" else _blurred(pixels_BCHW)


def _expanded(image: Tensor, pixels_BCHW: Tensor) -> Tensor:
    shape = tuple(pixels_BCHW.shape[1:])
    try:
        image_CHW = image.detach().to(pixels_BCHW)
        image_CHW = (image_CHW[0] if image_CHW.ndim == 4 and len(image_CHW) == 1 else image_CHW).broadcast_to(shape)
    except (RuntimeError, IndexError):
        raise ConfigError.one(
            "baseline", f"the tensor {tuple(image.shape)} does not fit images of shape {shape}"
        ) from None
    if not bool(image_CHW.isfinite().all()):
        raise ConfigError.one("baseline", "the tensor contains NaN or infinity")
    return image_CHW.expand_as(pixels_BCHW)


def _blurred(pixels_BCHW: Tensor) -> Tensor:
    import_torchvision()
    from torchvision.transforms.v2 import functional  # imported here: it is slow, and most workers never blur

    shorter = min(pixels_BCHW.shape[-2:])
    kernel = min(_BLUR_KERNEL, 2 * ((shorter - 1) // 2) + 1)  # reflection padding needs a kernel that fits the image
    blurred: Tensor = functional.gaussian_blur(pixels_BCHW, [kernel, kernel], [_BLUR_SIGMA, _BLUR_SIGMA])
    return blurred


def _rise_blurred(pixels_BCHW: Tensor) -> Tensor:
    """Blur with RISE's kernel: a Gaussian of sigma 5 on 11 taps, with its tails reflected back in at both ends."""
    taps, sigma, tail = 11, 5.0, 20
    offsets = torch.arange(-tail, tail + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    positions = (taps // 2 + offsets.long()) % (2 * taps)
    reflected = torch.where(positions < taps, positions, 2 * taps - 1 - positions)
    line = torch.zeros(taps, dtype=torch.float64).index_add_(0, reflected, weights / weights.sum()).to(pixels_BCHW)
    colours = pixels_BCHW.shape[1]
    horizontal = line.view(1, 1, 1, taps).expand(colours, 1, 1, taps)
    padding, groups = taps // 2, colours
    rows_BCHW = torch.nn.functional.conv2d(pixels_BCHW, horizontal, padding=(0, padding), groups=groups)
    return torch.nn.functional.conv2d(rows_BCHW, horizontal.transpose(2, 3), padding=(padding, 0), groups=groups)
