"""The samples that viewers show: an image, an explained class, the maps of all methods, and the picture itself."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from pipeline.data.sources.shards import Boxes
from pipeline.export.folders import distinct
from pipeline.results.query import Run
from pipeline.settings.preprocess import Preprocess
from schemas.explanation import is_curve, metric_names
from schemas.manifest import RunManifest

Place = tuple[str, str]
"""Shard and key of an image."""
Row = dict[str, Any]

_MISSING = "missing.jpg"
_METHODS = "SELECT DISTINCT method FROM explanations ORDER BY method"
_CORRECT = "SELECT shard, image_key, correct FROM images WHERE correct IS NOT NULL"
_IMAGES = "SELECT shard, image_key FROM images WHERE maps > 0 ORDER BY shard, image_key"


@dataclass(frozen=True)
class ExportCase:
    """One image and one explained class.

    Attributes:
        place: shard and key of the image.
        rows: the explanations, by method; a method that failed on the image is missing.
    """

    place: Place
    rows: Mapping[str, Row]

    @property
    def facts(self) -> Row:
        """Return one of the rows, to read columns that are equal in all of them."""
        return next(iter(self.rows.values()))


def cases(run: Run) -> Iterator[ExportCase]:
    """Yield what was explained, part by part, in the order of the rows; failures are left out."""
    for _, table in run.tables():
        by_case: dict[tuple[str, str, int], dict[str, Row]] = {}
        for row in table.filter(pc.is_null(table["error_code"])).to_pylist():
            by_case.setdefault((row["shard"], row["image_key"], row["target"]), {})[row["method"]] = row
        yield from (ExportCase((shard, key), rows) for (shard, key, _), rows in by_case.items())


@dataclass(frozen=True)
class Columns:
    """Column names for what a viewer shows of each method: distinct, of letters, digits and underscores.

    Attributes:
        heatmaps: names by method.
        numbers: names by metric and method; curves are left out.
    """

    heatmaps: dict[str, str]
    numbers: dict[tuple[str, str], str]

    @classmethod
    def of(cls, run: Run, reserved: tuple[str, ...]) -> "Columns":
        """Name the columns of a run, and avoid the reserved names."""
        methods = run.arrow(_METHODS)["method"].to_pylist()
        metrics = [metric for metric in metric_names(run.schema) if not is_curve(metric)]
        pairs = [(metric, method) for metric in metrics for method in methods]
        wanted = [f"heatmap_{method}" for method in methods] + [f"{metric}_{method}" for metric, method in pairs]
        plain = (re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_") or "number" for name in wanted)
        names = distinct([*reserved, *plain])[len(reserved) :]
        return cls(dict(zip(methods, names, strict=False)), dict(zip(pairs, names[len(methods) :], strict=True)))

    def values(self, case: ExportCase) -> dict[str, float | None]:
        """Return the metrics of all methods on one case."""
        return {name: finite(case.rows.get(method, {}).get(metric)) for (metric, method), name in self.numbers.items()}


@dataclass(frozen=True)
class Pictures:
    """The explained images as files, framed as for the model; numbered, so that no key becomes a file name.

    Attributes:
        folder: the folder of the files.
        boxes: for every image that was found again, its boxes in pixels of the picture, or None where it has none.
        numbers: the number of every image.
        shown: the channels that the pictures show; empty for grey and RGB images.
    """

    folder: Path
    boxes: dict[Place, Boxes | None]
    numbers: dict[Place, int]
    shown: str = ""

    def path(self, place: Place) -> Path:
        """Return the file of an image; images that were not found again share a grey one."""
        return self.folder / (f"{self.numbers[place]:08d}.jpg" if place in self.boxes else _MISSING)

    @property
    def notes(self) -> list[str]:
        """Say which channels the pictures show, and how many images were not found again."""
        shown = [f"the pictures show {self.shown}"] if self.shown else []
        lost = [f"{self.lost} original images were not found; grey pictures replace them"] if self.lost else []
        return shown + lost

    @property
    def lost(self) -> int:
        """Return the number of images that were not found again."""
        return len(self.numbers) - len(self.boxes)


def write_pictures(run: Run, folder: Path) -> Pictures:
    """Write every image that has a map as a JPEG of the model's input size."""
    from pipeline.maps.pictures import picture_note
    from pipeline.results.one_image import originals_of  # late, as tables do not need it

    folder.mkdir()
    rows = run.arrow(_IMAGES).to_pylist()
    preprocess = Preprocess.of(run.manifest.identity.data["preprocess"])
    numbers = {(row["shard"], row["image_key"]): i for i, row in enumerate(rows)}
    pictures = Pictures(folder, {}, numbers, picture_note(preprocess.channels))
    for place, original in originals_of(run, pictures.numbers):
        pictures.boxes[place] = original.boxes_xyxy
        original.image.save(pictures.path(place), quality=95)
    if pictures.lost:
        height, width = preprocess.size
        Image.new("RGB", (width, height), "#808080").save(folder / _MISSING)
    return pictures


def correct_predictions(run: Run) -> dict[Place, bool]:
    """Return whether the prediction is right for each image of which the rows tell it."""
    return {(row["shard"], row["image_key"]): row["correct"] for row in run.arrow(_CORRECT).to_pylist()}


def class_name(manifest: RunManifest, index: int | None) -> str | None:
    """Return the name of a class, or None if there is no class."""
    return None if index is None else manifest.class_name(index)


def finite(value: float | None) -> float | None:
    """Return a number if JSON and viewers can represent it, else None."""
    return value if value is not None and math.isfinite(value) else None
