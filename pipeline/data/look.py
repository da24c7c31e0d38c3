"""A bounded look into shards before a run: which keys, labels, boxes and parts their first images have."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.data.list_pairs import has_pair
from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, images_of, list_items, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.box_formats import BadAnnotationError
from pipeline.data.sources.objects import is_url
from pipeline.data.sources.parquet_sandbox import parquet_sandbox

SHARDS = 3
"""Shards that are looked into: the first, one in the middle, and the last."""
_IMAGES = 64
_BYTES = 6 << 20
"""Most images and bytes of one shard; less than one request to an object store fetches."""


@dataclass(frozen=True)
class Look:
    """The first images of some shards.

    Attributes:
        shards: number of shards that were looked into.
        keys: the images.
        labels, boxes: number of images that have labels and boxes of their own.
        wrong: number of images whose label is no class, or that name several.
        blind: number of images of which only the keys were read, because labels would have cost a whole shard.
        of_class: number of images of each class; a file of labels goes before those inside.
        example: why the label of an image is wrong.
        replaced: number of images whose label a file replaces by another one.
        parts: number of images that have the values of their parts.
        wrong_parts, parts_example: number of images whose parts are invalid, and why those of one are.
        weights: the sha256 of each model that the values of parts are of.
        pairs, singles: number of images with the list [0, 1] or [1, 0], and of those with a list of one class.
    """

    shards: int = 0
    keys: tuple[str, ...] = ()
    labels: int = 0
    boxes: int = 0
    wrong: int = 0
    blind: int = 0
    of_class: Mapping[int, int] = field(default_factory=dict)
    example: str = ""
    replaced: int = 0
    parts: int = 0
    wrong_parts: int = 0
    parts_example: str = ""
    weights: tuple[str, ...] = ()
    pairs: int = 0
    singles: int = 0


def look(shards: Sequence[Shard], reading: Reading) -> Look:
    """Read the first images of at most three shards, without label and box files.

    Of a tar in an object store, this costs one request. Of a Parquet file there, only the keys are read.
    """
    last = len(shards) - 1
    chosen = [shards[i] for i in dict.fromkeys((0, last // 2, last))] if shards else []
    given = reading.annotations
    own = replace(reading, annotations=Annotations(given.classes, form=given.form, reads_parts=given.reads_parts))
    seen = Look(len(chosen))
    with parquet_sandbox() as sandbox:
        for shard in chosen:
            blind = shard.kind == "parquet" and is_url(shard.location)
            items = list_items(shard, own, sandbox.rows) if blind else read_shard(shard, own, sandbox.rows)
            first = list(_first(images_of(items)))
            seen = _with_parts(_counted(seen, first, given, blind=blind), first)
    return seen


def _first(items: Iterator[Item]) -> Iterator[Item]:
    size = 0
    for number, item in enumerate(items, 1):
        yield item
        size += len(item.image) if isinstance(item, Sample) else 0
        if number == _IMAGES or size > _BYTES:
            return


def _counted(seen: Look, items: Sequence[Item], given: Annotations, *, blind: bool) -> Look:
    samples = [item for item in items if isinstance(item, Sample)]
    wrong = [item.detail for item in items if not isinstance(item, Sample) and item.code == "label"]
    classes = [(_classes(sample), _in_file(sample.key, given)) for sample in samples]
    return replace(
        seen,
        keys=(*seen.keys, *(item.key for item in items)),
        labels=seen.labels + sum(sample.label is not None or bool(sample.labels) for sample in samples),
        boxes=seen.boxes + sum(bool(sample.boxes_xyxy) for sample in samples),
        wrong=seen.wrong + len(wrong),
        example=seen.example or next(iter(wrong), ""),
        replaced=seen.replaced + sum(bool(own) and of_file not in (None, tuple(own)) for own, of_file in classes),
        pairs=seen.pairs + sum(sample.box_labels is None and has_pair(sample.labels) for sample in samples),
        singles=seen.singles + sum(len(sample.labels) == 1 for sample in samples),
        blind=seen.blind + blind * len(items),
        of_class=Counter(seen.of_class)
        + Counter(index for own, of_file in classes for index in (own if of_file is None else of_file)),
    )


def _with_parts(seen: Look, items: Sequence[Item]) -> Look:
    found = [item.parts for item in items if isinstance(item, Sample) and item.parts is not None]
    wrong = [item.detail for item in items if isinstance(item, Failure) and item.code == "parts"]
    weights = (parts.weights for parts in found if parts.weights)
    return replace(
        seen,
        parts=seen.parts + len(found),
        wrong_parts=seen.wrong_parts + len(wrong),
        parts_example=seen.parts_example or next(iter(wrong), ""),
        weights=tuple(dict.fromkeys((*seen.weights, *weights))),
    )


def _classes(sample: Sample) -> Sequence[int]:
    return sample.labels or (() if sample.label is None else (sample.label,))


def _in_file(key: str, given: Annotations) -> tuple[int, ...] | None:
    """Return the classes that a file of labels gives an image; None if no row applies."""
    if given.label_text(key) is None:
        return None
    try:
        several = given.labels_of(key, {})
        label = given.label_of(key, {}) if several is None else None
    except BadAnnotationError:
        return ()
    return several or (() if label is None else (label,))
