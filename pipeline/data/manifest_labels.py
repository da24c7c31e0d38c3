"""Checks and counts the labels of a manifest, before any image is read."""

from collections.abc import Iterable, Iterator, Sequence

from pipeline.data.account_files import Listed
from pipeline.data.known_labels import refuse_shared_names
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.cells import NOTHING_FOUND
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.label_files import contradictions
from pipeline.data.sources.manifest import manifest_counts
from pipeline.data.sources.no_class import is_a_name, what_to_do
from pipeline.data.sources.shards import Shard
from pipeline.errors import ConfigError, nearest
from pipeline.settings.data import DataConfig

_MOST_WRONG = 0.5
"""Share of labels that are no class, above which they are meant otherwise; each of fewer is a failure row."""
_SEPARATORS = ("|", ";", ",", " ")


def listed(data: DataConfig, shards: Iterable[Shard]) -> Listed | None:
    """Return what the manifest of a run says of its images; None if the run has none."""
    if data.manifest is None:
        return None
    counts = manifest_counts(shards)
    return Listed(data.manifest, counts["images"], counts["missing"], counts["labelled"], counts["boxed"])


def check_labels(shards: Iterable[Shard], classes: ClassTable) -> None:
    """Raise ConfigError if most labels of a manifest are no classes, or are several classes in one cell."""
    labels = list(_labels(shards))
    refuse_shared_names("data.manifest", labels, classes)
    wrong = [label for label in labels if classes.index(label) is None and label.lower() != NOTHING_FOUND]
    for label in dict.fromkeys(wrong):
        if separator := _separator(label, classes):
            raise ConfigError.one(
                "data.label_separator",
                f"'{label[:80]}' is no class, but its parts are",
                f'set data.label_separator: "{separator}"',
            )
    if len(wrong) > _MOST_WRONG * len(labels):
        shown = ", ".join(f"'{label[:40]}'" for label in list(dict.fromkeys(wrong))[:3])
        hint = nearest(wrong[0], classes.names) if is_a_name(wrong[0]) else ""
        hint = hint if "did you mean" in hint else what_to_do(wrong[0], classes)
        what = f"{len(wrong):,} of {len(labels):,} labels of the manifest are neither class indices nor known classes"
        where = "data.classes" if is_a_name(wrong[0]) else "data.manifest"
        raise ConfigError.one(where, f"{what}: {shown}", hint)


def check_against(given: Annotations, data: DataConfig, shards: Iterable[Shard]) -> None:
    """Raise ConfigError if a file of labels contradicts the manifest, which it would replace silently."""
    pairs = [
        ((entry.key, entry.said.label), (entry.key, text))
        for shard in shards
        for entry in shard.entries
        if entry.said.label is not None and (text := given.label_text(entry.key)) is not None
    ]
    contradictions(f"{data.manifest}' and '{data.labels}", pairs, given.classes, len(pairs))


def _labels(shards: Iterable[Shard]) -> Iterator[str]:
    for shard in shards:
        for entry in shard.entries:
            if entry.said.label is not None:
                yield entry.said.label
            yield from entry.said.labels or ()


def _separator(label: str, classes: ClassTable) -> str:
    """Return what stands between names of classes in a label; numbers do not tell, because they may be anything."""
    for separator in _SEPARATORS:
        parts: Sequence[str] = [part.strip() for part in label.split(separator)]
        named = [part for part in parts if not part.isdigit() and classes.index(part) is not None]
        if len(parts) > 1 and len(named) == len(parts):
            return separator
    return ""
