"""Labels that are known before images are read, and names that several classes share"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.box_formats import BadAnnotationError
from pipeline.data.sources.cells import labels_cell
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.shards import Shard
from pipeline.errors import ConfigError

_SHOWN = 3


def known_labels(annotations: Annotations, shards: Iterable[Shard]) -> Iterator[tuple[ClassTable, Sequence[str]]]:
    """Yield the labels of each image as they are written, from files, folders and manifests, with their table."""
    for table in (annotations, *annotations.folders.values()):
        for text in table.labels.values():
            yield table.classes, parts_of(text, annotations.form.separator)
    entries = (entry.said for shard in shards for entry in shard.entries)
    for said in (*annotations.described.values(), *entries):
        yield annotations.classes, (said.label or "",) if said.labels is None else said.labels


def parts_of(text: str, separator: str | None) -> Sequence[str]:
    """Return the labels in a cell of a label file."""
    if separator is None:
        return (text,)
    try:
        return labels_cell(text, separator)
    except BadAnnotationError:
        return (text,)  # reading it reports why


def refuse_shared_names(where: str, texts: Iterable[str], classes: ClassTable) -> None:
    """Raise ConfigError if a label is a name that several classes of the table have.

    Args:
        where: the setting that names the labels.
        texts: the labels.
        classes: the class table.
    """
    if len(set(classes.names)) == len(classes.names):
        return
    shared = Counter(text.strip() for text in texts if classes.sharing(text))
    if shared:
        names = [f"'{name[:80]}' ({', '.join(map(str, classes.sharing(name)[:_SHOWN]))})" for name in shared]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ConfigError.one(
            where,
            f"{shared.total():,} labels are names that several classes have in {classes.source}, so that they say no "
            f"class: {', '.join(names[:_SHOWN])}{more}",
            f"give each class a name of its own in {classes.source}, or write class indices",
        )


def refuse_shared_in_files(annotations: Annotations) -> None:
    """Raise ConfigError if files of labels or boxes name a class by what several classes are called."""
    texts = (text for _, texts in known_labels(annotations, ()) for text in texts)
    refuse_shared_names("data.labels", texts, annotations.classes)
