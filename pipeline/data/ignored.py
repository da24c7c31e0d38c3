"""Counts the files in a folder that are no images of a run, by kind."""

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

_LITTER = {"thumbs.db", "desktop.ini"}


def ignored_files(folder: Path, used: Collection[str]) -> Counter[str]:
    """Count the files that a run does not read, by their name, suffix or place, most frequent first.

    Args:
        folder: the folder of images.
        used: paths within it of the images, and of the files of labels and boxes.
    """
    kinds: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder):
        hidden = sorted(name for name in folders if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".")]
        kinds.update(f"{name}/" for name in hidden)
        place = Path(parent).relative_to(folder)
        kinds.update(_kind(name) for name in names if (place / name).as_posix() not in used)
    return Counter(dict(kinds.most_common()))


def _kind(name: str) -> str:
    if name.startswith("._"):
        return "._*"
    if name.startswith("."):
        return "hidden"
    if name.lower() in _LITTER:
        return name
    return Path(name).suffix.lower() or name
