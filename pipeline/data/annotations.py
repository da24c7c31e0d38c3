"""Collects the labels, boxes and classes of a run's images from the files that describe them."""

from collections.abc import Sequence

from pipeline.data.sources.annotations import Annotations, load_annotations
from pipeline.data.sources.classes import load_classes
from pipeline.data.sources.folder import folder_annotations
from pipeline.data.sources.shards import Shard
from pipeline.settings.run_file import RunConfig


def read_annotations(config: RunConfig, shards: Sequence[Shard]) -> Annotations:
    """Collect labels, boxes and classes: from the files named in the run file, else from the folders of images."""
    classes = load_classes(config.data.classes)
    given = load_annotations(config.data.labels, config.data.boxes, classes)
    return given.or_else(folder_annotations([shard for shard in shards if shard.kind == "folder"], classes))
