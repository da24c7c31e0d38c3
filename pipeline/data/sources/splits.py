"""Finds one split of a dataset: of a clone from the Hugging Face hub, a saved `DatasetDict`, or folders by split."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pipeline.data.sources.fingerprint import kind_of
from pipeline.errors import ConfigError, nearest

_WHERE = "data.split"
_NUMBERED = re.compile(r"(?:^|[^a-zA-Z0-9])(?P<split>[a-zA-Z0-9]+)-\d+-of-\d+(-[0-9a-fA-F]+)?$")
"""How the hub names the files of a split: `train-00000-of-00005.parquet`."""

_SAME = (("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing", "eval"))
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)


def of_split(folder: Path, split: str | None) -> list[Path]:
    """Return what to read of a folder: itself, the folder of a split, or the files of a split.

    Args:
        folder: the folder that the run file names.
        split: the wanted split; None means all, if there is only one.

    Raises:
        ConfigError: the folder has several splits and none is named, or it does not have the named one.
    """
    if (folder / "dataset_dict.json").is_file():
        return [folder / chosen_split(str(folder), _saved_splits(folder), split)]
    if split is not None and (named := _sub_folder(folder, split)) is not None:
        return [named]
    files = _files(folder) if split is not None or _is_clone(folder) else _direct_files(folder)
    numbered = by_split(path.relative_to(folder) for path in files)
    if split is None and len(numbered) < 2:
        return files if _is_clone(folder) else [folder]
    if not numbered:
        raise ConfigError.one(_WHERE, f"'{folder}' has no split '{split}'", "no file or folder is named after a split")
    name = chosen_split(str(folder), {name: len(paths) for name, paths in numbered.items()}, split)
    return [folder / path for path in numbered[name]]


def by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group files, as paths within a dataset, by the split in their names; those without one are left out."""
    found: dict[str, list[Path]] = {}
    for path in files:
        if name := _split_of(path):
            found.setdefault(name, []).append(path)
    return found


def chosen_split(folder: str, splits: dict[str, int], split: str | None) -> str:
    """Return the name of the wanted split among those that there are, with their numbers of files.

    Raises:
        ConfigError: there are several and none is wanted, or not the wanted one.
    """
    shown = ", ".join(f"{name} ({count} files)" if count else name for name, count in sorted(splits.items()))
    if split is None:
        if len(splits) == 1:
            return next(iter(splits))
        raise ConfigError.one(
            _WHERE, f"'{folder}' has several splits: {shown}", f"choose one: data.split: {min(splits)}"
        )
    found = next((name for name in splits if name in _names_of(split)), None)
    if found is None:
        raise ConfigError.one(_WHERE, f"'{folder}' has no split '{split}', but {shown}", nearest(split, splits))
    return found


def _saved_splits(folder: Path) -> dict[str, int]:
    """Read the names of the splits that `DatasetDict.save_to_disk` wrote."""
    try:
        names = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError("no list of names")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError.one(_WHERE, f"cannot read the splits in '{folder}/dataset_dict.json': {error}") from None
    return dict.fromkeys(names, 0)


def _names_of(split: str) -> tuple[str, ...]:
    """Return a split and its other usual names."""
    return next(((split, *names) for names in _SAME if split.lower() in names), (split, split.lower()))


def _sub_folder(folder: Path, split: str) -> Path | None:
    tops = (folder, folder / "data", folder / "images")
    candidates = (top / name for name in _names_of(split) for top in tops)
    return next((path for path in candidates if path.is_dir()), None)


def _is_clone(folder: Path) -> bool:
    """Return whether a folder looks like a clone of a dataset's repository: its card and a folder of data files."""
    return (folder / "README.md").is_file() and not _direct_files(folder) and bool(_direct_files(folder / "data"))


def _direct_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_shard(path)) if folder.is_dir() else []


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_shard(path))


def _is_shard(path: Path) -> bool:
    return kind_of(path.name) is not None and not path.name.startswith((".", "cache-")) and path.is_file()


def _split_of(path: Path) -> str:
    """Return the split in the name of a file: before its number, else a usual name of a split; empty if none is."""
    stem = path.name.partition(".")[0]
    if numbered := _NUMBERED.search(stem):
        return numbered["split"]
    usual = {name for names in _SAME for name in names}
    words = Counter(word for part in (*path.parts[:-1], stem) for word in _WORD.findall(part) if word in usual)
    return next(iter(words)) if len(words) == 1 else ""
