"""Images with parts: masks whose pixels are the index of a part, and their values, as members of webdataset tars."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tars import Files, tar_of

from pipeline.data.part_masks import PartMask

Index = npt.NDArray[np.uint8]
VALUES = [0.6, -0.3, 0.1]
SIZE = (60, 40)
"""(width, height) of the images."""


def drawn(size: tuple[int, int] = SIZE) -> Index:
    """Return the mask of three rectangles, which are not symmetric."""
    width, height = size
    index_HW = np.zeros((height, width), np.uint8)
    index_HW[height // 10 : height // 2, width // 10 : width // 3] = 1
    index_HW[height // 4 : height * 3 // 4, width // 2 : width * 5 // 6] = 2
    index_HW[height * 7 // 10 : height * 9 // 10, width // 5 : width // 2] = 3
    return index_HW


def coloured(index_HW: Index) -> Image.Image:
    """Return an image in which each part has a colour of its own, red = 80 times its index."""
    return Image.fromarray(np.stack([index_HW * 80, 20 + index_HW, index_HW * 0 + 90], 2))


def png(index_HW: Index, mode: str = "L", colours: int = 256) -> bytes:
    """Encode a mask; in mode P with a palette of so many colours, 256 of which make it 8 bits deep."""
    image = Image.fromarray(index_HW)
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([255 - value // 3 for value in range(3 * colours)])
    return encoded(image if mode in ("L", "P") else image.convert(mode))


def mask(index_HW: Index, parts: int = 3) -> PartMask:
    return PartMask(png(index_HW), parts)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def about(**changes: object) -> dict[str, object]:
    """Return the object `parts` of a `.json` member."""
    return {"target": 1, "values": VALUES} | changes


def members(key: str = "k", *, index_HW: Index | None = None, label: int = 0, **changes: object) -> Files:
    """Return the members of one sample: an image, a label, the mask of its parts and their values."""
    index_HW = drawn() if index_HW is None else index_HW
    return [
        (f"{key}.png", encoded(coloured(index_HW))),
        (f"{key}.cls", str(label).encode()),
        (f"{key}.parts.png", png(index_HW)),
        (f"{key}.json", json.dumps({"parts": about(**changes), "boxes": [[1, 2, 9, 9]]}).encode()),
    ]


def without(files: Files, suffix: str) -> Files:
    """Leave out the members with a suffix."""
    return [(name, data) for name, data in files if name.partition(".")[2] != suffix]


def swapped(files: Files, suffix: str, content: bytes) -> Files:
    """Give the members with a suffix another content."""
    return [(name, content if name.partition(".")[2] == suffix else data) for name, data in files]


def shards(folder: Path, *each: Files) -> str:
    """Write one tar each, and return a pattern for them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, files in enumerate(each):
        (folder / f"scenes-{number:06d}.tar").write_bytes(tar_of(files))
    return str(folder / "scenes-*.tar")
