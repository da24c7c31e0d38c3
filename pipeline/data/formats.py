"""Formats of image files that can be decoded here; some need a library that not every installation has."""

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

from PIL import features

from pipeline.errors import Mistake, nearest

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF", "HEIF")
"""Names of formats in Pillow."""
_OTHER_NAMES = {"HEIC": "HEIF", "JP2": "JPEG2000", "TIF": "TIFF"}
_SUFFIXES = {"AVIF": ("avif",), "HEIF": ("heic", "heif"), "JPEG2000": ("j2k", "jpx")}
"""Suffixes that images have only if their format is allowed, because older runs did not know them."""


def suffixes_of(formats: Iterable[str]) -> tuple[str, ...]:
    """Return the suffixes of images in these formats that are not those of images anyway."""
    return tuple(suffix for name in formats for suffix in _SUFFIXES.get(name.upper(), ()))


def known_formats(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of formats in Pillow's spelling; unknown ones stay as they are."""
    return tuple(_OTHER_NAMES.get(name.upper(), name.upper()) for name in names)


def format_mistakes(names: Iterable[str]) -> list[Mistake]:
    """Return a mistake for each format that is unknown, or that cannot be decoded here."""
    mistakes = []
    for name in names:
        if name not in FORMATS:
            mistakes.append(Mistake("data.formats", f"unknown format '{name}'", nearest(name, FORMATS)))
        elif name == "HEIF" and find_spec("pillow_heif") is None:
            mistakes.append(Mistake("data.formats", "HEIF needs pillow-heif", "pip install 'camatlas[heic]'"))
        elif name == "AVIF" and not features.check("avif"):
            mistakes.append(Mistake("data.formats", "this build of Pillow has no AVIF", "use a wheel of Pillow"))
    return mistakes


def register_formats(names: Iterable[str]) -> None:
    """Make Pillow open these formats, if they are not its own."""
    if "HEIF" in names:
        _register_heif()


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener  # imported on demand, because it is optional

    register_heif_opener(thumbnails=False)
