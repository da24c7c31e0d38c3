"""Reads the files that a table of images names by their paths; none outside of the table's folder."""

import os
import stat
from pathlib import Path

from pipeline.data.sources.objects import is_url
from pipeline.data.sources.shards import Shard
from pipeline.data.sources.tar_members import MAX_MEMBER_BYTES


def file_beside(shard: Shard, path: str) -> tuple[bytes | None, str]:
    """Read a file in the folder of a table; return its bytes, or why they are missing."""
    if is_url(shard.location) or is_url(path):
        return None, f"'{path[:200]}' is a path, and only files beside a table on a disk are read"
    folder = Path(shard.location).parent.resolve()
    try:
        file = Path(folder, path).resolve()
        if not file.is_relative_to(folder):
            return None, f"'{path[:200]}' leaves the folder of the table; list the images in data.manifest"
        # without O_NONBLOCK, opening a pipe would wait for a writer
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:  # noqa: PTH123
            facts = os.fstat(opened.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_MEMBER_BYTES:
                return None, f"'{path[:200]}' is no file, or larger than {MAX_MEMBER_BYTES} bytes"
            return opened.read(), ""
    except (OSError, ValueError) as error:
        return None, f"no bytes, and '{path[:200]}': {getattr(error, 'strerror', None) or error}"
