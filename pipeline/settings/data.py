"""The section `data` of a run file, and the base class of all sections."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from pipeline.settings.preprocess import Resizer

MOST_PIXELS = 89_478_485
"""Pillow's own limit: it takes a larger image for a decompression bomb."""

Positive = Annotated[int, Field(ge=1, strict=True)]
FunctionName = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
"""`package.module:function`."""

Value = Annotated[float, Field(allow_inf_nan=False)]
Window = Literal["dtype", "image"] | tuple[Value, Value]
"""How values of more than 8 bits become pixels: by the range of their type, of each image, or from low to high."""

Folders = Literal["auto", "classes", "ignore"]
"""Whether the sub-folders of a folder of images are its classes: if that is certain, yes, or no."""
Truncated = Literal["refuse", "grey"]
Alpha = Literal["white", "black", "drop"]
TooLarge = Literal["refuse", "scale"]
DecodePlace = Literal["readers", "device"]
"""Where plain photographs are decoded: by the processes that read, or by the device that explains."""

ANNOTATION_SUFFIXES = ("cls", "csv", "json", "txt", "xml")
"""Suffixes of files and members that hold labels or boxes, and never an image."""

PARTS_SUFFIX = "parts.png"
"""Suffix of the member of a tar that shows the parts of the image beside it."""


class Section(BaseModel):
    """A section of a run file: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


BoxOrder = Literal["xyxy", "xywh", "cxcywh"]
"""What the four numbers of a box are: two corners; a corner and the size; or the centre and the size."""

CornerColumns = Annotated[list[str], Field(min_length=4, max_length=4)]
"""The columns of the four numbers of a box."""


class ColumnsConfig(Section):
    """Names of the columns of Parquet inputs and of manifests."""

    image: str = "image"
    key: str = "key"
    label: str = "label"
    boxes: str | CornerColumns = "boxes"
    path: str | None = None
    labels: str | Annotated[list[str], Field(min_length=1)] | None = None
    box_labels: str | None = None
    header: Annotated[list[str], Field(min_length=1)] | None = None
    """The names of the columns of a manifest that has no header."""

    def named(self) -> dict[str, Any]:
        """Return the columns by role: the first four of every run, and others only where they are named."""
        roles = self.model_dump()
        return {role: name for role, name in roles.items() if role in FIRST_ROLES or name is not None}


FIRST_ROLES = ("image", "key", "label", "boxes")
"""The roles of columns that every run has known."""


class MembersConfig(Section):
    """The members of tars that are the image and the label of a sample, and those that are no part of it."""

    image: str | None = None
    label: str | None = None
    ignore: list[str] = []

    @field_validator("image", "label")
    @classmethod
    def _is_a_suffix(cls, suffix: str | None) -> str | None:
        """Write a suffix in lower case without its dot."""
        plain = None if suffix is None else suffix.lower().removeprefix(".")
        if plain is not None and (not plain or "/" in plain or "*" in plain):
            raise PydanticCustomError(
                "suffix", "'{suffix}' is no suffix of members; such as input.jpg", {"suffix": suffix}
            )
        return plain


class SampleConfig(Section):
    """A random sample of `n` images."""

    n: Positive
    seed: Annotated[int, Field(strict=True)] = 0


class DataConfig(Section):
    """Which images to explain, and where their labels, boxes and class names are."""

    shards: str | Annotated[list[str], Field(min_length=1)] = ""
    manifest: str | None = None
    root: str | None = None
    labels: str | None = None
    boxes: str | None = None
    classes: str | None = None
    folders: Folders = "auto"
    require_labels: Annotated[bool, Field(strict=True)] = False
    columns: ColumnsConfig = ColumnsConfig()
    chunk_images: Positive = 128
    formats: Annotated[list[str], Field(min_length=1)] = ["JPEG", "PNG", "WEBP"]
    max_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS, strict=True)] = 64_000_000
    sample: SampleConfig | None = None
    limit: Positive | None = None
    window: Window = "dtype"
    decoder: FunctionName | None = None
    suffixes: Annotated[list[str], Field(min_length=1)] | None = None
    members: MembersConfig = MembersConfig()
    split: str | None = None
    truncated: Truncated = "refuse"
    alpha: Alpha = "white"
    too_large: TooLarge = "refuse"
    resizer: Resizer = "pillow"
    decode: DecodePlace = "readers"
    boxes_format: BoxOrder = "xyxy"
    boxes_relative: Annotated[bool, Field(strict=True)] = False
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    metadata: list[Annotated[str, Field(min_length=1)]] = []

    @field_validator("columns", mode="before")
    @classmethod
    def _takes_the_names_of_all_columns(cls, columns: object) -> object:
        """Take a list for the names of the columns of a manifest without a header."""
        return {"header": columns} if isinstance(columns, list) else columns

    @field_validator("window")
    @classmethod
    def _has_a_range(cls, window: Window) -> Window:
        if not isinstance(window, str) and window[0] >= window[1]:
            raise PydanticCustomError("window", "low must be smaller than high in [low, high]")
        return window

    @field_validator("suffixes")
    @classmethod
    def _are_suffixes(cls, suffixes: list[str] | None) -> list[str] | None:
        """Write suffixes in lower case without their dot, and refuse those of annotations."""
        plain = [suffix.lower().removeprefix(".") for suffix in suffixes or ()]
        if wrong := [suffix for suffix in plain if not suffix or "/" in suffix or suffix in ANNOTATION_SUFFIXES]:
            raise PydanticCustomError(
                "suffix", "'{suffix}' is no suffix of images; {known} hold labels and boxes",
                {"suffix": wrong[0], "known": ", ".join(ANNOTATION_SUFFIXES)},
            )  # fmt: skip
        return list(dict.fromkeys(plain)) if suffixes else None
