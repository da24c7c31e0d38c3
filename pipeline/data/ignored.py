"""Counts the files in a folder that are no images of a run, by kind."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path

from pipeline.data.sources.folder_files import find_files
from pipeline.data.sources.shards import Shard

_LITTER = {"thumbs.db", "desktop.ini"}


def ignored_files(folder: Path, used: Collection[str]) -> Counter[str]:
    """Count the files that a run does not read, by their name or suffix.

    Args:
        folder: the folder of images.
        used: paths within it of the images, and of the files of labels and boxes.
    """
    found = find_files(folder)
    paths = (path for path in (*found.images, *chain(*found.ignored.values())) if path not in used)
    return Counter("hidden folder" if path.endswith("/") else _kind(path.rpartition("/")[2]) for path in paths)


def ignored_beside(shards: Iterable[Shard], files: Sequence[str]) -> dict[str, int]:
    """Count the files in the folders of images that are neither images nor files of labels and boxes."""
    used: dict[str, set[str]] = defaultdict(set)
    for shard in shards:
        if shard.kind == "folder":
            used[shard.location].update(shard.members)
    kinds: Counter[str] = Counter()
    for root, names in used.items():
        names.update(os.path.relpath(path, root) for path in files if "://" not in path)
        kinds.update(ignored_files(Path(root), names))
    return dict(kinds.most_common())


def _kind(name: str) -> str:
    if name.startswith("._"):
        return "._*"
    if name.startswith("."):
        return "hidden"
    if name.lower() in _LITTER:
        return name
    return Path(name).suffix.lower() or name
