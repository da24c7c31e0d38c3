"""Reads folders of image files; `pipeline.data.annotations` finds their labels and boxes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.shards import Extent, Failure, Item, Sample, Shard, clean_text
from pipeline.data.sources.tar_members import MAX_MEMBER_BYTES

FILES_PER_SHARD = 1024


def read_folder(shard: Shard, annotations: Annotations) -> Iterator[Item]:
    """Read the files of one folder shard; the key is the path within the folder, with its suffix."""
    annotations = annotations.within(shard.location)
    for member in shard.members:
        path, name = Path(shard.location, member), clean_text(member)
        try:
            size = path.stat().st_size
            if size > MAX_MEMBER_BYTES:
                yield Failure(name, shard.name, "read", "too_large", f"{size} bytes")
                continue
            data = path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name from a CSV file contains NUL
            detail = error.strerror if isinstance(error, OSError) else error
            yield Failure(name, shard.name, "read", "unreadable", str(detail))
            continue
        yield replace(annotated(name, shard, data, {}, annotations), extent=Extent(0, len(data)))


def list_folder(shard: Shard) -> Iterator[Item]:
    """Stream the keys of one folder shard as samples without content."""
    return (Sample(clean_text(member), shard.name, b"", None, None) for member in shard.members)
