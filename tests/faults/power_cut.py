"""A disk after a power cut: of what was not synced, any part may be there, in pieces of a sector, and any may not."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECTOR = 512


@dataclass
class _File:
    """A file, whatever its names."""

    written: bytes = b""
    synced: int = 0
    """So many bytes are on the disk for certain."""

    def after_the_cut(self, chance: random.Random) -> bytes:
        """What was synced, and behind it any length of sectors that were written or were not."""
        kept = bytearray(self.written[: chance.randint(self.synced, len(self.written))])
        for start in range(self.synced, len(kept), _SECTOR):
            if chance.random() < 0.5:
                kept[start : start + _SECTOR] = bytes(len(kept[start : start + _SECTOR]))
        return bytes(kept)


@dataclass
class _Folder:
    """A folder: its entries on the disk, and the changes to them that are under way."""

    entries: dict[str, "_File | _Folder"] = field(default_factory=dict)
    changes: list[tuple[str, "_File | _Folder | None"]] = field(default_factory=list)

    def change(self, name: str, entry: "_File | _Folder | None") -> None:
        """Put an entry, or take it away (None)."""
        if entry is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = entry

    def sync(self) -> None:
        """Make all changes certain."""
        for name, entry in self.changes:
            self.change(name, entry)
        self.changes.clear()

    def write_after_the_cut(self, path: Path, chance: random.Random) -> None:
        """Write what is left of the folder to a new place: each change that was under way happened or did not."""
        path.mkdir()
        for name, entry in self.changes:
            if chance.random() < 0.5:
                self.change(name, entry)
        for name, entry in self.entries.items():
            if isinstance(entry, _Folder):
                entry.write_after_the_cut(path / name, chance)
            else:
                (path / name).write_bytes(entry.after_the_cut(chance))


def write_after_power_cut(
    operations: Sequence[tuple[str, tuple[Any, ...]]], there: Path, to: Path, chance: random.Random
) -> None:
    """Replay what drivers did in the folder `there`, empty at first, and write what a power cut leaves of it.

    Args:
        operations: names and arguments of the calls up to the cut, as `faulty_disk` tells them to a plan.
        there: the folder in which they were done; on the disk for certain.
        to: where to write; must not exist.
        chance: decides what of the unsynced is lost.
    """
    folders = defaultdict(_Folder, {there: _Folder()})
    files: dict[Path, _File] = {}
    for name, given in operations:
        paths = [Path(each) for each in given if isinstance(each, str | Path)]
        if name == "mkdir" and paths[0] not in folders:
            folders[paths[0].parent].changes.append((paths[0].name, folders[paths[0]]))
        elif name == "create":
            files[paths[0]] = _File()
            folders[paths[0].parent].changes.append((paths[0].name, files[paths[0]]))
        elif name == "write":
            files[paths[0]].written += given[1]
        elif name == "fsync" and paths[0] in files:
            files[paths[0]].synced = len(files[paths[0]].written)
        elif name == "fsync":
            folders[paths[0]].sync()
        elif name == "link" and paths[1] not in files:
            files[paths[1]] = files[paths[0]]
            folders[paths[1].parent].changes.append((paths[1].name, files[paths[0]]))
        elif name == "unlink" and files.pop(paths[0], None):
            folders[paths[0].parent].changes.append((paths[0].name, None))
    folders[there].write_after_the_cut(to, chance)
