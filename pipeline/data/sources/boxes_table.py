"""Boxes in a table with one box in each row, and any of the usual headers, such as `filename,xmin,ymin,xmax,ymax`."""

import csv
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import PurePosixPath

from pipeline.data.sources.box_formats import Form, FormatCheck
from pipeline.data.sources.box_names import WHERE
from pipeline.data.sources.manifest_columns import Roles, roles_of
from pipeline.data.sources.manifest_rows import Rows
from pipeline.data.sources.manifest_table import TEXTS, ManifestTable, open_table
from pipeline.data.sources.objects import read_text
from pipeline.data.sources.shards import Described, Entry
from pipeline.data.sources.wrong_rows import WrongRowError
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig

_KNOWN = (("filename", "x0", "y0", "x1", "y1"), ("ImageId", "PredictionString"))
"""Headers of the files that `load_annotations` reads itself."""


def read_table(location: str, form: Form) -> Mapping[str, Described] | None:
    """Read a table of boxes by image; None if `load_annotations` reads it, or it has no columns that are known.

    Raises:
        ConfigError: it cannot be read, has wrong rows, or its boxes contradict their format.
    """
    if PurePosixPath(location).suffix.lower() not in TEXTS or _is_known(location):
        return None
    try:
        with closing(open_table(location, None)) as table:
            data = DataConfig(boxes_format=form.order, boxes_relative=form.relative)
            roles = roles_of(location, table.names, data)
            return None if roles.boxes is None else _read(location, table, roles)
    except ConfigError as error:
        raise ConfigError(
            replace(mistake, where=WHERE) if mistake.where == "data.manifest" else mistake for mistake in error.mistakes
        ) from None


def _is_known(location: str) -> bool:
    header = next(csv.reader(read_text(WHERE, location).splitlines()[:1]), [])
    return any(set(known) <= set(header) for known in _KNOWN)


def _read(location: str, table: ManifestTable, roles: Roles) -> Mapping[str, Described]:
    rows, check = Rows(location, WHERE), FormatCheck(roles.order, relative=roles.relative)
    for number, record in table.rows:
        with rows.collecting(number):
            if isinstance(record, WrongRowError):
                raise record
            name = str(record.get(roles.path) or "")
            rows.add(Entry(name, name, None, None, roles.said(record)))
    rows.raise_if_wrong()
    for name, entry in rows.entries.items():
        check.add(name, entry.said.boxes_xyxy or ())
    check.raise_if_contradicted()
    return {name: entry.said for name, entry in rows.entries.items()}
