"""The original images of a run, read when they are looked at; where they are gone, a grey ground and the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from pipeline.data.sources.shards import Extent
from pipeline.results.one_image import ImageReader
from pipeline.results.query import Run
from pipeline.settings.preprocess import Preprocess
from pipeline.viewer.bounded import Bounded

CACHE_BYTES = 60_000_000
GREY = "#8a8f95"


@dataclass(frozen=True)
class Ground:
    """What a map is laid over: the image as the model saw it, or grey.

    Attributes:
        image: RGB, of the size of the model's input.
        boxes: in pixels of it.
        note: why it is grey, or what its colours are; "" for a usual image.
        is_original: whether it is the image.
    """

    image: Image.Image
    boxes: tuple[tuple[float, float, float, float], ...]
    note: str
    is_original: bool


class Grounds:
    """Remembers the images seen last, within a bound on memory; those that cannot be read are tried again."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reader = ImageReader(run)
        self._found: Bounded[Ground] = Bounded(CACHE_BYTES, lambda ground: ground.image.width * ground.image.height * 3)

    @property
    def note(self) -> str:
        """Say why images cannot be shown; "" while they can."""
        return self._reader.note

    @property
    def remark(self) -> str:
        """Say why reading images takes long; "" where it does not."""
        return self._reader.remark

    def ground(self, row: Mapping[str, Any]) -> Ground:
        """Return what the maps of a row's image are laid over."""
        place = row["shard"], row["image_key"]
        try:
            return self._found.get(place, lambda: self._read(row))
        except _UnreadableError as error:
            return Ground(self._grey, (), str(error), False)

    def close(self) -> None:
        """End the processes that decode images."""
        self._reader.close()

    def _read(self, row: Mapping[str, Any]) -> Ground:
        original = self._reader.original(row["shard"], row["image_key"], Extent.of(row))
        if original is None:
            reason = self._reader.note_for(row["shard"], row["image_key"])
            raise _UnreadableError(reason or "the image is no longer where the run read it, or was changed")
        return Ground(original.image, tuple(original.boxes_xyxy or ()), original.note, True)

    @cached_property
    def _grey(self) -> Image.Image:
        """Make a grey picture of the size of the model's input."""
        height, width = Preprocess.of(self._run.manifest.identity.data["preprocess"]).size
        return Image.new("RGB", (width, height), GREY)


class _UnreadableError(Exception):
    """An image cannot be read now; its message says why."""
