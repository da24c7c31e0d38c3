"""The original images of a run, read when they are looked at; where they are gone, a grey ground and the reason."""

import threading
from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from pipeline.errors import CamatlasError
from pipeline.results.query import Run
from pipeline.results.source_images import Original, originals
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


class ImageReader:
    """Reads one image at a time from the shards of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.note = ""

    def original(self, shard: str, image_key: str) -> Original | None:
        """Return an image, or None if it cannot be read any more."""
        found = dict(originals(self._run.manifest, [(shard, image_key)]))
        return found.get((shard, image_key))


class Grounds:
    """Remembers the images seen last, within a bound on memory."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._reader = ImageReader(run)
        self._reading = threading.Lock()
        self._found: Bounded[Ground] = Bounded(CACHE_BYTES, lambda ground: ground.image.width * ground.image.height * 3)

    @property
    def note(self) -> str:
        """Say why images cannot be shown; "" while they can."""
        return self._reader.note

    def ground(self, shard: str, image_key: str) -> Ground:
        """Return what the maps of an image are laid over."""
        return self._found.get((shard, image_key), lambda: self._read(shard, image_key))

    def _read(self, shard: str, image_key: str) -> Ground:
        with self._reading:
            try:
                original = self._reader.original(shard, image_key)
                note = self._reader.note
            except (CamatlasError, OSError) as error:
                original, note = None, str(error)
        if original is None:
            reason = note or "the image is no longer where the run read it, or was changed"
            return Ground(self._grey, (), reason, False)
        return Ground(original.image, tuple(original.boxes_xyxy or ()), original.note, True)

    @cached_property
    def _grey(self) -> Image.Image:
        """Make a grey picture of the size of the model's input."""
        height, width = Preprocess.of(self._run.manifest.identity.data["preprocess"]).size
        return Image.new("RGB", (width, height), GREY)
