"""Writes manifests with their images, and reads them as a run does."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.data.annotations import form_of
from pipeline.data.inputs import reading_of, shards_of
from pipeline.data.sources import Failure, Item, Sample, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable
from pipeline.settings.data import DataConfig


def put_images(folder: Path, *names: str) -> Path:
    """Write files whose content is their name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def read_all(manifest: Path | str, classes: Iterable[str] = (), **settings: object) -> list[Item]:
    """List and read the images of a manifest."""
    data = DataConfig.model_validate({"manifest": str(manifest), **settings})
    annotations = Annotations(ClassTable(tuple(classes)), form=form_of(data))
    return [item for shard in shards_of(data) for item in read_shard(shard, reading_of(data, annotations))]


def labels_of(items: Iterable[Item]) -> dict[str, int | None]:
    return {item.key: item.label for item in items if isinstance(item, Sample)}


def failures_of(items: Iterable[Item]) -> dict[str, tuple[str, str]]:
    return {item.key: (item.stage, item.code) for item in items if isinstance(item, Failure)}
