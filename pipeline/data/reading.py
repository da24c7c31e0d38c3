"""Lists the images that a run file names, and says how they are read."""

from collections.abc import Collection

from pipeline.data.inputs import image_suffixes
from pipeline.data.sources import Reading, Shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.manifest import list_manifest
from pipeline.settings.data import DataConfig


def list_images(data: DataConfig, only: Collection[str] | None = None) -> list[Shard]:
    """List the shards of `data.shards`, or the images of `data.manifest` as shards.

    Args:
        data: what the run file says of its data.
        only: names of shards to list; others in object stores are left out without a request.

    Raises:
        ConfigError: as `list_shards` and `list_manifest`.
        StoreError: an object store cannot be reached.
    """
    if data.manifest is not None:
        return list_manifest(data)
    return list_shards(data.shards, only=only, suffixes=data.suffixes) if data.shards else []


def reading_of(data: DataConfig, annotations: Annotations) -> Reading:
    """Return how the images of a run file are read, given their annotations."""
    columns = {role: name for role, name in data.columns.named().items() if role not in ("path", "header")}
    if data.metadata:
        columns["metadata"] = list(data.metadata)
    return Reading(annotations, columns, suffixes=image_suffixes(data))
