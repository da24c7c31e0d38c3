"""Exports a run for Renumics Spotlight: `frame.parquet`, and `dtype.json` with the type of each column.

    spotlight.show("DEST/frame.parquet", dtype=json.load(open("DEST/dtype.json")))

One row is one image and one explained class: the picture with its boxes, one overlay for each method, metrics, classes.
"""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.export.cases import Columns, ExportCase, Pictures, cases, class_name, correct_predictions, write_pictures
from pipeline.results.query import Run, decode_row

_FACTS = {
    "image": "Image", "image_key": "str", "shard": "str", "label": "Category", "predicted": "Category",
    "correct": "bool", "confidence": "float", "explained": "Category", "explained_confidence": "float",
    "target_rule": "Category",
}  # fmt: skip
"""Spotlight's types of the columns that are not of a method or metric."""

_STORED = {"Image": pa.binary(), "bool": pa.bool_(), "float": pa.float32()}
_ROWS = 256
"""Rows in a row group."""


def write_spotlight(run: Run, folder: Path) -> list[str]:
    """Write the frame, which contains all pictures, and its data types."""
    columns = Columns.of(run, tuple(_FACTS))
    dtypes = (
        _FACTS | dict.fromkeys(columns.heatmaps.values(), "Image") | dict.fromkeys(columns.numbers.values(), "float")
    )
    (folder / "dtype.json").write_text(json.dumps(dtypes, indent=1), encoding="utf-8")
    schema = pa.schema([(name, _STORED.get(dtype, pa.string())) for name, dtype in dtypes.items()])
    with tempfile.TemporaryDirectory(dir=folder) as aside, pq.ParquetWriter(folder / "frame.parquet", schema) as writer:
        pictures = write_pictures(run, Path(aside, "pictures"))
        correct, rows = correct_predictions(run), list[dict[str, Any]]()
        for case in cases(run):
            rows.append(_row(run, case, columns, pictures) | {"correct": correct.get(case.place)})
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, schema))
    return pictures.notes


def _row(run: Run, case: ExportCase, columns: Columns, pictures: Pictures) -> dict[str, Any]:
    facts = case.facts
    names = {name: class_name(run.manifest, facts[name]) for name in ("label", "predicted", "target")}
    return {
        "image_key": case.place[1],
        "shard": case.place[0],
        "label": names["label"] or "",  # Spotlight sorts categories, and cannot sort None
        "predicted": names["predicted"] or "",
        "confidence": facts["confidence"],
        "explained": names["target"],
        "explained_confidence": facts["target_confidence"],
        "target_rule": facts["target_rule"],
        **_drawn(case, columns, pictures),
        **columns.values(case),
    }


def _drawn(case: ExportCase, columns: Columns, pictures: Pictures) -> dict[str, bytes]:
    from pipeline.maps.pictures import boxed, overlay  # imports torch, which tables do not need

    with Image.open(pictures.path(case.place)) as opened:
        picture = opened.convert("RGB")
    maps = {columns.heatmaps[method]: overlay(picture, decode_row(row)) for method, row in case.rows.items()}
    shown = {"image": boxed(picture, pictures.boxes.get(case.place)), **maps}
    return {name: _jpeg(image) for name, image in shown.items()}


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    return data.getvalue()
