"""The section `model` of a run file: the model, its weights, outputs, target layer and preprocessing."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from pipeline.settings.data import FunctionName, Positive, Section
from pipeline.settings.preprocess import Preprocess, Size

Channel = Annotated[float, Field(allow_inf_nan=False)]


class PreprocessConfig(Section):
    """Custom preprocessing; `resize: null` squashes the image to the crop size."""

    channels: Positive = 3
    """Number of channels of the input."""
    resize: Positive | None = 256
    """Length of the shorter side before cropping; null squashes the image to the crop size."""
    crop: Positive | tuple[Positive, Positive] = 224
    """Side of the input in pixels, or [height, width]."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    """How pixels are resized."""
    antialias: Annotated[bool, Field(strict=True)] = True
    """The filter grows with the reduction, as Pillow's does."""
    mean: Annotated[tuple[Channel, ...] | None, Field(validate_default=True)] = None
    """Mean of each channel, of pixels in [0, 1]; otherwise that of ImageNet."""
    std: Annotated[tuple[Channel, ...] | None, Field(validate_default=True)] = None
    """Standard deviation of each channel; otherwise that of ImageNet."""

    @field_validator("crop")
    @classmethod
    def _fits_the_resize(cls, crop: int | Size, info: ValidationInfo) -> int | Size:
        """Refuse a crop that a resized image may not fill; write a square as one number, for a single identity."""
        longer = crop if isinstance(crop, int) else max(crop)
        resize = info.data.get("resize")
        if resize is not None and longer > resize:
            raise PydanticCustomError(
                "crop", "the crop must not be larger than resize ({resize}), the shorter side", {"resize": resize}
            )
        return crop if isinstance(crop, int) or crop[0] != crop[1] else crop[0]

    @field_validator("mean", "std")
    @classmethod
    def _one_per_channel(cls, values: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        channels = info.data.get("channels")
        if values is None and channels not in (3, None):
            raise PydanticCustomError(
                "absent", "is required where model.preprocess.channels is {channels}", {"channels": channels}
            )
        if values is not None and channels is not None and len(values) != channels:
            raise PydanticCustomError(
                "length", "{given} given, but {channels} needed, one per channel (model.preprocess.channels)",
                {"given": len(values), "channels": channels},
            )  # fmt: skip
        return values

    @field_validator("mean")
    @classmethod
    def _of_pixels_in_unit_range(cls, mean: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if mean and max(mean) > 1:
            raise PydanticCustomError("mean", "pixels are in [0, 1] here, so their mean cannot exceed 1: divide by 255")
        return mean

    @field_validator("std")
    @classmethod
    def _is_positive(cls, std: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if std and min(std) <= 0:
            raise PydanticCustomError("std", "every std must be positive")
        return std

    def preprocess(self) -> Preprocess:
        """Return the steps; without mean and std, those of ImageNet."""
        normalised = {name: value for name in ("mean", "std") if (value := getattr(self, name)) is not None}
        return Preprocess(self.crop, self.resize, self.interpolation, antialias=self.antialias, **normalised)


class TokenGrid(Section):
    """Tokens (B, T, K): `prefix` tokens, then the patches of a grid (height, width) in raster order."""

    prefix: Annotated[int, Field(ge=0, strict=True)] = 0
    """Tokens before the patches, such as a class token."""
    grid: tuple[Positive, Positive]
    """Height and width of the grid of patches."""


class TokensLayout(Section):
    """The layout `{tokens: {prefix: 1, grid: [14, 14]}}`."""

    tokens: TokenGrid
    """Where the patches stand among the tokens."""


class ModelConfig(Section):
    """The model, its weights, and its target layer."""

    name: str
    """torchvision/NAME, timm/NAME, transformers/NAME_OR_FOLDER, or package.module:function."""
    weights: str | None = "DEFAULT"
    """The name of weights, a .safetensors file, or random; .pt needs allow_pt: true."""
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Refuse weights with another hash; run.json of an earlier run has the hash."""
    num_classes: Positive | None = None
    """Number of outputs, for fine-tuned models; otherwise the library's."""
    layer: str = "auto"
    """The target layer: the name of a module; auto: the last one at the deepest resolution on which the logits
    depend."""
    stages: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    """Layers for methods that combine several, from shallow to deep, ending with layer."""
    preprocess: Literal["default", "squash"] | PreprocessConfig = "default"
    """How images become the input: default (that of the weights), squash, or its steps."""
    allow_pt: bool = False
    """Allow weights in a .pt file; only tensors are read from it."""
    outputs: Literal["auto", "softmax", "sigmoid", "binary", "probabilities", "raw"] = "auto"
    """What the outputs mean; auto takes softmax and refuses outputs that may be something else."""
    output_key: Annotated[int, Field(ge=0, strict=True)] | str | None = None
    """The part of a returned dict or tuple that holds the logits; otherwise found."""
    layout: Literal["auto", "channels_first", "channels_last"] | TokensLayout | FunctionName = "auto"
    """How the layer's output is read; auto finds out by changing patches of an image."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a model by package.module:function."""
    weights_key: str | None = None
    """The part of a checkpoint that holds the weights, where several fit."""
    task: Literal["segmentation", "detection", "similarity"] | FunctionName | None = None
    """How other outputs become one number for each class; torchvision's models name theirs."""
    text_embeddings: str | None = None
    """A .safetensors file of named text vectors: zero-shot classes by cosine similarity."""
    reference_embeddings: str | None = None
    """A .safetensors file of named vectors: similarity to each reference."""
    logit_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The factor of the cosine similarity of zero-shot classes; otherwise that of the file or the model."""
