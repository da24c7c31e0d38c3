"""Files of boxes with the names of their classes: COCO's JSON, folders of Pascal VOC's XML, folders of YOLO's texts.

The classes of the objects of an image are its labels, unless a label file or a member of the sample gives its label.
"""

from pathlib import Path

from pipeline.data.sources.box_formats import Form
from pipeline.data.sources.box_names import WHERE, BoxFile
from pipeline.data.sources.boxes_coco import read_coco
from pipeline.data.sources.boxes_table import read_table
from pipeline.data.sources.boxes_voc import read_voc
from pipeline.data.sources.boxes_yolo import read_yolo
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.objects import is_url
from pipeline.errors import ConfigError


def read_described(location: str, classes: ClassTable, form: Form) -> BoxFile | None:
    """Read boxes with their classes, by image; None for the two kinds of CSV that `load_annotations` knows.

    Raises:
        ConfigError: the file is none of the known kinds, its classes are unknown, or it contradicts itself.
        StoreError: its store cannot be reached.
    """
    if location.lower().endswith(".json"):
        return read_coco(location, classes)
    if is_url(location) or not Path(location).is_dir():
        table = read_table(location, form)
        return None if table is None else BoxFile(table)
    files = [path for path in sorted(Path(location).rglob("*")) if not path.name.startswith(".")]
    if xml := [path for path in files if path.suffix.lower() == ".xml"]:
        return read_voc(Path(location), xml, classes)
    if texts := [path for path in files if path.suffix.lower() == ".txt"]:
        return read_yolo(Path(location), texts, classes)
    raise ConfigError.one(WHERE, f"'{location}' contains no annotation", "expected .xml of Pascal VOC or .txt of YOLO")
