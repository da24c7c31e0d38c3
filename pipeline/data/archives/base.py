"""Shared code of all archives: safe reading, and problems that are reported by kind with a few examples each.

Archives are not trusted: no path may lead outside the archive, XML with a document type is refused, and the size of
text files is limited.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.data.sources import Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.box_formats import BadAnnotationError, checked
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import parse_xml
from pipeline.data.sources.shards import Box
from pipeline.errors import ConfigError, Mistake

MAX_TABLE_BYTES = 64 << 20
"""Maximum size of a table that is read; the largest official one has 5 MB."""
_EXAMPLES = 3


@dataclass(frozen=True)
class Archive:
    """The images of an archive with their labels and boxes.

    Attributes:
        shard: where the images are.
        samples: the sample of each image, by the key that reading the shard yields; image bytes are still empty.
        classes: class names, and WordNet ids if the archive has them.
    """

    shard: Shard
    samples: Mapping[str, Sample]
    classes: ClassTable

    def items(self) -> Iterator[Item]:
        """Stream the samples; an image that cannot be read is a failure."""
        for item in read_shard(self.shard, Reading()):
            yield replace(self.samples[item.key], image=item.image) if isinstance(item, Sample) else item


@dataclass
class Problems:
    """Problems of an archive, grouped by file and kind, so that 10,000 missing files give one message."""

    examples: dict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, where: Path, what: str, example: str = "", hint: str = "") -> None:
        """Record one problem; problems of the same file and kind are reported together."""
        self.examples[str(where), what, hint].append(example)

    def raise_if_any(self) -> None:
        """Raise all problems as one error."""
        if self.examples:
            raise ConfigError(
                Mistake(where, f"{what}{_shown(examples)}", hint)
                for (where, what, hint), examples in self.examples.items()
            )


def _shown(examples: Sequence[str]) -> str:
    shown = [_printable(example) for example in examples[:_EXAMPLES] if example]
    more = f" and {len(examples) - _EXAMPLES} more" if len(examples) > _EXAMPLES else ""
    return f": {', '.join(shown)}{more}" if shown else ""


def _printable(text: str) -> str:
    return ascii(text[:120])[1:-1]


def find(folder: Path, *names: str) -> Path | None:
    """Return the first of the paths in a folder that exists, else None."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def require(folder: Path, *names: str) -> Path:
    """Return the first of the paths in a folder that exists.

    Raises:
        ConfigError: none of them exists.
    """
    path = find(folder, *names)
    if path is None:
        raise ConfigError.one("SRC", f"'{folder}' contains no {' and no '.join(names)}", "give the unpacked archive")
    return path


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path stays inside a folder after all links are followed."""
    return path.resolve().is_relative_to(folder.resolve())


def image_problem(path: Path, folder: Path) -> str:
    """Return what is wrong with an image file; empty if nothing is."""
    if not path.is_file():
        return "images are missing"
    if not is_inside(path, folder):
        return "images lead outside the archive through a link"
    return "" if path.stat().st_size else "images are empty files"


def read_bytes(path: Path, folder: Path) -> bytes:
    """Read a table or an XML file of an archive.

    Raises:
        ConfigError: it cannot be read, is too large, or is outside the archive.
    """
    try:
        if not is_inside(path, folder):
            raise ConfigError.one(str(path), "leads outside the archive through a link", "copy the file there")
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ConfigError.one(str(path), f"is larger than {MAX_TABLE_BYTES} bytes", "official tables are smaller")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError.one(str(path), f"cannot be read: {error.strerror}", "unpack the archive again") from None


def read_text(path: Path, folder: Path) -> str:
    """Read a text file of an archive; raises as `read_bytes`, and a ConfigError if it is not UTF-8."""
    try:
        return read_bytes(path, folder).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError.one(str(path), "is not UTF-8 text", "unpack the archive again") from None


def read_table(path: Path, folder: Path, pattern: str, problems: Problems) -> Iterator[Sequence[str]]:
    """Yield the groups of a pattern for each non-empty line; lines that do not match are problems."""
    for number, line in enumerate(read_text(path, folder).splitlines(), start=1):
        match = re.fullmatch(pattern, line.strip())
        if match:
            yield match.groups()
        elif line.strip():
            problems.add(path, "has lines that cannot be parsed", f"line {number} '{line.strip()}'")


def read_xml(path: Path, folder: Path, problems: Problems) -> Element | None:
    """Read an annotation file; if it is missing or invalid, record a problem and return None."""
    if not path.is_file():
        problems.add(path.parent, "annotations are missing", path.name)
        return None
    try:
        return parse_xml(read_bytes(path, folder))
    except BadAnnotationError as error:
        problems.add(path.parent, "annotations cannot be read", f"{path.name} ({error})")
        return None


def checked_box(box: Box, where: Path, image: str, problems: Problems) -> Box:
    """Return the box; record a problem if it is not a valid box."""
    try:
        checked((box,))
    except BadAnnotationError:
        problems.add(where, "boxes are not finite numbers with x0 <= x1 and y0 <= y1", f"{image} {box}")
    return box


def duplicates(names: Iterable[str]) -> list[str]:
    """Return every repeated occurrence of a name."""
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
