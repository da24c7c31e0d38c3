"""Counts the labels of the images that a run takes, as far as they are known before these are read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipeline.data.account import ClassCount, LabelAccount
from pipeline.data.annotations import Described
from pipeline.data.sources import Shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.members import BadAnnotationError
from pipeline.data.sources.shards import clean_text


def with_counts(described: Described, shards: Sequence[Shard]) -> LabelAccount:
    """Return the account with the images, labels and boxes of the selected shards, by class."""
    total = boxed = bad = 0
    example = ""
    counts: Counter[int] = Counter()
    written: dict[int, str] = {}
    tables: dict[str, Annotations] = {}
    for shard in shards:
        if shard.kind != "folder":
            continue
        if shard.location not in tables:
            tables[shard.location] = described.annotations.within(shard.location)
        table = tables[shard.location]
        members = shard.members[: shard.take]
        total += len(members)
        for member in members:
            key = clean_text(member)
            boxed += table.has_boxes(key)
            try:
                index = table.label_of(key, {})
            except BadAnnotationError:
                bad += 1
                example = example or table.label_text(key) or ""
                continue
            if index is not None:
                counts[index] += 1
                folder = described.folder_names.get(shard.location, {}).get(index)
                written.setdefault(index, folder or table.label_text(key) or "")
    classes = tuple(
        ClassCount(index, _name(described, index), written[index].strip()[:80], images)
        for index, images in sorted(counts.items())
    )
    return replace(
        described.account, images=total, labelled=counts.total(), boxed=boxed, unreadable=bad,
        unreadable_example=example.strip()[:80], classes=classes,
    )  # fmt: skip


def _name(described: Described, index: int) -> str:
    names = described.class_names
    return names[index] if 0 <= index < len(names) else ""
