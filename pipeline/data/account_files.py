"""The parts of a label account that are about files: those of labels and boxes, and manifests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class FileAccount:
    """How the rows of a label or box file and the images belong together.

    Attributes:
        kind, path: what it holds, and where it is.
        rows, repeated: number of its rows, and of those that repeat others.
        matched: number of names in it that belong to an image; several rows of boxes may share a name.
        images: number of images that were compared.
        without: number of these images that have no row.
        ways: number of images by the way in which their row was found.
        looked: the images are only the first ones of some shards, so that the rest is matched while it is read.
        ambiguous: number of rows that fit several images, or share one with another row.
        unused_rows, unmatched_images: some rows without an image, and some images without a row.
        unused: number of names without an image.
        gives_labels: a file of boxes names the classes of its images, too.
    """

    kind: Literal["labels", "boxes"]
    path: str
    rows: int
    repeated: int
    matched: int
    images: int
    without: int
    unused: int
    ways: Mapping[str, int] = field(default_factory=dict)
    looked: bool = False
    ambiguous: int = 0
    unused_rows: tuple[str, ...] = ()
    unmatched_images: tuple[str, ...] = ()
    gives_labels: bool = False

    @property
    def name(self) -> str:
        """Return the name of the file without its folder."""
        return self.path.rpartition("/")[2]

    @property
    def _row(self) -> str:
        """Return what it has many of: COCO's JSON and folders of annotations have no rows."""
        return "row" if self.path.lower().endswith((".csv", ".tsv", ".txt")) else "record"

    def line(self) -> str:
        """Describe the file in one line."""
        rows = counted(self.rows, self._row) + (f" ({self.repeated:,} of them repeat others)" if self.repeated else "")
        named = self.matched + self.unused
        if self.kind == "boxes" and named != self.rows:
            rows += f" about {counted(named, 'image')}"
        ways = ", ".join(f"{count:,} by {way}" for way, count in most_first(self.ways))
        how = f" ({ways})" if set(self.ways) - {"path"} else ""
        if self.looked:
            return (
                f"{self.name}: {rows}; of the first {counted(self.images, 'image')} that were looked at, "
                f"{self.images - self.without:,} have one{how}; the others are matched while they are read"
            )
        return (
            f"{self.name}: {rows}, {self.matched:,} matched{how}, {counted(self.without, 'image')} without, "
            f"{counted(self.unused, self._row if named == self.rows - self.repeated else 'name')} without an image"
            + (f", of which {self.ambiguous:,} fit several" if self.ambiguous else "")
        )

    def warning(self) -> str:
        """Say what did not match, with examples; empty if everything did, or has not been compared."""
        if not self.without and (self.looked or not self.unused):
            return ""
        parts = []
        if self.without:
            examples = quoted(self.unmatched_images)
            parts.append(f"{counted(self.without, 'image')} without a {self._row}, such as {examples}")
        if self.unused and not self.looked:
            parts.append(f"{counted(self.unused, self._row)} without an image, such as {quoted(self.unused_rows)}")
        return f"{self.name}: {'; '.join(parts)}"


@dataclass(frozen=True)
class Listed:
    """What a manifest says of its images.

    Attributes:
        path: the manifest.
        images, missing: number of its images, and of those whose file is not there.
        labels, boxes: number of images of which it gives a label, and boxes.
    """

    path: str
    images: int
    missing: int
    labels: int
    boxes: int

    def line(self) -> str:
        """Describe the manifest in one line."""
        missing = f", {self.missing:,} of them missing" if self.missing else ""
        return f"{self._name}: {counted(self.images, 'image')}{missing}; it gives labels of {self.labels:,}"

    def line_of_boxes(self) -> str:
        """Say of how many images it gives boxes."""
        return f"{self._name}: boxes of {self.boxes:,} of {counted(self.images, 'image')}"

    def warning(self) -> str:
        """Say how many files are missing; empty if none is."""
        if not self.missing:
            return ""
        return f"{self._name}: {self.missing:,} of {counted(self.images, 'image')} are missing, and become failure rows"

    @property
    def _name(self) -> str:
        return self.path.rpartition("/")[2]


def counted(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quoted(names: Sequence[str]) -> str:
    """Write names in quotes."""
    return ", ".join(f"'{name}'" for name in names)


def most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return counts, the largest first."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
