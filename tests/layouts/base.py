"""A layout: a function that writes a dataset as people have it, and returns the truth about it.

Every picture has a size of its own, so that a row of a run shows which picture it describes: picture `n` is 40 + n
pixels wide. Keys are those that the run gives; labels are class indices of `CLASSES`.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WNIDS = tuple(f"n{10_000_000 + 7 * i}" for i in range(10))
NAMES = ("tench", "goldfish", "great shark", "ray", "cock", "hen", "ostrich", "finch", "junco", "bunting")
FIRST_WIDTH, HEIGHT = 40, 36
Files = dict[str, bytes]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Truth:
    """What a run of a layout must hold.

    Attributes:
        pictures: the number of each picture, by its key; those that must be explained.
        labels: the class of each picture that has one, by its key.
        boxes: the boxes of each picture that has any, by its key, as (x0, y0, x1, y1) in pixels.
        failed: the code of each image that must fail, by its key.
        data: settings of the section `data`; `{}` in a value stands for the folder. `shards` is the folder itself.
        refused: a pattern of the sentence with which the dataset is refused before the work.
        packed: whether `camatlas pack` takes the folder, and must give the same labels.
    """

    pictures: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    packed: bool = False


Write = Callable[[Path], Truth]
LAYOUTS: dict[str, Write] = {}


def layout(write: Write) -> Write:
    """Add a layout to the corpus, under the name of its function."""
    assert write.__name__ not in LAYOUTS
    LAYOUTS[write.__name__] = write
    return write


def picture(number: int, kind: str = "JPEG") -> bytes:
    """Return an image file that no other number gives."""
    values = np.random.default_rng(number).integers(0, 256, (HEIGHT, FIRST_WIDTH + number, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def number_of(width: int) -> int:
    """Return the number of a picture, by its width in a row."""
    return width - FIRST_WIDTH


def put(folder: Path, files: Files) -> None:
    """Write files into a folder, and the folders above them."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def put_pictures(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Write one picture for each name; return their numbers by name."""
    numbers = {name: number for number, name in enumerate(names)}
    put(folder, {name: picture(number) for name, number in numbers.items()})
    return numbers


def csv(header: str, rows: Iterable[Iterable[object]], separator: str = ",") -> bytes:
    """Return a text file of rows."""
    lines = [header, *(separator.join(map(str, row)) for row in rows)] if header else []
    return "".join(f"{line}\n" for line in lines or (separator.join(map(str, row)) for row in rows)).encode()


def class_table(folder: Path) -> dict[str, str]:
    """Write the table of the ten classes beside the dataset; return the setting that names it."""
    rows = [(i, name, wnid) for i, (name, wnid) in enumerate(zip(NAMES, WNIDS, strict=True))]
    (folder.parent / "classes.csv").write_bytes(csv("class_index,class_name,wnid", rows))
    return {"classes": str(folder.parent / "classes.csv")}


def tar(path: Path, files: Iterable[tuple[str, bytes]], mode: str = "w") -> None:
    """Write a tar, as the program of this name does: members in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # a mode of the tests
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()
