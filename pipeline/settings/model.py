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
    resize: Positive | None = 256
    crop: Positive | tuple[Positive, Positive] = 224
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    antialias: Annotated[bool, Field(strict=True)] = True
    mean: Annotated[tuple[Channel, ...] | None, Field(validate_default=True)] = None
    std: Annotated[tuple[Channel, ...] | None, Field(validate_default=True)] = None

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
    grid: tuple[Positive, Positive]


class TokensLayout(Section):
    """The layout `{tokens: {prefix: 1, grid: [14, 14]}}`."""

    tokens: TokenGrid


class ModelConfig(Section):
    """The model, its weights, and its target layer."""

    name: str
    weights: str | None = "DEFAULT"
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    num_classes: Positive | None = None
    layer: str = "auto"
    stages: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    preprocess: Literal["default", "squash"] | PreprocessConfig = "default"
    allow_pt: bool = False
    outputs: Literal["auto", "softmax", "sigmoid", "binary", "probabilities", "raw"] = "auto"
    output_key: Annotated[int, Field(ge=0, strict=True)] | str | None = None
    layout: Literal["auto", "channels_first", "channels_last"] | TokensLayout | FunctionName = "auto"
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights_key: str | None = None
    task: Literal["segmentation", "detection", "similarity"] | FunctionName | None = None
    text_embeddings: str | None = None
    reference_embeddings: str | None = None
    logit_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
