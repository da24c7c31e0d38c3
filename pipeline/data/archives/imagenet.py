"""The validation set of ILSVRC2012 as published: numbered images, with labels and boxes in one of two formats.

* `LOC_val_solution.csv` gives classes by WordNet id; `LOC_synset_mapping.txt` in the same folder lists the 1,000 ids.
* The development kit numbers classes in its own order, which only its MATLAB file defines. So the label is the WordNet
  id in the XML file of the image, and the kit's `ILSVRC2012_validation_ground_truth.txt` must agree with it: one
  number for each WordNet id.

Classes are numbered by the sorted order of the 1,000 WordNet ids, as in all published models.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.data.archives.base import (
    Archive,
    Problems,
    checked_box,
    find,
    image_problem,
    read_table,
    read_text,
    read_xml,
    require,
)
from pipeline.data.sources import Reading, Shard, list_items
from pipeline.data.sources.box_formats import parse_box
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.label_files import KAGGLE_COLUMNS
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

Annotation = tuple[str, Boxes]
"""WordNet id and boxes of an image."""


def read_imagenet(source: Path, split: str | None) -> Archive:
    """Read the validation set of ILSVRC2012.

    Args:
        source: a folder with images (loose, in class folders, or in `ILSVRC2012_img_val.tar`) and the other files as
            unpacked; or the tar itself, with the other files in the same folder.
        split: must be None, because there are no splits.

    Raises:
        ConfigError: files of the archive are missing, damaged or contradict each other.
    """
    if split is not None:
        raise ConfigError.one("--split", "the validation set of ILSVRC2012 has no splits", "leave it out")
    root = source if source.is_dir() else source.parent
    problems = Problems()
    shard, keys = _images(source, root, problems)
    names = _mapping(root, problems)
    annotations = _annotations(root, keys, problems)
    problems.raise_if_any()
    wnids = sorted(names or {wnid for wnid, _ in annotations.values()})
    if len(wnids) != _CLASSES:
        raise ConfigError.one(
            "SRC", f"the annotations contain {len(wnids)} WordNet ids, and {MAPPING} is missing",
            f"add {MAPPING}: the index of a class is the position of its id among all {_CLASSES}",
        )  # fmt: skip
    _check(annotations, keys, set(wnids), root, problems)
    problems.raise_if_any()
    index = {wnid: number for number, wnid in enumerate(wnids)}
    samples = {
        key: Sample(f"{name}.JPEG", "", b"", index[annotations[name][0]], annotations[name][1] or None)
        for name, key in keys.items()
    }
    return Archive(shard, samples, ClassTable(tuple(names.get(wnid, wnid) for wnid in wnids), tuple(wnids)))


def _images(source: Path, root: Path, problems: Problems) -> tuple[Shard, dict[str, str]]:
    """Find the images; return their shard, and the key of each in that shard by its official name."""
    if source.is_file():
        return _from_tar(source, problems)
    for folder in (root / name for name in _IMAGE_FOLDERS):
        paths = sorted([*folder.glob("ILSVRC2012_val_*.JPEG"), *folder.glob("n*/ILSVRC2012_val_*.JPEG")])
        if paths:
            return _from_folder(folder, source, paths, problems)
    return _from_tar(require(root, _IMAGE_TAR, "ILSVRC2012_val_*.JPEG"), problems)


def _from_folder(folder: Path, source: Path, paths: Iterable[Path], problems: Problems) -> tuple[Shard, dict[str, str]]:
    keys: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: path.name):
        problem = image_problem(path, source) or _name_problem(path.stem, keys)
        if problem:
            problems.add(folder, problem, path.name)
        else:
            keys[path.stem] = path.relative_to(folder).as_posix()
    return Shard(0, folder.name, "folder", str(folder), 0, "", len(keys), members=tuple(keys.values())), keys


def _from_tar(path: Path, problems: Problems) -> tuple[Shard, dict[str, str]]:
    """List the images of a tar from its headers."""
    keys: dict[str, str] = {}
    shard = Shard(0, path.name, "tar", str(path), path.stat().st_size, "")
    for item in list_items(shard, Reading()):
        name = item.key.rpartition("/")[2]
        if not is_image(item):
            problems.add(path, "is damaged", item.key, "copy or download it again")
        elif problem := _name_problem(name, keys):
            problems.add(path, problem, item.key)
        else:
            keys[name] = item.key
    return shard, keys


def _name_problem(name: str, known: Mapping[str, str]) -> str:
    if not _NAME.fullmatch(name):
        return "contains files that are not images of the validation set"
    return "contains images twice" if name in known else ""


def _mapping(root: Path, problems: Problems) -> dict[str, str]:
    """Read the class names by WordNet id; empty if the archive has no such file."""
    path = find(root, MAPPING, f"ILSVRC/{MAPPING}")
    if path is None:
        return {}
    names = {wnid: words.partition(",")[0] for wnid, words in read_table(path, root, rf"({_WNID})\s+(.+)", problems)}
    if len(names) != _CLASSES:
        problems.add(path, f"lists {len(names)} WordNet ids, not {_CLASSES}")
    return names


def _annotations(root: Path, keys: Mapping[str, str], problems: Problems) -> dict[str, Annotation]:
    solution = find(root, SOLUTION, f"ILSVRC/{SOLUTION}")
    if solution is not None:
        return _from_solution(solution, root, problems)
    truth = find(root, *_TRUTHS)
    if truth is None:
        raise ConfigError.one(
            "SRC", f"'{root}' contains neither {SOLUTION} nor {TRUTH}", "add one of them, as published"
        )
    return _from_kit(truth, root, keys, problems)


def _from_solution(path: Path, root: Path, problems: Problems) -> dict[str, Annotation]:
    rows = list(csv.reader(io.StringIO(read_text(path, root), newline="")))
    if rows[:1] != [list(KAGGLE_COLUMNS)] or any(len(row) != len(KAGGLE_COLUMNS) for row in rows):
        raise ConfigError.one(str(path), "is not a table of two columns", f"expected {','.join(KAGGLE_COLUMNS)}")
    annotations: dict[str, Annotation] = {}
    for name, text in rows[1:]:
        fields = text.split()
        wnids = set(fields[::5])
        if name in annotations:
            problems.add(path, "lists images twice", name)
        if not fields or len(fields) % 5 or len(wnids) != 1:
            problems.add(path, "has rows that are not WordNet id, x1, y1, x2, y2 of one id", f"{name} '{text}'")
            continue
        boxes = [checked_box(parse_box(fields[i + 1 : i + 5]), path, name, problems) for i in range(0, len(fields), 5)]
        annotations[name] = wnids.pop(), tuple(boxes)
    return annotations


def _from_kit(truth: Path, root: Path, keys: Mapping[str, str], problems: Problems) -> dict[str, Annotation]:
    """Read the XML file of each image; the kit's class numbers must match the WordNet ids one to one."""
    numbers = [number for (number,) in read_table(truth, root, r"(\d{1,4})", problems)]
    folder = next((root / name for name in _XML_FOLDERS if any((root / name).glob("ILSVRC2012_val_*.xml"))), None)
    if folder is None:
        raise ConfigError.one(
            "SRC", f"'{truth}' numbers classes in its own order, and '{root}' contains no ILSVRC2012_val_*.xml",
            f"add the XML files (val/ of the boxes of the validation set), or {SOLUTION} and {MAPPING}",
        )  # fmt: skip
    paths = {name: folder / f"{name}.xml" for name in keys}
    annotations = {name: parsed for name, path in paths.items() if (parsed := _from_xml(path, root, problems))}
    wnid_of: dict[str, str] = {}
    number_of: dict[str, str] = {}
    for name, (wnid, _) in annotations.items():
        line = int(name[-8:])
        if not 1 <= line <= len(numbers):
            problems.add(truth, f"has {len(numbers)} lines, but none for images", name)
            continue
        number = numbers[line - 1]
        if wnid_of.setdefault(number, wnid) != wnid or number_of.setdefault(wnid, number) != number:
            problems.add(truth, "contradicts the XML files", f"{name} is {number} here and {wnid} in its XML file")
    return annotations


def _from_xml(path: Path, root: Path, problems: Problems) -> Annotation | None:
    annotation = read_xml(path, root, problems)
    if annotation is None:
        return None
    objects = annotation.findall("object")
    wnids = {(element.findtext("name") or "").strip() for element in objects}
    if len(wnids) != 1:
        problems.add(path.parent, "annotations contain no class, or several", f"{path.name} {sorted(wnids)}")
        return None
    corners = [[element.findtext(f"bndbox/{corner}") for corner in _CORNERS] for element in objects]
    return wnids.pop(), tuple(checked_box(parse_box(four), path.parent, path.name, problems) for four in corners)


def _check(
    annotations: Mapping[str, Annotation], keys: Mapping[str, str], wnids: set[str], root: Path, problems: Problems
) -> None:
    """Check that images and annotations match, and that all classes are known."""
    problem_images = {
        "images have no label": keys.keys() - annotations.keys(),
        "labelled images are missing": annotations.keys() - keys.keys(),
        "labels are unknown": {f"{name} {wnid}" for name, (wnid, _) in annotations.items() if wnid not in wnids},
    }
    for what, names in problem_images.items():
        for name in sorted(names):
            problems.add(root, what, name)
