"""Finds out what a folder, or a file, holds, and which section `data` of a run file reads it.

Each guess is judged by the code that a run uses: what it refuses is left out, and why is said in the run file.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.data.account import LabelAccount
from pipeline.data.annotations import describe, describe_images
from pipeline.data.class_counts import with_counts
from pipeline.data.inputs import shards_of
from pipeline.data.sources import Shard
from pipeline.data.sources.fingerprint import kind_of
from pipeline.data.sources.folder_files import FolderFiles, find_first_files
from pipeline.data.sources.manifest_table import LINES, TEXTS
from pipeline.errors import ConfigError, Mistakes
from pipeline.metrics import Metric
from pipeline.planning.first_model import ChosenModel
from pipeline.run.matching import check_account, check_classes, check_labels, check_names
from pipeline.settings.data import DataConfig
from pipeline.settings.run_file import RunConfig

MOST_FILES = 100_000
"""Files from which on only the first ones of each sub-folder are looked at."""
FIRST_FILES = 20
"""Files of each sub-folder that are then looked at."""
_MOST_SHARDS = 1000
_MOST_ENTRIES = 10_000
_MOST_CANDIDATES = 5
_MOST_BYTES = 256 << 20
_SPLITS = ("validation", "valid", "val", "test", "train")
"""Splits of a dataset in the order in which they are chosen."""
_CLASS_FILES = ("classes.csv", "classes.txt", "class_names.txt", "obj.names", "classes.names")
_OF_FOLDER = ("labels.csv", "boxes.csv", *_CLASS_FILES)


@dataclass(frozen=True)
class FirstData:
    """The section `data` of a new run file.

    Attributes:
        fields: its keys and values.
        kind: what the data is, in a few words.
        account: what each image will be called; of the images that were looked at.
        notes: what was found and not used, or not looked at; lines of the comment.
        is_whole: whether all of the data was looked at.
    """

    fields: Mapping[str, Any]
    kind: str
    account: LabelAccount
    notes: tuple[str, ...] = ()
    is_whole: bool = True


@dataclass(frozen=True)
class _Place:
    """What is read, before labels: the keys that name it, its shards, and what was left out."""

    fields: dict[str, Any]
    shards: list[Shard]
    notes: tuple[str, ...] = ()
    is_whole: bool = True
    folder: Path | None = None
    tried: list[ConfigError] = field(default_factory=list)


def find_data(source: str, model: ChosenModel) -> FirstData:
    """Look at a folder, or a file of images or of a list of images, and choose how a run reads it.

    Raises:
        ConfigError: there are no images, kinds are mixed, or labels contradict each other or the model.
    """
    place = _place(Path(source).expanduser().absolute())
    files = _files_in(place.folder) if place.shards[0].kind == "folder" else []
    for boxes, classes in itertools.product([*files, ("boxes", None)], _classes_in(place.folder, model)):
        chosen = {name: str(path) for name, path in (("classes", classes), (boxes[0], boxes[1])) if path is not None}
        try:
            account = _accounted(place, chosen, model)
        except ConfigError as error:
            place.tried.append(error)
            continue
        if boxes[1] is None or _is_used(account, boxes):
            return _with_notes(place, chosen, account)
    raise place.tried[-1]


def _place(source: Path) -> _Place:
    """Name the data, and list its shards as a run does; a bounded number of them."""
    if source.is_file() and source.suffix.lower() in (*TEXTS, *LINES):
        return _listed({"manifest": str(source)})
    if not source.is_dir():
        return _listed({"shards": str(source)}, source.parent if source.exists() else None)
    if first := find_first_files(source, MOST_FILES, FIRST_FILES):
        return _first_of_many(source, first)
    try:
        return _listed({"shards": str(source)}, source)
    except ConfigError as error:
        return _other_place(source, error)


def _listed(fields: dict[str, Any], folder: Path | None = None, notes: tuple[str, ...] = ()) -> _Place:
    return _Place(fields, shards_of(DataConfig(**fields)), notes, folder=folder)


def _other_place(source: Path, refused: ConfigError) -> _Place:
    """Read one split of a dataset with several, or the images of the list in a folder without images."""
    if refused.mistakes[0].where == "data.split":
        for split in _SPLITS:
            try:
                return _listed({"shards": str(source), "split": split}, source, (f"{refused.mistakes[0].what}.",))
            except ConfigError:
                continue
    for path in sorted(_entries(source)):
        if path.suffix.lower() in (".csv", ".tsv", *LINES) and path.is_file():
            try:
                return _listed({"manifest": str(path)}, source)
            except ConfigError:
                continue
    raise refused


def _first_of_many(source: Path, first: FolderFiles) -> _Place:
    """Look at some shards of very many files: three of the files that hold images, or the first images of folders."""
    note = (
        f"More than {MOST_FILES:,} files: only the first {FIRST_FILES} of each sub-folder were looked at. "
        "`camatlas plan` looks at all of them."
    )
    held = sorted(str(path) for path in itertools.islice(_entries(source), MOST_FILES) if kind_of(path.name))
    if held:
        named = list(dict.fromkeys((held[0], held[len(held) // 2], held[-1])))
        shards = shards_of(DataConfig(shards=named))
        return _Place({"shards": str(source)}, shards, (note,), is_whole=False, folder=source)
    if not first.images:
        raise ConfigError.one(
            "FOLDER", f"among the first files of '{source}' is no image, tar or Parquet file", "name a folder inside it"
        )
    shard = Shard(0, source.name, "folder", str(source), 0, "", len(first.images), members=tuple(first.images))
    return _Place({"shards": str(source)}, [shard], (note,), is_whole=False, folder=source)


def _accounted(place: _Place, chosen: Mapping[str, Any], model: ChosenModel) -> LabelAccount:
    """Account for labels and boxes, and compare them with the model, as a run does before its work.

    Raises:
        ConfigError: a run would be refused.
    """
    data = DataConfig(**place.fields, **chosen)
    names = model.loaded.class_names or ()
    look = partial(describe if place.is_whole else describe_images, data, place.shards, model.outputs, of_model=names)
    described = look()
    check_classes(described.annotations, model.loaded)
    check_names(described.class_names, model.loaded)
    check_labels(described.annotations, model.loaded, place.shards)
    account = with_counts(described, place.shards)
    mistakes, none = Mistakes(), dict[str, Metric]()
    config = RunConfig.model_validate({"data": data, "model": model.fields, "output": {"path": "-"}})
    check_account(account, config, none, mistakes)
    mistakes.raise_if_any()
    return account


def _with_notes(place: _Place, chosen: Mapping[str, Any], account: LabelAccount) -> FirstData:
    tried = dict.fromkeys(f"Not used: {mistake}" for error in place.tried for mistake in error.mistakes)
    fields = {**place.fields, **chosen}
    return FirstData(fields, _kind(place, account), account, (*place.notes, *tried), place.is_whole)


def _kind(place: _Place, account: LabelAccount) -> str:
    """Say in a few words what the data is, and how much of it there is."""
    kinds = {"tar": "tar", "parquet": "Parquet file", "arrow": "Arrow file"}
    first = place.shards[0].kind
    more = "" if place.is_whole else ", of those that were looked at"
    if first in kinds:
        return f"{len(place.shards):,} {kinds[first]}{'' if len(place.shards) == 1 else 's'}{more}"
    what = "a list of images" if first == "manifest" else "a folder of images"
    return f"{what}: {account.images:,}{more}"


def _is_used(account: LabelAccount, given: tuple[str, Path | None]) -> bool:
    """Return whether a file that was tried says something of an image."""
    return any(file.path == str(given[1]) and file.matched for file in account.files)


def _classes_in(folder: Path | None, model: ChosenModel) -> Iterator[str | None]:
    """Yield tables of classes: files of the folder, that of ImageNet, or none."""
    for name in _CLASS_FILES if folder is not None else ():
        if (Path(folder or "", name)).is_file():
            yield str(Path(folder or "", name))
    if model.is_imagenet:
        yield "imagenet-1k"
    yield None


def _files_in(folder: Path | None) -> list[tuple[str, Path | None]]:
    """List files of boxes and of labels that a folder has under other names than those that a run finds itself."""
    found: list[tuple[str, Path | None]] = []
    for path in sorted(_entries(folder)) if folder is not None else ():
        inner = sorted(_entries(path)) if path.name.lower() in ("annotations", "labels") and path.is_dir() else []
        if any(each.suffix.lower() in (".xml", ".txt") for each in inner):
            found.append(("boxes", path))
        found += [("boxes", each) for each in (path, *inner) if _is_coco(each)]
        if path.suffix.lower() == ".csv" and path.name.lower() not in _OF_FOLDER:
            found += [("labels", path), ("boxes", path)]
    return found[:_MOST_CANDIDATES]


def _is_coco(path: Path) -> bool:
    """Return whether a JSON file has COCO's annotations; larger ones than 256 MiB are not read."""
    try:
        if path.suffix.lower() != ".json" or path.stat().st_size > _MOST_BYTES:
            return False
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("annotations"), list) and "images" in content


def _entries(folder: Path) -> Iterator[Path]:
    """Yield the entries of a folder, hidden ones left out; ten thousand at most."""
    entries = itertools.islice(folder.iterdir(), _MOST_ENTRIES)
    return (path for path in entries if not path.name.startswith("."))
