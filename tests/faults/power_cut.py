"""Simulates a disk after a power cut: every sector and every change that was not synced may be lost."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECTOR = 512


@dataclass
class _File:
    """A file, independent of its names."""

    written: bytes = b""
    synced: int = 0
    """Number of bytes that are on the disk for certain."""

    def after_the_cut(self, chance: random.Random) -> bytes:
        """Return the synced bytes, followed by a random number of sectors that are random in being written or zero."""
        kept = bytearray(self.written[: chance.randint(self.synced, len(self.written))])
        for start in range(self.synced, len(kept), _SECTOR):
            if chance.random() < 0.5:
                kept[start : start + _SECTOR] = bytes(len(kept[start : start + _SECTOR]))
        return bytes(kept)


@dataclass
class _Folder:
    """A folder: its entries on the disk, and the changes that are not synced yet."""

    entries: dict[str, "_File | _Folder"] = field(default_factory=dict)
    changes: list[tuple[str, "_File | _Folder | None"]] = field(default_factory=list)

    def change(self, name: str, entry: "_File | _Folder | None") -> None:
        """Add an entry, or remove it (None)."""
        if entry is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = entry

    def sync(self) -> None:
        """Apply all pending changes."""
        for name, entry in self.changes:
            self.change(name, entry)
        self.changes.clear()

    def write_after_the_cut(self, path: Path, chance: random.Random) -> None:
        """Write what is left of the folder to a new path; each pending change is applied or lost at random."""
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
    operations: Sequence[tuple[str, tuple[Any, ...]]], source: Path, target: Path, chance: random.Random
) -> None:
    """Replay what drivers did in the folder `source`, empty at first, and write what a power cut leaves of it.

    Args:
        operations: names and arguments of the calls up to the cut, as `faulty_disk` records them in a plan.
        source: the folder of the calls, which is on the disk for certain.
        target: where to write; must not exist.
        chance: decides which unsynced data is lost.
    """
    folders = defaultdict(_Folder, {source: _Folder()})
    files: dict[Path, _File] = {}
    for name, arguments in operations:
        paths = [Path(each) for each in arguments if isinstance(each, str | Path)]
        if name == "mkdir" and paths[0] not in folders:
            folders[paths[0].parent].changes.append((paths[0].name, folders[paths[0]]))
        elif name == "create":
            files[paths[0]] = _File()
            folders[paths[0].parent].changes.append((paths[0].name, files[paths[0]]))
        elif name == "write":
            files[paths[0]].written += arguments[1]
        elif name == "fsync" and paths[0] in files:
            files[paths[0]].synced = len(files[paths[0]].written)
        elif name == "fsync":
            folders[paths[0]].sync()
        elif name == "link" and paths[1] not in files:
            files[paths[1]] = files[paths[0]]
            folders[paths[1].parent].changes.append((paths[1].name, files[paths[0]]))
        elif name == "unlink" and files.pop(paths[0], None):
            folders[paths[0].parent].changes.append((paths[0].name, None))
    folders[source].write_after_the_cut(target, chance)
