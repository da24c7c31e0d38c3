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
    """Of the encoded image; in tables also found by its usual names or its type."""
    key: str = "key"
    """Of the name of the image in the run; without it, the path or the file and row."""
    label: str = "label"
    """Of the class of the image."""
    boxes: str | CornerColumns = "boxes"
    """Of its boxes; or the columns of the four numbers of one box."""
    path: str | None = None
    """Of the path or URL of the image, in a manifest."""
    labels: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Of a list of classes; or one column for each class, with 0 and 1."""
    box_labels: str | None = None
    """Of the class of each box."""
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
    """Suffix of the member that is the image, such as input.jpg; otherwise found by its suffix."""
    label: str | None = None
    """Suffix of the member that is the label, such as output.cls; otherwise found by its suffix."""
    ignore: list[str] = []
    """Patterns of members, and of files in folders, that are no images, such as *.mask.png."""

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
    """Number of images to draw at random, independent of the sharding."""
    seed: Annotated[int, Field(strict=True)] = 0
    """Seed of the draw."""


class ImageKey(Section):
    """One image of `data.keys`, where its key alone does not tell it from images of other shards."""

    shard: Annotated[str, Field(min_length=1)]
    """Name of the shard, as the column shard of a run has it."""
    image_key: Annotated[str, Field(min_length=1)]
    """Key of the image, as the column image_key of a run has it."""


MOST_KEYS = 10_000
"""Most keys in a run file itself, whose text is kept in run.json."""


class DataConfig(Section):
    """Which images to explain, and where their labels, boxes and class names are."""

    shards: str | Annotated[list[str], Field(min_length=1)] = ""
    """Folder of images, tars (also .tar.gz), Parquet or Arrow files, or URLs; braces and globs:
    shard-{000000..000049}.tar. Required, unless data.manifest lists the images."""
    manifest: str | None = None
    """A list of images anywhere, in CSV, TSV, JSON lines or Parquet."""
    root: str | None = None
    """The folder or URL that relative paths of the manifest start from; otherwise the manifest's folder."""
    labels: str | None = None
    """CSV file (path or URL) of labels: filename,class_index; otherwise labels.csv beside the images, if there is
    one."""
    boxes: str | None = None
    """Boxes of the images: a CSV file, Kaggle's LOC_val_solution.csv, COCO's JSON, a folder of Pascal VOC's XML or
    of YOLO's texts; otherwise boxes.csv beside the images, if there is one."""
    classes: str | None = None
    """Names of the classes: imagenet-1k, a CSV (class_index,class_name,wnid), a config.json with id2label, or a
    text file with one name a line."""
    folders: Folders = "auto"
    """Whether sub-folders are the classes of their images: auto (if that is certain), classes or ignore."""
    require_labels: Annotated[bool, Field(strict=True)] = False
    """Refuse the run if an image in a folder has no label."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns of Parquet and Arrow inputs and of manifests; a list names all columns of a manifest
    without a header."""
    chunk_images: Positive = 128
    """Most images in a part file; with fewer, less work is repeated on resuming."""
    formats: Annotated[list[str], Field(min_length=1)] = ["JPEG", "PNG", "WEBP"]
    """Formats that are decoded; also GIF, BMP, TIFF, JPEG2000, PPM, AVIF and HEIF."""
    max_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS, strict=True)] = 64_000_000
    """Most pixels of an image; larger ones are failure rows."""
    sample: SampleConfig | None = None
    """Draw images at random; otherwise all are taken."""
    limit: Positive | None = None
    """Only the first images (--limit); with data.sample the first of the sample, with data.keys of those listed. A
    later run may raise it or leave it out."""
    keys: str | Annotated[list[Annotated[str, Field(min_length=1)] | ImageKey], Field(min_length=1)] | None = None
    """Only these images: a list of keys, or a file with one key a line, or a CSV with the columns shard,image_key,
    such as `camatlas view` exports."""
    window: Window = "dtype"
    """Range of 16-bit values that becomes [0, 1]: dtype, image, or [low, high]."""
    decoder: FunctionName | None = None
    """package.module:function that decodes the bytes of an image into an array."""
    suffixes: Annotated[list[str], Field(min_length=1)] | None = None
    """Suffixes of the images in folders and tars; otherwise every file that is not known to be something else."""
    members: MembersConfig = MembersConfig()
    """The members of tars that are the image and the label, and those that are ignored."""
    split: str | None = None
    """The split of a dataset that has several, such as validation."""
    truncated: Truncated = "refuse"
    """A JPEG that ends early: refuse it, or fill its rest with grey."""
    alpha: Alpha = "white"
    """What is transparent becomes white or black, or transparency is dropped."""
    too_large: TooLarge = "refuse"
    """A JPEG above max_pixels: refuse it, or decode it at half or a quarter of its size (scale)."""
    resizer: Resizer = "pillow"
    """What resizes images: pillow, or simd, which shrinks photographs by vector instructions."""
    decode: DecodePlace = "readers"
    """Where plain JPEGs are decoded: by the readers, or by the device that explains."""
    boxes_format: BoxOrder = "xyxy"
    """What the four numbers of a box are: xyxy, xywh (COCO) or cxcywh (YOLO)."""
    boxes_relative: Annotated[bool, Field(strict=True)] = False
    """Boxes are shares of the width and height of the picture, not pixels."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between several labels in one cell, such as "|"; otherwise a cell is one label."""
    metadata: list[Annotated[str, Field(min_length=1)]] = []
    """Further columns, or fields of .json members, that the rows keep."""

    @field_validator("columns", mode="before")
    @classmethod
    def _takes_the_names_of_all_columns(cls, columns: object) -> object:
        """Take a list for the names of the columns of a manifest without a header."""
        return {"header": columns} if isinstance(columns, list) else columns

    @field_validator("keys")
    @classmethod
    def _fits_a_run_file(cls, keys: str | list[str | ImageKey] | None) -> str | list[str | ImageKey] | None:
        if keys is not None and len(keys) > MOST_KEYS and not isinstance(keys, str):
            raise PydanticCustomError(
                "keys", "at most {most} keys fit in a run file, not {n}; name a file with one key a line",
                {"most": MOST_KEYS, "n": len(keys)},
            )  # fmt: skip
        if keys == "":
            raise PydanticCustomError("keys", "must name a file of keys, or list keys")
        return keys

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
