"""What all archives have in common: safe reading, and mistakes told by kind with a few examples each.

Archives come from anywhere, so nothing in them is trusted: names lead nowhere but into the archive, XML with a document
type is refused, and texts are bounded.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.data.sources import Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import BadAnnotationError, checked, parse_xml
from pipeline.data.sources.shards import Box
from pipeline.errors import ConfigError, Mistake

MAX_TABLE_BYTES = 64 << 20
"""Longest table of an archive that is read; the longest official one has 5 MB."""
_EXAMPLES = 3


@dataclass(frozen=True)
class Archive:
    """Images and what is known of them.

    Attributes:
        shard: where the images lie.
        known: by the key that reading the shard gives, the sample that it becomes; its image is still empty.
        classes: names of the classes, and WordNet ids where the archive has them.
    """

    shard: Shard
    known: Mapping[str, Sample]
    classes: ClassTable

    def items(self) -> Iterator[Item]:
        """Stream the samples; what cannot be read is a failure."""
        for item in read_shard(self.shard, Reading()):
            yield replace(self.known[item.key], image=item.image) if isinstance(item, Sample) else item


@dataclass
class Troubles:
    """What is wrong with an archive, by kind, so that ten thousand missing files are one sentence."""

    found: dict[tuple[str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, where: Path, what: str, example: str = "", hint: str = "") -> None:
        """Note one trouble; those of one file and kind are told together."""
        self.found[str(where), what, hint].append(example)

    def raise_if_any(self) -> None:
        """Raise all of them as one error."""
        if self.found:
            raise ConfigError(
                Mistake(where, f"{what}{_told(examples)}", hint) for (where, what, hint), examples in self.found.items()
            )


def _told(examples: Sequence[str]) -> str:
    shown = [_printable(example) for example in examples[:_EXAMPLES] if example]
    more = f" and {len(examples) - _EXAMPLES} more" if len(examples) > _EXAMPLES else ""
    return f": {', '.join(shown)}{more}" if shown else ""


def _printable(text: str) -> str:
    return ascii(text[:120])[1:-1]


def find(folder: Path, *names: str) -> Path | None:
    """Give the first of some paths within a folder that is there."""
    return next((folder / name for name in names if (folder / name).exists()), None)


def required(folder: Path, *names: str) -> Path:
    """Give the first of some paths within a folder.

    Raises:
        ConfigError: none of them is there.
    """
    found = find(folder, *names)
    if found is None:
        raise ConfigError.one("SRC", f"'{folder}' holds no {' and no '.join(names)}", "name the unpacked archive")
    return found


def is_inside(path: Path, folder: Path) -> bool:
    """Tell whether a path, with all links followed, stays within a folder."""
    return path.resolve().is_relative_to(folder.resolve())


def image_trouble(path: Path, folder: Path) -> str:
    """Say what is wrong with an image file; empty where nothing is."""
    if not path.is_file():
        return "images are missing"
    if not is_inside(path, folder):
        return "images lead out of the archive by a link"
    return "" if path.stat().st_size else "images are empty files"


def read_bytes(path: Path, folder: Path) -> bytes:
    """Read a table or an XML file of an archive.

    Raises:
        ConfigError: it cannot be read, is too long, or lies outside of the archive.
    """
    try:
        if not is_inside(path, folder):
            raise ConfigError.one(str(path), "leads out of the archive by a link", "put the file itself there")
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ConfigError.one(str(path), f"is longer than {MAX_TABLE_BYTES} bytes", "no official table is")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError.one(str(path), f"cannot be read: {error.strerror}", "unpack the archive again") from None


def read_text(path: Path, folder: Path) -> str:
    """Read a text of an archive; raises as `read_bytes`, and where it is not UTF-8."""
    try:
        return read_bytes(path, folder).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError.one(str(path), "is not a UTF-8 text", "unpack the archive again") from None


def read_table(path: Path, folder: Path, pattern: str, troubles: Troubles) -> Iterator[Sequence[str]]:
    """Give the groups of a pattern for each line that holds anything; other lines are troubles."""
    for number, line in enumerate(read_text(path, folder).splitlines(), start=1):
        found = re.fullmatch(pattern, line.strip())
        if found:
            yield found.groups()
        elif line.strip():
            troubles.add(path, "has lines that are not understood", f"line {number} '{line.strip()}'")


def read_xml(path: Path, folder: Path, troubles: Troubles) -> Element | None:
    """Read an annotation file; None, and a trouble, where it cannot be one."""
    if not path.is_file():
        troubles.add(path.parent, "annotations are missing", path.name)
        return None
    try:
        return parse_xml(read_bytes(path, folder))
    except BadAnnotationError as error:
        troubles.add(path.parent, "annotations cannot be read", f"{path.name} ({error})")
        return None


def proved(box: Box, where: Path, image: str, troubles: Troubles) -> Box:
    """Pass a box on; numbers that are no box are a trouble."""
    try:
        checked((box,))
    except BadAnnotationError:
        troubles.add(where, "boxes are not x0 <= x1, y0 <= y1 in numbers", f"{image} {box}")
    return box


def repeated(names: Iterable[str]) -> list[str]:
    """Give the names that come again."""
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
