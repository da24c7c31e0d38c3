"""What may be decoded and how: formats, size, the window of deep images, and the user's decoder."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.settings.data import Alpha, TooLarge, Truncated, Window

MAGIC = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8",
    "BMP": rb"BM....\0\0\0\0",
    "TIFF": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    "JPEG2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "PPM": rb"P[1-7]\s",
    "AVIF": rb"....ftypavi[fs]",
    "HEIF": rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)",
}
"""Patterns of the first bytes of files, by format."""


def is_image_file(data: bytes, formats: Iterable[str] = tuple(MAGIC)) -> bool:
    """Return whether bytes begin as a file of one of these formats does."""
    return any(re.match(MAGIC[name], data, re.DOTALL) for name in formats if name in MAGIC)


class UnreadableImageError(ValueError):
    """An image that cannot or must not be decoded; it becomes a failure row with `code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class DecoderSource:
    """Where a user's decoder is found.

    Attributes:
        name: `package.module:function`.
        folders: folders with its module and those that it imports; the first one, the working folder of the run, is
            searched before the installed modules, the others after them.
        digest: of the source file; another source is refused. Empty: any source.
    """

    name: str
    folders: tuple[str, ...]
    digest: str = ""


@dataclass(frozen=True)
class DecodeLimits:
    """The rules of decoding, the same for every image of a run.

    Attributes:
        formats: the allowed formats (Pillow names).
        max_pixels: the largest height x width.
        window: how values of more than 8 bits become pixels: `dtype` keeps the high byte, `image` takes the range of
            each image, and (low, high) is a range in values of the file; values beyond it are clipped.
        decoder: the user's decoder; None decodes image files.
        truncated: what becomes of a JPEG that ends early: it is refused, or its rest is grey, as Pillow fills it.
        alpha: what transparency becomes: white or black, or it is dropped, which shows the colours below it.
        too_large: what becomes of a JPEG above `max_pixels`: it is refused, or decoded at half or a quarter size.
        boxes_relative: the boxes of the image are in shares of its width and height, and not in pixels.
    """

    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")
    max_pixels: int = 64_000_000
    window: Window = "dtype"
    decoder: DecoderSource | None = None
    truncated: Truncated = "refuse"
    alpha: Alpha = "white"
    too_large: TooLarge = "refuse"
    boxes_relative: bool = False
