"""Finds out what a folder, or a file, holds, and which section `data` of a run file reads it.

Each guess is judged by the code that a run uses: what it refuses is left out, and why is said in the run file.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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
from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.metrics import Metric
from pipeline.planning.first_model import ChosenModel
from pipeline.run.matching import check_account, check_classes, check_labels, check_names
from pipeline.run.paths import absolute_path
from pipeline.settings.data import DataConfig
from pipeline.settings.run_file import RunConfig

MOST_FILES = 100_000
"""Files from which on only the first ones of each sub-folder are looked at."""
FIRST_FILES = 20
"""Files of each sub-folder that are then looked at."""
_MOST_CANDIDATES = 12
_MOST_BYTES = 256 << 20
_SPLITS = ("validation", "valid", "val", "test", "train")
"""Splits of a dataset in the order in which they are chosen."""
_CLASS_FILES = ("classes.csv", "classes.txt", "class_names.txt", "obj.names", "classes.names")
_LISTS = (".csv", ".tsv", *LINES)
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


def find_data(source: str, model: ChosenModel) -> FirstData:
    """Look at a folder, or a file of images or of a list of images, and choose how a run reads it.

    Raises:
        ConfigError: there are no images, kinds are mixed, or labels contradict each other or the model.
    """
    place = _place(Path(absolute_path(source)))
    refused: dict[Path | None, list[Mistake]] = {}
    files = _files_in(place.folder) if place.shards[0].kind == "folder" and place.is_whole else []
    for (key, file), classes in itertools.product([*files, ("", None)], _classes_in(place.folder, model)):
        try:
            here = _listed({key: str(file)}, place.folder) if key == "manifest" else place
            given = {} if file is None or key == "manifest" else {key: str(file)}
            given |= {} if classes is None else {"classes": classes}
            account = _accounted(here, given, model)
        except ConfigError as error:
            refused.setdefault(file, []).extend(error.mistakes)
            continue
        if file is None or _is_used(account, file):
            refused.pop(file, None)
            return _with_notes(here, given, account, refused)
    raise ConfigError(dict.fromkeys([*refused[None], *_assumed(model)]))


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
        if path.suffix.lower() in _LISTS and path.is_file():
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


def _with_notes(
    place: _Place, given: Mapping[str, Any], account: LabelAccount, refused: Mapping[Path | None, list[Mistake]]
) -> FirstData:
    notes = [*place.notes, *(_not_used(file, mistakes) for file, mistakes in refused.items() if file)]
    return FirstData({**place.fields, **given}, _kind(place, account), account, tuple(notes), place.is_whole)


def _not_used(file: Path, mistakes: Iterable[Mistake]) -> str:
    """Say why a file that might say something of the images is not used."""
    telling = [str(mistake) for mistake in mistakes if "no column" not in mistake.what]
    return f"Not used: {file.name}: {next(iter(telling), 'it has no columns of labels or boxes that are known')}."


def _assumed(model: ChosenModel) -> list[Mistake]:
    """Say that a model was assumed, where it may be the reason why the data cannot be used."""
    what = f"none was named, so {model.fields['name']} was assumed, which has {model.loaded.classes} classes"
    return [Mistake("--model", what, "name the model of the classes of this data")] if model.is_assumed else []


def _kind(place: _Place, account: LabelAccount) -> str:
    """Say in a few words what the data is, and how much of it there is."""
    kinds = {"tar": "tar", "parquet": "Parquet file", "arrow": "Arrow file"}
    first = place.shards[0].kind
    more = "" if place.is_whole else ", of those that were looked at"
    if first in kinds:
        return f"{len(place.shards):,} {kinds[first]}{'' if len(place.shards) == 1 else 's'}{more}"
    what = "a list of images" if first == "manifest" else "a folder of images"
    return f"{what}: {account.images:,}{more}"


def _is_used(account: LabelAccount, file: Path) -> bool:
    """Return whether a file that was tried says something of the images."""
    listed = account.listed
    if listed is not None:
        return listed.labels + listed.boxes > 0 and 2 * listed.missing < listed.images
    return any(each.path == str(file) and each.matched for each in account.files)


def _classes_in(folder: Path | None, model: ChosenModel) -> list[str | None]:
    """List tables of classes: files in the folder and beside it, that of ImageNet, and none."""
    places = () if folder is None else (folder, folder.parent)
    files = [str(place / name) for place in places for name in _CLASS_FILES if (place / name).is_file()]
    return [*files, *(["imagenet-1k"] if model.is_imagenet else []), None]


def _files_in(folder: Path | None) -> list[tuple[str, Path]]:
    """List files that may say something of the images, besides those that a run finds itself; with the key of each."""
    found: list[tuple[str, Path]] = []
    for path in sorted(_entries(folder)) if folder is not None else ():
        inner = sorted(_entries(path)) if path.name.lower() in ("annotations", "labels") and path.is_dir() else []
        if any(each.suffix.lower() in (".xml", ".txt") for each in inner):
            found.append(("boxes", path))
        found += [("boxes", each) for each in (path, *inner) if _is_coco(each)]
        if path.suffix.lower() in _LISTS and path.name.lower() not in _OF_FOLDER and path.is_file():
            tables = [("labels", path), ("boxes", path)] if path.suffix.lower() == ".csv" else []
            found += [*tables, ("manifest", path)]
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
    """Yield the entries of a folder, hidden ones left out; a bounded number of them."""
    entries = itertools.islice(folder.iterdir(), MOST_FILES)
    return (path for path in entries if not path.name.startswith("."))
