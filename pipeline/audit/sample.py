"""The sample on which those numbers rest that need single values or maps, so that the memory of a report is bounded.

Counts, accuracies and means are computed over all images. Bootstrap intervals, clusters, patches, agreement, mean maps
and the like need the values or maps of single images. They rest on at most MAX_IMAGES images: those with the smallest
hashes of shard and key, whatever the order of the rows. A smaller run is its own sample.
"""

from dataclasses import dataclass

from pipeline.results.query import Run

MAX_IMAGES, MIN_IMAGES = 50_000, 5_000
"""Most images of a sample, and the number that is drawn whatever the number of methods and metrics."""

MAX_BYTES = 1 << 28
"""Maps and values of a sample take about this much memory: with many methods, fewer images are drawn."""

MAP_BYTES, VALUE_BYTES = 14 * 14, 16
"""Bytes of a map on the common grid, and of a value with what is derived from it."""

_HASH = "md5(concat_ws(chr(31), shard, image_key, 'drawn'))"
_COUNT = "SELECT count(*) AS images FROM images WHERE maps > 0"
_FIRST_LEFT_OUT = f"SELECT {_HASH} AS hash FROM images WHERE maps > 0 ORDER BY hash LIMIT 1 OFFSET ?"  # noqa: S608


@dataclass(frozen=True)
class Sample:
    """The images that are drawn.

    Attributes:
        images: number of images drawn.
        of: number of images with a map.
        below: hash below which an image is drawn; "" if all are.
    """

    images: int = 0
    of: int = 0
    below: str = ""

    @property
    def is_whole(self) -> bool:
        """Return whether all images are drawn."""
        return not self.below

    @property
    def condition(self) -> str:
        """Return the SQL condition that holds for the rows of drawn images."""
        return f"{_HASH} < '{self.below}'" if self.below else "TRUE"

    @property
    def sentence(self) -> str:
        """Say how many images are drawn; "" if all are."""
        return "" if self.is_whole else f"{self.images:,} of {self.of:,} images, drawn by key"

    def to_json(self) -> dict[str, object]:
        """Convert the sample to plain JSON."""
        return {
            "images": self.images, "of": self.of, "whole": self.is_whole, "sentence": self.sentence,
            "sql": self.condition,
        }  # fmt: skip


def draw(run: Run, most: int | None = None) -> Sample:
    """Draw the sample of a run, of at most `most` images; by default as many as its methods and metrics permit."""
    most = bound(len(run.manifest.identity.methods), len(run.manifest.identity.metrics)) if most is None else most
    images = int(run.arrow(_COUNT)["images"][0].as_py())
    if images <= most:
        return Sample(images, images)
    return Sample(most, images, str(run.arrow(_FIRST_LEFT_OUT, [most])["hash"][0].as_py()))


def bound(methods: int, metrics: int) -> int:
    """Return the most images that are drawn from a run."""
    bytes_an_image = max(1, methods) * (MAP_BYTES + VALUE_BYTES * metrics)
    return max(MIN_IMAGES, min(MAX_IMAGES, MAX_BYTES // bytes_an_image))
