"""Counts the labels of the images that a run takes, as far as they are known before these are read."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from pipeline.data.account import ClassCount, LabelAccount
from pipeline.data.annotations import Described
from pipeline.data.sources import Shard
from pipeline.data.sources import shards as data
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.box_formats import BadAnnotationError
from pipeline.data.sources.shards import KNOWN_KINDS, clean_text, joined

_EXAMPLES = 3


@dataclass
class _Counts:
    """Images, those with labels, boxes or labels that are no class, and how the data writes each class."""

    images: int = 0
    labelled: int = 0
    several: int = 0
    boxed: int = 0
    unreadable: int = 0
    example: str = ""
    why: str = ""
    of_class: Counter[int] = field(default_factory=Counter)
    written: dict[int, str] = field(default_factory=dict)
    doubtful: dict[str, int] = field(default_factory=dict)

    def add(self, key: str, said: data.Described, table: Annotations, folders: dict[int, str]) -> None:
        """Count one image; `folders` are the sub-folders of classes."""
        self.images += 1
        self.boxed += table.has_boxes(key, said)
        text = table.label_text(key) or said.label or ", ".join(said.labels or ())
        try:
            several = table.labels_of(key, {}, said)
            label = table.label_of(key, {}, said) if several is None else None
        except BadAnnotationError as error:
            self.unreadable += 1
            self.example, self.why = self.example or text, self.why or str(error)
            return
        indices = several or (() if label is None else (label,))
        self.labelled += bool(indices)
        self.several += len(indices) > 1
        self.of_class.update(indices)
        word = folders.get(indices[0], text) if len(indices) == 1 else ""
        if table.classes.is_doubtful(word):
            self.doubtful[word] = indices[0]
        for index in indices:
            self.written.setdefault(index, folders.get(index) or (text if len(indices) == 1 else ""))


def with_counts(described: Described, shards: Sequence[Shard]) -> LabelAccount:
    """Return the account with the images, labels and boxes of the selected shards, by class."""
    counts = _Counts()
    tables: dict[str, Annotations] = {}
    for shard in shards:
        if shard.kind not in KNOWN_KINDS:
            continue
        if shard.location not in tables:
            tables[shard.location] = described.annotations.within(shard.location)
        table = tables[shard.location]
        folders = dict(described.folder_names.get(shard.location, {}))
        for key, said in _images(shard, table):
            counts.add(key, said, table, folders)
    classes = tuple(
        ClassCount(index, _name(described, index), counts.written[index].strip()[:80], images)
        for index, images in sorted(counts.of_class.items())
    )
    present = {one.index for one in classes}
    absent = [index for index in range(len(described.class_names)) if index not in present] if classes else []
    inside = described.account.inside
    first = _first_from_one(inside.classes) if inside else ()
    notes = (*(_doubt(described, *pair) for pair in counts.doubtful.items()), *_counted_from_one(classes), *first)
    return replace(
        described.account, images=counts.images, labelled=counts.labelled, several=counts.several, boxed=counts.boxed,
        unreadable=counts.unreadable, unreadable_example=counts.example.strip()[:80], classes=classes,
        unreadable_why=counts.why,
        notes=(*described.account.notes, *notes),
        absent=len(absent), absent_examples=tuple(f"{i} {_name(described, i)}" for i in absent[:_EXAMPLES]),
    )  # fmt: skip


def _images(shard: Shard, table: Annotations) -> Iterator[tuple[str, data.Described]]:
    """Yield the key of each image of a shard, and what is said of it besides its label in a file of labels."""
    for member in shard.members[: shard.take]:
        key = clean_text(member)
        yield key, table.said_of(key)
    for entry in shard.entries[: shard.take]:
        yield entry.key, joined(entry.said, table.said_of(entry.key))


def _name(described: Described, index: int) -> str:
    names = described.class_names
    return names[index] if 0 <= index < len(names) else ""


def _counted_from_one(classes: Sequence[ClassCount]) -> Iterator[str]:
    """Say that labels may count from 1, where all are written as numbers, from 1 to the last without a gap."""
    are_numbers = all(one.written.isdecimal() and int(one.written) == one.index for one in classes)
    if are_numbers and len(classes) > 1 and [one.index for one in classes] == [*range(1, len(classes) + 1)]:
        yield (
            f"labels run from 1 to {len(classes)} and class 0 has no image: if the file counts from 1, every label is "
            "off by one"
        )


def _first_from_one(classes: Sequence[ClassCount]) -> Iterator[str]:
    """Say that labels inside of shards may count from 1, as far as their first images tell."""
    if len(classes) > 1 and [one.index for one in classes] == [*range(1, len(classes) + 1)]:
        yield (
            f"the labels of the images that were looked at run from 1 to {len(classes)}, and none is class 0: if the "
            "shards count from 1, every label is off by one"
        )


def _doubt(described: Described, text: str, index: int) -> str:
    return f"'{text.strip()[:80]}' is read as {index} {_name(described, index)}; other tools call another class so, too"
