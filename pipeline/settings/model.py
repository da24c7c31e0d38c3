"""The section `model` of a run file: the model, its weights, outputs, target layer and preprocessing."""

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.settings.data import Positive, Section

FunctionName = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
"""`package.module:function`."""


class PreprocessConfig(Section):
    """Custom preprocessing; `resize: null` squashes the image to the crop size."""

    resize: Positive | None = 256
    crop: Positive = 224
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


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
