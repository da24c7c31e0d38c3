"""Decides whether the sub-folders of a folder of images are its classes; when it is not certain, they are not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.data.sources.classes import ClassTable, whole_float
from pipeline.data.sources.imagenet import synsets, wnid_of, wnids
from pipeline.data.sources.keys import SPLITS
from pipeline.errors import ConfigError
from pipeline.settings.data import Folders

_IMAGENET = 1000
_INDEX = re.compile(r"0|[1-9]\d{0,8}")
_SHOWN = 3


@dataclass(frozen=True)
class FolderClasses:
    """What the sub-folders of a folder say about its images.

    Attributes:
        labels: class index of each image, as text, by its path.
        index_of: class index of each sub-folder.
        names: names of the classes by index; empty where the class table of the run has them.
        why: how the folders became classes, or why they did not; empty if there are no sub-folders.
    """

    labels: dict[str, str] = field(default_factory=dict)
    index_of: dict[str, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    why: str = ""


def classes_of_folders(
    members: Sequence[str], table: ClassTable, outputs: int | None = None, wanted: Folders = "auto"
) -> FolderClasses:
    """Return the classes that sub-folders stand for, and the label of each image.

    They are classes if their names are WordNet ids or names of the class table, if their number is that of the
    model's classes, or if the run file says so.

    Args:
        members: the images, as paths within the folder.
        table: the class table of the run; empty if it names none.
        outputs: the model's number of classes; None where there is no model, as for packing.
        wanted: `auto`, `classes` or `ignore`, as `data.folders` says.

    Raises:
        ConfigError: the class table contains some of the sub-folders but not all of them.
    """
    level = _level(members)
    tops = [_part(name, level) for name in members]
    names = sorted(set(tops) - {""})
    if not names:
        above = sorted({_part(name, 0) for name in members} - {""}) if level else []
        return FolderClasses(why=f"{_listed(above)}: splits of a dataset, not classes" if above else "")
    if wanted == "ignore":
        return FolderClasses(why=f"{_listed(names)}: not used")
    decided: Decided | str | None = _by_name(names, table, outputs)
    if decided is None and table.names and wanted == "auto" and not all(name.isdigit() for name in names):
        decided = f"none of their names is in {table.source}"
    if decided is None:
        decided = _by_number(names, outputs, wanted, loose="" in tops)
    if isinstance(decided, str):
        hint = _what_to_do(names, outputs)
        return FolderClasses(why=f"{_listed(names)}: not certain to be classes, because {decided}; {hint}")
    index_of, class_names, why = decided
    why = f"{_listed(names)}: classes, because {why}"
    labels = {name: str(index_of[top]) for name, top in zip(members, tops, strict=True) if top}
    return FolderClasses(labels, index_of, class_names, why)


Decided = tuple[dict[str, int], tuple[str, ...], str]
"""Index of each folder, names of the classes, and the reason."""


def numbered_folders(members: Sequence[str], table: ClassTable) -> dict[str, str]:
    """Return the labels that earlier versions took from sub-folders even where a label file gave all of them.

    They are no longer read, but belong to the digest of runs in which they changed nothing.
    """
    tops = [_part(name, 0) for name in members]
    names = sorted(set(tops))
    if len(names) < 2 or "" in names:
        return {}
    known = {name: str(index) for name in names if (index := table.index(name)) is not None}
    index_of = known or {name: str(index) for index, name in enumerate(names)}
    return {name: index_of.get(top, "") for name, top in zip(members, tops, strict=True)}


def _level(members: Sequence[str]) -> int:
    """Return how deep the class folders lie: below folders that only divide the dataset, such as train and val."""
    tops = {_part(name, 0) for name in members}
    return 1 if tops and all(top.lower() in SPLITS for top in tops) else 0


def _part(name: str, level: int) -> str:
    """Return a folder of a path; empty if the image lies above it."""
    parts = name.split("/")[:-1]
    return parts[level] if level < len(parts) else ""


def _by_name(names: Sequence[str], table: ClassTable, outputs: int | None) -> Decided | None:
    """Number folders by their names; None if these are no WordNet ids and no names of the class table."""
    if table.names:
        _refuse_shared(names, table)
        known = {name: index for name in names if (index := _index_of(name, table)) is not None}
        unknown = [name for name in names if name not in known]
        if known and unknown:
            raise ConfigError.one(
                "data.classes",
                f"the sub-folder '{unknown[0]}' is not a known class, but others are (in {table.source})",
                "complete the table, or set data.folders: ignore",
            )
        if known:
            return known, (), f"their names are in {table.source}"
        return _by_index(names, table)
    ids = [wnid_of(name) for name in names]
    if outputs in (None, _IMAGENET) and all(one in wnids() for one in ids):
        first_words = tuple(words.partition(",")[0] for words in synsets().values())
        index_of = {name: wnids()[one] for name, one in zip(names, ids, strict=True) if one}
        return index_of, first_words, "their names are WordNet ids of ImageNet"
    return None


def _refuse_shared(names: Sequence[str], table: ClassTable) -> None:
    """Raise ConfigError if a folder is called by the name of several classes, so that it may be any of them."""
    for name in names:
        if sharing := table.sharing(name):
            raise ConfigError.one(
                "data.classes",
                f"the sub-folder '{name}' has the name of several classes (in {table.source}): "
                f"{', '.join(map(str, sharing))}",
                "give each class a name of its own, or name a file of labels in data.labels",
            )


def _index_of(name: str, table: ClassTable) -> int | None:
    """Return the class of a folder's name, or of the WordNet id that it begins with; a number says nothing alone."""
    if name.isdigit() or (whole_float(name) is not None and name not in table.names):
        return None
    index = table.index(name)
    return table.index(wnid_of(name) or "") if index is None else index


def _by_index(names: Sequence[str], table: ClassTable) -> Decided | None:
    """Number folders by the indices that they are named by, where 0 and a gap show that they are indices."""
    if not all(map(_INDEX.fullmatch, names)):
        return None
    numbers = sorted(map(int, names))
    has_gap = numbers != list(range(len(numbers)))
    if numbers[0] == 0 and numbers[-1] < len(table.names) and has_gap:
        return {name: int(name) for name in names}, (), f"their names are indices of {table.source}"
    return None


def _by_number(names: Sequence[str], outputs: int | None, wanted: Folders, *, loose: bool) -> Decided | str:
    """Number folders if there is one for each class of the model, or if the run file wants it; else say why not."""
    are_indices = all(map(_INDEX.fullmatch, names))
    numbers = sorted(map(int, names)) if are_indices else []
    if wanted == "classes":
        if are_indices and numbers[0] == 0:
            return {name: int(name) for name in names}, (), "data.folders says so, and their names are indices"
        return _in_order(names), tuple(names), "data.folders says so, in the order of their names"
    if loose:
        return "images lie beside them"
    if outputs is None:
        return "their names are no WordNet ids of ImageNet, and in no class table"
    spans = are_indices and numbers[0] == 0 and numbers[-1] == outputs - 1
    if spans:
        return {name: int(name) for name in names}, (), "their names are the indices of the model's classes"
    if len(names) != outputs or outputs < 2:
        are_ids = all(map(wnid_of, names))
        what = "their names are WordNet ids" if are_ids else "their names are in no class table"
        return f"{what}, and the model has {outputs} classes"
    if all(name.lower() in SPLITS for name in names):
        return "they are the splits of a dataset"
    if are_indices and numbers[0] > 1:
        return f"they are numbers from {numbers[0]} on"
    if are_indices and numbers[0] == 0 and numbers != [int(name) for name in names]:
        return f"they are numbers from 0 on, but {numbers[-1]} is no class of the model, which has {outputs} classes"
    if are_indices and numbers != [int(name) for name in names]:
        return "they are numbers from 1 on, whose order by name is another one"
    return _in_order(names), tuple(names), f"the model has {outputs} classes too; numbered in the order of their names"


def _what_to_do(names: Sequence[str], outputs: int | None) -> str:
    """Say how folders become classes: by the setting, where the model has all of the classes that it would give."""
    numbered = _by_number(names, outputs, "classes", loose=False)
    index_of = _in_order(names) if isinstance(numbered, str) else numbered[0]
    beyond = [name for name in names if outputs is not None and index_of[name] >= outputs]
    if beyond:
        return (
            f"data.folders: classes would make '{beyond[0]}' class {index_of[beyond[0]]}, which the model does not "
            f"have (0 to {(outputs or 0) - 1}); name a file of labels in data.labels"
        )
    order = ", ".join(f"{name} = {index_of[name]}" for name in names[:2]) + (", ..." if len(names) > 2 else "")
    return f"data.folders: classes takes them as such ({order}); otherwise data.labels names a file of labels"


def _in_order(names: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _listed(names: Sequence[str]) -> str:
    more = f", {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} folder{'' if len(names) == 1 else 's'} ({', '.join(names[:_SHOWN])}{more})"
