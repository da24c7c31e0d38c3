"""Puts an image and what is known of it together: a sample, or a failure if a label, a box or a part is invalid."""

from dataclasses import replace

from pipeline.data.sources.annotations import Annotations, Members
from pipeline.data.sources.box_formats import BadAnnotationError
from pipeline.data.sources.members import json_metadata
from pipeline.data.sources.part_values import parts_in
from pipeline.data.sources.shards import Described, Failure, Item, Sample, Shard, joined


def annotated(
    key: str, shard: Shard, image: bytes, members: Members, annotations: Annotations, said: Described | None = None
) -> Item:
    """Return a sample with its labels, boxes and parts, or a failure if one of these is invalid.

    Args:
        key, shard, image: the image.
        members: other files of the sample, by suffix.
        annotations: labels and boxes from files.
        said: what a row of a manifest or of a table says of the image.
    """
    found = joined(said, annotations.said_of(key))
    try:
        return _annotate(Sample(key, shard.name, image, None, None), members, annotations, found)
    except BadAnnotationError as error:
        return Failure(key, shard.name, "read", error.code, str(error), found.metadata)


def _annotate(sample: Sample, members: Members, annotations: Annotations, said: Described) -> Sample:
    """Add labels, boxes, metadata and parts to a sample."""
    given = (sample.key, members, said)
    labels, boxes = annotations.labels_of(*given), annotations.boxes_of(*given)
    box_labels = annotations.box_labels_of(*given)
    label = annotations.label_of(*given) if labels is None else _only(labels)
    if box_labels is not None and len(box_labels) != len(boxes or ()):
        raise BadAnnotationError("boxes", f"{len(box_labels)} box_labels for {len(boxes or ())} boxes")
    if boxes and box_labels is None and labels is not None and len(labels) > 1:
        raise BadAnnotationError("boxes", f"the image has {len(labels)} labels, but its boxes have no box_labels")
    parts, part_mask = parts_in(members, needed=annotations.reads_parts)
    return replace(
        sample, label=label, boxes_xyxy=boxes, labels=labels or (), box_labels=box_labels,
        boxes_relative=boxes is not None and annotations.relative_of(*given),
        metadata=said.metadata or json_metadata(members, annotations.form.metadata),
        parts=parts, part_mask=part_mask,
    )  # fmt: skip


def _only(labels: tuple[int, ...]) -> int | None:
    return labels[0] if len(labels) == 1 else None
