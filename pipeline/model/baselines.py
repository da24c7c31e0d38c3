"""Reference images: what stands where nothing is shown.

`black` is a black image, (0 - mean) / std in the model's normalised space; `mean` is a zero tensor in that
space, the mean colour of the training set; `blur` is the image under a Gaussian (51 px, sigma 50);
`rise_blur` is that of RISE (11 px, sigma 5, zeros around the image).
"""

from typing import Annotated, Literal

import torch
from pydantic import GetPydanticSchema
from pydantic_core import core_schema
from torch import Tensor

from pipeline.errors import ConfigError

Baseline = Literal["black", "mean", "blur", "rise_blur"]
Reference = Baseline | Annotated[Tensor, GetPydanticSchema(lambda *_: core_schema.is_instance_schema(Tensor))]
"""A baseline by name, or a normalised image of one's own, in any shape that fits (C, H, W) or (1, C, H, W)."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_BLUR_KERNEL, _BLUR_SIGMA = 51, 50.0


class Normalisation:
    """Per-channel mean and standard deviation (of pixels in [0, 1]) that made the model's inputs."""

    def __init__(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> None:
        self.mean, self.std = tuple(mean), tuple(std)

    def apply(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalise pixels in [0, 1]."""
        return (pixels_BCHW - self._column(self.mean, pixels_BCHW)) / self._column(self.std, pixels_BCHW)

    def black(self, pixels_BCHW: Tensor) -> Tensor:
        """Black as the model sees it, (1, C, 1, 1)."""
        return -self._column(self.mean, pixels_BCHW) / self._column(self.std, pixels_BCHW)

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def baseline_pixels(kind: Reference, pixels_BCHW: Tensor, normalisation: Normalisation) -> Tensor:
    """Make the baseline of each image, in the shape of the images.

    Raises:
        ConfigError: a tensor does not fit the images, or is not finite (also a ValueError).
    """
    if isinstance(kind, Tensor):
        return _own(kind, pixels_BCHW)
    if kind == "black":
        return normalisation.black(pixels_BCHW).expand_as(pixels_BCHW)
    if kind == "mean":
        return torch.zeros_like(pixels_BCHW)
    return _rise_blurred(pixels_BCHW) if kind == "rise_blur" else _blurred(pixels_BCHW)


def _own(image: Tensor, pixels_BCHW: Tensor) -> Tensor:
    shape = tuple(pixels_BCHW.shape[1:])
    try:
        own_CHW = image.detach().to(pixels_BCHW)
        own_CHW = (own_CHW[0] if own_CHW.ndim == 4 and len(own_CHW) == 1 else own_CHW).broadcast_to(shape)
    except (RuntimeError, IndexError):
        raise ConfigError.one("baseline", f"the tensor {tuple(image.shape)} does not fit images {shape}") from None
    if not bool(own_CHW.isfinite().all()):
        raise ConfigError.one("baseline", "the tensor holds NaN or infinity")
    return own_CHW.expand_as(pixels_BCHW)


def _blurred(pixels_BCHW: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional  # costs seconds, and most workers never blur

    shorter = min(pixels_BCHW.shape[-2:])
    kernel = min(_BLUR_KERNEL, 2 * ((shorter - 1) // 2) + 1)  # reflection needs a kernel that fits the image
    blurred: Tensor = functional.gaussian_blur(pixels_BCHW, [kernel, kernel], [_BLUR_SIGMA, _BLUR_SIGMA])
    return blurred


def _rise_blurred(pixels_BCHW: Tensor) -> Tensor:
    """Blur with RISE's kernel: a Gaussian of sigma 5 on 11 cells whose tails are folded back in at the ends."""
    cells, sigma, tail = 11, 5.0, 20
    offsets = torch.arange(-tail, tail + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    places = (cells // 2 + offsets.long()) % (2 * cells)
    folded = torch.where(places < cells, places, 2 * cells - 1 - places)
    line = torch.zeros(cells, dtype=torch.float64).index_add_(0, folded, weights / weights.sum()).to(pixels_BCHW)
    colours = pixels_BCHW.shape[1]
    across = line.view(1, 1, 1, cells).expand(colours, 1, 1, cells)
    padding, groups = cells // 2, colours
    rows_BCHW = torch.nn.functional.conv2d(pixels_BCHW, across, padding=(0, padding), groups=groups)
    return torch.nn.functional.conv2d(rows_BCHW, across.transpose(2, 3), padding=(padding, 0), groups=groups)
