"""Lists [0, 1] of a model with two classes: indices of both classes, or multi-hot vectors of one of them.

A list of one index shows that lists hold indices, because a vector has one entry for each class. Vectors of two equal
entries are refused as such.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.data.account_files import counted
from pipeline.data.known_labels import parts_of
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.multi_hot import doubtful_pair, is_pair
from pipeline.data.sources.shards import Shard
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig

_PAIR = 2


def with_doubts(
    annotations: Annotations, data: DataConfig, shards: Iterable[Shard], outputs: int | None
) -> Annotations:
    """Return annotations that refuse such lists, where the model has two classes and no known list holds one index.

    Args:
        annotations: the labels of files and folders.
        data: the section of the run file; columns that each stand for a label are names, which may be 0 and 1.
        shards: the images of a manifest.
        outputs: the model's number of classes; None if it is not known.
    """
    by_columns = isinstance(data.columns.labels, list)
    return _doubting(annotations, doubts=outputs == _PAIR and not by_columns and not _shows_lists(annotations, shards))


def judged(annotations: Annotations, pairs: int, singles: int, images: int) -> Annotations:
    """Take such lists in shards for indices if their first images show that lists hold indices.

    Args:
        annotations: those of the run.
        pairs, singles: number of images with such a list, and with a list of one index.
        images: number of images that were looked at.

    Raises:
        ConfigError: there are such lists, and none of one index.
    """
    if annotations.doubts_pairs and pairs and not singles:
        what = f"{pairs:,} of the first {counted(images, 'image')} in the shards have such a list of labels"
        raise ConfigError.one("data.shards", f"{doubtful_pair(('0', '1'))}; {what}")
    return _doubting(annotations, doubts=annotations.doubts_pairs and not singles)


def _shows_lists(annotations: Annotations, shards: Iterable[Shard]) -> bool:
    """Return whether an image has a list of one class."""
    entries = (entry.said.labels for shard in shards for entry in shard.entries)
    given = (said.labels for said in annotations.described.values())
    if any(labels is not None and len(labels) == 1 for labels in (*entries, *given)):
        return True
    separator = annotations.form.separator
    tables = (annotations, *annotations.folders.values()) if separator else ()
    return any(len(parts_of(text, separator)) == 1 for table in tables for text in table.labels.values())


def _doubting(annotations: Annotations, *, doubts: bool) -> Annotations:
    """Return annotations that refuse the lists [0, 1] and [1, 0], or take them for the indices of both classes."""
    if annotations.doubts_pairs == doubts:
        return annotations
    folders = {root: replace(table, doubts_pairs=doubts) for root, table in annotations.folders.items()}
    return replace(annotations, doubts_pairs=doubts, folders=folders)


def has_pair(labels: Sequence[int]) -> bool:
    """Return whether an image has the classes 0 and 1."""
    return is_pair([str(label) for label in labels])
