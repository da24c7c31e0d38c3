"""Collects the labels, boxes and classes of a run's images from the files that describe them."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.data.sources.annotations import Annotations, load_annotations
from pipeline.data.sources.box_formats import Form
from pipeline.data.sources.classes import load_classes
from pipeline.data.sources.folder import folder_annotations
from pipeline.data.sources.shards import Shard
from pipeline.settings.data import DataConfig
from pipeline.settings.run_file import RunConfig


def form_of(data: DataConfig) -> Form:
    """Return how the annotations of a run are written."""
    return Form(data.boxes_format, data.boxes_relative, tuple(data.metadata))


def read_annotations(config: RunConfig, shards: Sequence[Shard]) -> Annotations:
    """Collect labels, boxes and classes: from the files named in the run file, else from the folders of images."""
    classes = load_classes(config.data.classes)
    given = replace(load_annotations(config.data.labels, config.data.boxes, classes), form=form_of(config.data))
    return given.or_else(folder_annotations([shard for shard in shards if shard.kind == "folder"], classes))
