"""Boxes of Pascal VOC: a folder with one XML file for each image, which names the class of each object."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.data.sources.box_formats import checked, parse_box
from pipeline.data.sources.box_names import WHERE, BoxFile, Naming, Object
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import MAX_TEXT_BYTES, parse_xml
from pipeline.data.sources.wrong_rows import WrongRowError, WrongRows

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_CHALLENGE = re.compile(r"VOC ?20\d\d", re.IGNORECASE)
"""Names of the databases that number pixels from 1, so that the first pixel begins at the edge 0."""


def read_voc(folder: Path, files: Sequence[Path], classes: ClassTable) -> BoxFile:
    """Read the XML files of a folder: labels and boxes by the name of the file within the folder, without its suffix.

    Objects marked `difficult` are left out, as in the challenge.

    Raises:
        ConfigError: files are wrong, or the names of objects are no classes.
    """
    objects: dict[str, list[Object]] = {}
    wrong = WrongRows(WHERE, str(folder), "files")
    for path in files:
        name = path.relative_to(folder)
        with wrong.collecting(name.as_posix()):
            objects[name.with_suffix("").as_posix()] = _objects(_parsed(path))
    wrong.raise_if_any()
    naming = Naming(str(folder), (name for found in objects.values() for name, _ in found), classes)
    images = {image: naming.described(found) for image, found in objects.items()}
    return BoxFile(images, naming.notes)


def _parsed(path: Path) -> Element:
    try:
        with path.open("rb") as file:
            return parse_xml(file.read(MAX_TEXT_BYTES + 1))
    except OSError as error:
        raise WrongRowError(f"cannot be read: {error.strerror}") from None


def _objects(annotation: Element) -> list[Object]:
    first = 1 if _CHALLENGE.search(annotation.findtext("source/database") or "") else 0
    found: list[Object] = []
    for element in annotation.findall("object"):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise WrongRowError("an object has no name")
        corners = [(element.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS]
        x0, y0, x1, y1 = checked((parse_box(corners),))[0]
        if (element.findtext("difficult") or "0").strip() != "1":
            found.append((name, (x0 - first, y0 - first, x1, y1)))
    return found
