"""What `explain` takes as images, and how they become the input of the model: by its own transform, or a given one.

Legend: B images, C colours, (H, W) pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.data.framing import fitted
from pipeline.errors import ConfigError, Mistakes, first_line
from pipeline.explain.given_images import upright_images
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD, Normalisation, unit_pixels
from pipeline.model.transforms import known_preprocess
from pipeline.settings.libraries import import_torchvision
from pipeline.settings.preprocess import Preprocess

Picture = Tensor | npt.NDArray[Any] | Image.Image | str | Path
Images = Picture | Sequence[Picture]
"""One image or several; float tensors are already normalised, everything else is an image."""
Transform = Callable[[Image.Image], object] | Preprocess
"""From an upright image to normalised pixels (C, H, W)."""

_UNKNOWN = (
    "the model does not say how images become its input",
    "give transform=, such as ResNet50_Weights.IMAGENET1K_V2, its .transforms(), or a function from a PIL image to a "
    "tensor (C, H, W); or give a float tensor that is already normalised",
)


@dataclass(frozen=True)
class Preparation:
    """How images become the input of a model.

    Attributes:
        transform: from an upright image to normalised pixels.
        mean, std: of the normalisation, where they are known.
        classes: names of the classes, where the weights know them.
    """

    transform: Transform
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, transform: Any) -> "Preparation":  # noqa: ANN401 - torchvision's enums are untyped
        """Find the preparation for a model.

        Raises:
            ConfigError: it is not known, or the transform is none.
        """
        chosen = known_preprocess(model) if transform is None else transform
        if chosen is None:
            raise ConfigError.one("images", *_UNKNOWN)
        if isinstance(chosen, Preprocess):
            return cls(chosen, chosen.mean, chosen.std)
        import_torchvision()
        from torchvision.models import WeightsEnum
        from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

        classes: tuple[str, ...] = ()
        if isinstance(chosen, WeightsEnum):
            classes, chosen = tuple(chosen.meta.get("categories", ())), chosen.transforms()
        if isinstance(chosen, (ImageClassification, SemanticSegmentation)):
            return cls(chosen, tuple(chosen.mean), tuple(chosen.std), classes)
        if not callable(chosen):
            raise ConfigError.one("transform", f"{type(chosen).__name__} is no transform", _UNKNOWN[1])
        return cls(chosen, classes=classes)

    def __call__(self, images: object) -> Tensor:
        """Return the normalised pixels of images, (B, C, H, W) float32.

        Raises:
            ConfigError: an image cannot be used, or the transform does not give pixels of one shape.
        """
        channels = self.transform.channels if isinstance(self.transform, Preprocess) else 3
        if channels not in (1, 3):
            raise ConfigError.one("images", f"the model reads {channels} channels", "give a float tensor, normalised")
        pixels = [self._pixels(image, place) for place, image in enumerate(upright_images(images, channels))]
        shapes = {tuple(one.shape) for one in pixels}
        if len(shapes) > 1:
            hint = "let the transform resize and crop to one size"
            raise ConfigError.one("transform", f"it gives pixels of several shapes: {sorted(shapes)}", hint)
        return torch.stack(pixels)

    def _pixels(self, image: Image.Image, place: int) -> Tensor:
        if isinstance(self.transform, Preprocess):
            pixels_HWC = torch.from_numpy(np.array(fitted((image,), None, self.transform).pixels_HWC))
            normalisation = Normalisation(self.transform.mean, self.transform.std)
            return normalisation.apply(unit_pixels(pixels_HWC[None]))[0]
        try:
            found = self.transform(image)
        except Exception as error:
            raise ConfigError.one("transform", f"it raised {first_line(error)} on images[{place}]") from error
        if not isinstance(found, Tensor) or found.ndim != 3 or not found.is_floating_point():
            given = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ConfigError.one("transform", f"it gives {given}", "it must give a float tensor (C, H, W)")
        return found.float()


@dataclass(frozen=True)
class Inputs:
    """The input of the model, and how it was made; `preparation` is None for tensors that are already normalised."""

    pixels_BCHW: Tensor
    preparation: Preparation | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes that the weights know."""
        return () if self.preparation is None else self.preparation.classes

    def normalisation(self, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Normalisation:
        """Return the normalisation of the pixels: as stated, else that of the preparation, else ImageNet's for colours.

        Other images than those of three channels have none by default.
        """
        known = self.preparation
        if mean is None and std is None and not (known and known.mean and known.std) and self._is_no_colour:
            return Normalisation((), ())
        return Normalisation(
            mean or (known and known.mean) or IMAGENET_MEAN,
            std or (known and known.std) or IMAGENET_STD,
        )

    @property
    def _is_no_colour(self) -> bool:
        return self.pixels_BCHW.ndim == 4 and self.pixels_BCHW.shape[1] != len(IMAGENET_MEAN)

    @classmethod
    def of(cls, images: object, model: nn.Module, transform: Any) -> "Inputs":  # noqa: ANN401 - as above
        """Read what was given to `explain`; images go to the device of the model.

        Raises:
            ConfigError: something is no image, or ambiguous, or the transform is not known (also a ValueError).
        """
        ready = normalised(images)
        if ready is None:
            preparation = _preparation(images, model, transform)
            weight = next(model.parameters(), None)
            pixels_BCHW = preparation(images)
            return cls(pixels_BCHW if weight is None else pixels_BCHW.to(weight.device), preparation)
        if transform is not None:
            hint = "leave it out, or give images"
            raise ConfigError.one("transform", "float tensors are already normalised, so it would not be used", hint)
        return cls(ready, None)


def _preparation(images: object, model: nn.Module, transform: Any) -> Preparation:  # noqa: ANN401 - as above
    """Find the preparation; if there is none, the mistakes in the images are told, too."""
    unknown, mistakes = Mistakes(), Mistakes()
    with unknown.collecting():
        return Preparation.of(model, transform)
    with mistakes.collecting():
        upright_images(images, 3)
    raise ConfigError([*mistakes.found, *unknown.found])


def normalised(images: object) -> Tensor | None:
    """Return float tensors as one batch (B, C, H, W), a batch itself untouched; None for images.

    Raises:
        ConfigError: tensors have several shapes, or are mixed with images.
    """
    if isinstance(images, Tensor) and images.is_floating_point():
        return images[None] if images.ndim == 3 else images
    if not isinstance(images, (list, tuple)) or not any(_is_float(one) for one in images):
        return None
    if not all(_is_float(one) for one in images):
        raise ConfigError.one("images", "float tensors, which are normalised, stand beside images", "give one kind")
    shapes = sorted({tuple(one.shape) for one in images})
    if len(shapes) > 1 or len(shapes[0]) != 3:
        raise ConfigError.one("images", f"float tensors of shapes {shapes}", "give tensors (C, H, W) of one shape")
    return torch.stack(list(images))


def _is_float(one: object) -> bool:
    return isinstance(one, Tensor) and one.is_floating_point()
