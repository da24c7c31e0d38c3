"""Collects the labels, boxes and classes of a run's images from the files that describe them."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.data.manifest_labels import check_labels
from pipeline.data.sources.annotations import Annotations, load_annotations, stems_of
from pipeline.data.sources.box_files import read_described
from pipeline.data.sources.box_formats import Form
from pipeline.data.sources.box_names import BoxFile, with_base_names
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.folder import folder_annotations
from pipeline.data.sources.shards import Shard
from pipeline.settings.data import DataConfig
from pipeline.settings.run_file import RunConfig


def form_of(data: DataConfig) -> Form:
    """Return how the annotations of a run are written."""
    return Form(data.boxes_format, data.boxes_relative, tuple(data.metadata), data.label_separator)


def classes_of(data: DataConfig) -> ClassTable:
    """Return the table of classes; without one, columns that each stand for a label name the classes in their order."""
    if data.classes is None and isinstance(data.columns.labels, list):
        return ClassTable(tuple(data.columns.labels))
    return load_classes(data.classes)


def read_annotations(config: RunConfig, shards: Sequence[Shard]) -> Annotations:
    """Collect labels, boxes and classes: from the files named in the run file, else from the folders of images."""
    classes = classes_of(config.data)
    check_labels([shard for shard in shards if shard.kind == "manifest"], classes)
    form = form_of(config.data)
    described = None if config.data.boxes is None else read_described(config.data.boxes, classes, form)
    boxes = config.data.boxes if described is None else None
    given = with_described(load_annotations(config.data.labels, boxes, classes, form), described or BoxFile({}))
    return given.or_else(folder_annotations([shard for shard in shards if shard.kind == "folder"], classes, form))


def with_described(annotations: Annotations, described: BoxFile) -> Annotations:
    """Return annotations with what a file of boxes with classes says."""
    known = {**with_base_names(described.images), **described.images}
    return replace(annotations, described=known, described_stems=stems_of(known), notes=described.notes)
