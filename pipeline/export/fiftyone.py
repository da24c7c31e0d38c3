"""Exports a run as a FiftyOne dataset on disk.

Open it with `fiftyone.Dataset.from_dir(DEST, dataset_type=fiftyone.types.FiftyOneDataset)`.

One sample is one image and one explained class. Its fields: `ground_truth`, `predictions` and `explained`
(classifications; numbers for raw outputs), `boxes` (detections), `heatmap_METHOD` (heat maps at grid resolution, which
the app enlarges) and `METRIC_METHOD` (numbers). The layout has no `version`, so that FiftyOne infers the schema itself.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.sources.shards import Boxes
from pipeline.export.cases import Columns, ExportCase, Pictures, cases, class_name, finite, write_pictures
from pipeline.maps.codec import FloatArray
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run, decode_row

_RESERVED = (
    "id", "filepath", "tags", "metadata", "media_type", "created_at", "last_modified_at", "image_key", "shard",
    "target_rule", "ground_truth", "predictions", "explained", "boxes",
)  # fmt: skip
"""Fields of FiftyOne, and our fields that are not of a method or metric."""

Fields = dict[str, Any]


def write_fiftyone(run: Run, folder: Path) -> list[str]:
    """Write pictures, heat maps and the two JSON files that describe them."""
    columns = Columns.of(run, _RESERVED)
    pictures = write_pictures(run, folder / "data")
    for name in columns.heatmaps.values():
        (folder / "fields" / name).mkdir(parents=True)
    with (folder / "samples.json").open("w", encoding="utf-8") as file:
        file.write('{"samples": [')
        for number, case in enumerate(cases(run)):
            sample = _sample(run, case, pictures) | columns.values(case) | _heatmaps(case, number, columns, folder)
            present = {name: value for name, value in sample.items() if value is not None}
            file.write((",\n" if number else "\n") + json.dumps(present, ensure_ascii=False, allow_nan=False))
        file.write("\n]}\n")
    about = {"run_id": run.manifest.run_id, "model": run.manifest.identity.model}
    metadata = {"name": "camatlas", "media_type": "image", "info": {"camatlas": about}}
    (folder / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return pictures.notes


def _sample(run: Run, case: ExportCase, pictures: Pictures) -> Fields:
    facts = case.facts
    label, predicted, target = (class_name(run.manifest, facts[name]) for name in ("label", "predicted", "target"))
    path = pictures.path(case.place)
    return {
        "filepath": f"{path.parent.name}/{path.name}",
        "tags": [],
        "shard": case.place[0],
        "image_key": case.place[1],
        "target_rule": facts["target_rule"],
        **_known(run, facts, label, predicted),
        "explained": _classified(target, facts["target_confidence"]),
        "boxes": _detections(pictures.boxes.get(case.place), label, path),
    }


def _known(run: Run, facts: Fields, label: str | None, predicted: str | None) -> Fields:
    """Return label and prediction: classes, or the numbers of raw outputs."""
    if OutputKind.of(run.manifest).has_confidences:
        return {"ground_truth": _classified(label), "predictions": _classified(predicted, facts["confidence"])}
    return {"ground_truth": _value(facts["label"]), "predictions": _value(facts["target_logit"])}


def _value(number: float | None) -> Fields | None:
    return None if number is None else {"_cls": "Regression", "value": finite(number)}


def _classified(label: str | None, confidence: float | None = None) -> Fields | None:
    return None if label is None else {"_cls": "Classification", "label": label, "confidence": finite(confidence)}


def _detections(boxes: Boxes | None, label: str | None, picture: Path) -> Fields | None:
    """Convert boxes to shares of the picture's size: left, top, width, height."""
    if boxes is None:
        return None
    with Image.open(picture) as opened:
        width, height = opened.size
    detections = [
        {
            "_cls": "Detection",
            "label": label,
            "bounding_box": [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
        }
        for x0, y0, x1, y1 in boxes
    ]
    return {"_cls": "Detections", "detections": detections}


def _heatmaps(case: ExportCase, number: int, columns: Columns, folder: Path) -> Fields:
    """Write the maps of one case as grey PNGs, each scaled to [0, 255]."""
    fields = {}
    for method, row in case.rows.items():
        path = f"fields/{columns.heatmaps[method]}/{number:08d}.png"
        Image.fromarray(_grey(decode_row(row))).save(folder / path)
        fields[columns.heatmaps[method]] = {"_cls": "Heatmap", "map_path": path, "range": [0, 255]}
    return fields


def _grey(map_uv: FloatArray) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    low, span = float(map_uv.min()), float(map_uv.max()) - float(map_uv.min())
    scaled = (map_uv.astype(np.float64) - low) / span if span > 0 else np.zeros(map_uv.shape)
    return np.rint(scaled * 255).astype(np.uint8)
