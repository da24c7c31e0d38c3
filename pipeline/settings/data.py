"""The section `data` of a run file, and the base class of all sections."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST_PIXELS = 89_478_485
"""Pillow's own limit: it takes a larger image for a decompression bomb."""

Positive = Annotated[int, Field(ge=1, strict=True)]


class Section(BaseModel):
    """A section of a run file: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ColumnsConfig(Section):
    """Names of the columns of Parquet inputs."""

    image: str = "image"
    key: str = "key"
    label: str = "label"
    boxes: str = "boxes"


class SampleConfig(Section):
    """A random sample of `n` images."""

    n: Positive
    seed: Annotated[int, Field(strict=True)] = 0


class DataConfig(Section):
    """Which images to explain, and where their labels, boxes and class names are."""

    shards: str | Annotated[list[str], Field(min_length=1)]
    labels: str | None = None
    boxes: str | None = None
    classes: str | None = None
    columns: ColumnsConfig = ColumnsConfig()
    chunk_images: Positive = 128
    formats: Annotated[list[str], Field(min_length=1)] = ["JPEG", "PNG", "WEBP"]
    max_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS, strict=True)] = 64_000_000
    sample: SampleConfig | None = None
    limit: Positive | None = None
