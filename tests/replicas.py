"""Small replicas of official archives: their layout, a few images, and hand-written labels and boxes."""

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from pictures import noise, saved

WNIDS = [f"n{number:08d}" for number in range(10, 10 + 3 * 1000, 3)]
"""1,000 sorted WordNet ids; the n-th is class n."""

Object = tuple[str, Sequence[object], int]
"""Name, corners, and whether it is difficult."""


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def photo(number: int, width: int = 60, height: int = 40) -> bytes:
    """Return a JPEG that differs for each number."""
    return saved(noise(width + number, height), "JPEG")


def xml(name: str, objects: Iterable[Object]) -> str:
    """Return an annotation as the VOC and ILSVRC tools write it; each object has a part with a box."""
    things = "".join(
        f"<object><name>{kind}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for kind, box, difficult in objects
    )
    return f"<annotation><folder>f</folder><filename>{name}</filename>{things}</annotation>"


# Pascal VOC 2007

VOC_OBJECTS: dict[str, list[Object]] = {
    "000001": [("dog", (48, 20, 55, 37), 0), ("person", (8, 12, 35, 40), 0)],
    "000002": [("train", (1, 1, 61, 40), 0)],
    "000003": [("person", (5, 5, 9, 9), 0), ("person", (11, 6, 20, 16), 0), ("chair", (2, 2, 3, 3), 1)],
    "000004": [("car", (13, 11, 14, 12), 1)],
    "000005": [("chair", (2, 3, 4, 5), 0)],
}
VOC_SPLITS = {"test": ["000001", "000002", "000003", "000004"], "trainval": ["000005"]}


def voc(folder: Path) -> Path:
    """Write VOCdevkit/VOC2007 with four test images and one trainval image."""
    root = folder / "VOCdevkit" / "VOC2007"
    for name, objects in VOC_OBJECTS.items():
        write(root / "Annotations" / f"{name}.xml", xml(f"{name}.jpg", objects))
        write(root / "JPEGImages" / f"{name}.jpg", photo(int(name)))
    for split, names in VOC_SPLITS.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in names))
        write(root / "ImageSets" / "Main" / f"dog_{split}.txt", "".join(f"{name} -1\n" for name in names))
    return folder


# CUB-200-2011

CUB_IMAGES = {
    1: "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
    2: "001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg",
    3: "002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg",
    4: "003.Sooty_Albatross/Sooty_Albatross_0048_1130.jpg",
}


def cub(folder: Path) -> Path:
    """Write CUB_200_2011 with three classes and four images, two of them in the test split."""
    root = folder / "CUB_200_2011"
    for number, name in CUB_IMAGES.items():
        write(root / "images" / name, photo(number))
    write(root / "images.txt", "".join(f"{number} {name}\n" for number, name in CUB_IMAGES.items()))
    write(root / "image_class_labels.txt", "1 1\n2 1\n3 2\n4 3\n")
    write(
        root / "bounding_boxes.txt",
        "1 60.0 27.0 325.0 304.0\n2 1.5 2.0 10.0 20.0\n3 3.0 4.0 5.0 6.0\n4 0.0 0.0 9.0 8.0\n",
    )
    write(root / "train_test_split.txt", "1 0\n2 1\n3 1\n4 0\n")
    write(root / "classes.txt", "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n3 003.Sooty_Albatross\n")
    return folder


# ILSVRC2012, validation

VAL_NAMES = [f"ILSVRC2012_val_{number:08d}" for number in (1, 2, 3, 4)]
VAL_CLASSES = [999, 7, 7, 0]
VAL_BOXES = [[(1, 2, 30, 39)], [(0, 0, 5, 6), (10, 11, 12, 13)], [(3, 3, 4, 4)], [(20, 5, 50, 30)]]


def val_images(folder: Path, *, tar: bool = False) -> None:
    """Write the images: loose in val/, or in the official tar."""
    if not tar:
        for number, name in enumerate(VAL_NAMES):
            write(folder / "val" / f"{name}.JPEG", photo(number))
        return
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for number, name in enumerate(VAL_NAMES):
            info = tarfile.TarInfo(f"{name}.JPEG")
            info.size = len(photo(number))
            archive.addfile(info, io.BytesIO(photo(number)))


def val_solution(folder: Path, *, mapping: bool = True) -> Path:
    """Write the two tables, with unsorted ids."""
    rows = [
        name + "," + "".join(f"{WNIDS[label]} {' '.join(map(str, box))} " for box in boxes)
        for name, label, boxes in zip(VAL_NAMES, VAL_CLASSES, VAL_BOXES, strict=True)
    ]
    write(folder / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *reversed(rows)]) + "\n")
    if mapping:
        val_mapping(folder)
    return folder


def val_mapping(folder: Path) -> None:
    lines = [f"{wnid} thing {number}, matter" for number, wnid in enumerate(WNIDS)]
    write(folder / "LOC_synset_mapping.txt", "\n".join(reversed(lines)) + "\n")


def val_kit(folder: Path, numbers: Sequence[int] = (490, 361, 361, 1)) -> Path:
    """Write the ground truth of the kit, with its own class numbers, and an XML file for each image."""
    truth = "".join(f"{number}\n" for number in numbers)
    write(folder / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt", truth)
    for name, label, boxes in zip(VAL_NAMES, VAL_CLASSES, VAL_BOXES, strict=True):
        write(folder / "bbox" / "val" / f"{name}.xml", xml(name, [(WNIDS[label], box, 0) for box in boxes]))
    return folder
