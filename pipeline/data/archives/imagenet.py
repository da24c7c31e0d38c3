"""The validation set of ILSVRC2012 as published: images named by number, and labels and boxes in one of two ways.

* `LOC_val_solution.csv` names classes by WordNet id; `LOC_synset_mapping.txt` beside it lists the 1,000 ids.
* The development kit numbers its classes in an order of its own, which only its MATLAB file tells. So the label is
  the WordNet id in the XML file of the image, and the kit's `ILSVRC2012_validation_ground_truth.txt` must agree: one
  number for each WordNet id.

Classes are numbered by the sorted order of the 1,000 WordNet ids, as every published model has them.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.data.archives.base import (
    Archive,
    Troubles,
    find,
    image_trouble,
    proved,
    read_table,
    read_text,
    read_xml,
    required,
)
from pipeline.data.sources import Reading, Shard, list_items
from pipeline.data.sources.annotations import KAGGLE_COLUMNS
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import parse_box
from pipeline.data.sources.shards import Boxes, Sample, is_image
from pipeline.errors import ConfigError

SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_IMAGE_FOLDERS = ("ILSVRC/Data/CLS-LOC/val", "Data/CLS-LOC/val", "val", "ILSVRC2012_img_val", ".")
_IMAGE_TAR = "ILSVRC2012_img_val.tar"
_TRUTHS = (TRUTH, f"data/{TRUTH}", f"ILSVRC2012_devkit_t12/data/{TRUTH}")
_XML_FOLDERS = ("ILSVRC/Annotations/CLS-LOC/val", "Annotations/CLS-LOC/val", "bbox/val", "val", ".")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")
_WNID = r"n\d{8}"
_CLASSES = 1000

Facts = tuple[str, Boxes]
"""WordNet id and boxes of an image."""


def read_imagenet(source: Path, split: str | None) -> Archive:
    """Read ILSVRC2012's validation set.

    Args:
        source: a folder with images (loose, in class folders, or `ILSVRC2012_img_val.tar`) and the other files as they
            unpack; or the tar, with the other files beside it.
        split: must be None: there are none.

    Raises:
        ConfigError: what is missing, damaged or contradicts itself in the archive.
    """
    if split is not None:
        raise ConfigError.one("--split", "the validation set of ILSVRC2012 has no splits", "leave it out")
    root = source if source.is_dir() else source.parent
    troubles = Troubles()
    shard, keys = _images(source, root, troubles)
    names = _mapping(root, troubles)
    facts = _facts(root, keys, troubles)
    troubles.raise_if_any()
    wnids = sorted(names or {wnid for wnid, _ in facts.values()})
    if len(wnids) != _CLASSES:
        raise ConfigError.one(
            "SRC", f"the annotations name {len(wnids)} WordNet ids and there is no {MAPPING}",
            f"put {MAPPING} beside them: the number of a class is the place of its id among all {_CLASSES}",
        )  # fmt: skip
    _check(facts, keys, set(wnids), root, troubles)
    troubles.raise_if_any()
    index = {wnid: place for place, wnid in enumerate(wnids)}
    known = {
        key: Sample(f"{name}.JPEG", "", b"", index[facts[name][0]], facts[name][1] or None)
        for name, key in keys.items()
    }
    return Archive(shard, known, ClassTable(tuple(names.get(wnid, wnid) for wnid in wnids), tuple(wnids)))


def _images(source: Path, root: Path, troubles: Troubles) -> tuple[Shard, dict[str, str]]:
    """Find the images; gives where they lie, and the key there of each by its official name."""
    if source.is_file():
        return _from_tar(source, troubles)
    for folder in (root / name for name in _IMAGE_FOLDERS):
        found = sorted([*folder.glob("ILSVRC2012_val_*.JPEG"), *folder.glob("n*/ILSVRC2012_val_*.JPEG")])
        if found:
            return _from_folder(folder, source, found, troubles)
    return _from_tar(required(root, _IMAGE_TAR, "ILSVRC2012_val_*.JPEG"), troubles)


def _from_folder(folder: Path, source: Path, found: Iterable[Path], troubles: Troubles) -> tuple[Shard, dict[str, str]]:
    keys: dict[str, str] = {}
    for path in sorted(found, key=lambda path: path.name):
        trouble = image_trouble(path, source) or _name_trouble(path.stem, keys)
        if trouble:
            troubles.add(folder, trouble, path.name)
        else:
            keys[path.stem] = path.relative_to(folder).as_posix()
    return Shard(0, folder.name, "folder", str(folder), 0, "", len(keys), members=tuple(keys.values())), keys


def _from_tar(path: Path, troubles: Troubles) -> tuple[Shard, dict[str, str]]:
    """List a tar by its headers."""
    keys: dict[str, str] = {}
    shard = Shard(0, path.name, "tar", str(path), path.stat().st_size, "")
    for item in list_items(shard, Reading()):
        name = item.key.rpartition("/")[2]
        if not is_image(item):
            troubles.add(path, "is damaged", item.key, "copy or download it again")
        elif trouble := _name_trouble(name, keys):
            troubles.add(path, trouble, item.key)
        else:
            keys[name] = item.key
    return shard, keys


def _name_trouble(name: str, known: Mapping[str, str]) -> str:
    if not _NAME.fullmatch(name):
        return "holds what is no image of the validation set"
    return "holds images twice" if name in known else ""


def _mapping(root: Path, troubles: Troubles) -> dict[str, str]:
    """Read the names of the classes by WordNet id; empty where the archive has no such file."""
    path = find(root, MAPPING, f"ILSVRC/{MAPPING}")
    if path is None:
        return {}
    names = {wnid: words.partition(",")[0] for wnid, words in read_table(path, root, rf"({_WNID})\s+(.+)", troubles)}
    if len(names) != _CLASSES:
        troubles.add(path, f"names {len(names)} WordNet ids, not {_CLASSES}")
    return names


def _facts(root: Path, keys: Mapping[str, str], troubles: Troubles) -> dict[str, Facts]:
    solution = find(root, SOLUTION, f"ILSVRC/{SOLUTION}")
    if solution is not None:
        return _from_solution(solution, root, troubles)
    truth = find(root, *_TRUTHS)
    if truth is None:
        raise ConfigError.one(
            "SRC", f"'{root}' holds neither {SOLUTION} nor {TRUTH}", "put one of them there, as it was published"
        )
    return _from_kit(truth, root, keys, troubles)


def _from_solution(path: Path, root: Path, troubles: Troubles) -> dict[str, Facts]:
    rows = list(csv.reader(io.StringIO(read_text(path, root), newline="")))
    if rows[:1] != [list(KAGGLE_COLUMNS)] or any(len(row) != len(KAGGLE_COLUMNS) for row in rows):
        raise ConfigError.one(str(path), "is no table of two columns", f"expected {','.join(KAGGLE_COLUMNS)}")
    facts: dict[str, Facts] = {}
    for name, text in rows[1:]:
        words = text.split()
        wnids = set(words[::5])
        if name in facts:
            troubles.add(path, "names images twice", name)
        if not words or len(words) % 5 or len(wnids) != 1:
            troubles.add(path, "has rows that are not WordNet id, x1, y1, x2, y2, of one id each", f"{name} '{text}'")
            continue
        boxes = [proved(parse_box(words[i + 1 : i + 5]), path, name, troubles) for i in range(0, len(words), 5)]
        facts[name] = wnids.pop(), tuple(boxes)
    return facts


def _from_kit(truth: Path, root: Path, keys: Mapping[str, str], troubles: Troubles) -> dict[str, Facts]:
    """Read the XML file of each image; the kit's own numbers must agree with the WordNet ids, one to one."""
    numbers = [number for (number,) in read_table(truth, root, r"(\d{1,4})", troubles)]
    folder = next((root / name for name in _XML_FOLDERS if any((root / name).glob("ILSVRC2012_val_*.xml"))), None)
    if folder is None:
        raise ConfigError.one(
            "SRC", f"'{truth}' numbers classes in an order of its own, and '{root}' holds no ILSVRC2012_val_*.xml",
            f"put the XML files (val/ of the boxes of the validation set) there, or {SOLUTION} and {MAPPING}",
        )  # fmt: skip
    facts = {name: fact for name in keys if (fact := _from_xml(folder / f"{name}.xml", root, troubles))}
    wnid_of: dict[str, str] = {}
    number_of: dict[str, str] = {}
    for name, (wnid, _) in facts.items():
        place = int(name[-8:])
        if not 1 <= place <= len(numbers):
            troubles.add(truth, f"has {len(numbers)} lines, and no one for images", name)
            continue
        number = numbers[place - 1]
        if wnid_of.setdefault(number, wnid) != wnid or number_of.setdefault(wnid, number) != number:
            troubles.add(truth, "contradicts the XML files", f"{name} is {number} here and {wnid} there")
    return facts


def _from_xml(path: Path, root: Path, troubles: Troubles) -> Facts | None:
    annotation = read_xml(path, root, troubles)
    if annotation is None:
        return None
    things = annotation.findall("object")
    wnids = {(thing.findtext("name") or "").strip() for thing in things}
    if len(wnids) != 1:
        troubles.add(path.parent, "annotations name no class, or several", f"{path.name} {sorted(wnids)}")
        return None
    corners = [[thing.findtext(f"bndbox/{corner}") for corner in _CORNERS] for thing in things]
    return wnids.pop(), tuple(proved(parse_box(four), path.parent, path.name, troubles) for four in corners)


def _check(
    facts: Mapping[str, Facts], keys: Mapping[str, str], wnids: set[str], root: Path, troubles: Troubles
) -> None:
    """Images and annotations must be of the same images, and the classes known."""
    told = {
        "images have no label": keys.keys() - facts.keys(),
        "labelled images are missing": facts.keys() - keys.keys(),
        "labels are unknown": {f"{name} {wnid}" for name, (wnid, _) in facts.items() if wnid not in wnids},
    }
    for what, names in told.items():
        for name in sorted(names):
            troubles.add(root, what, name)
