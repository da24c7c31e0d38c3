"""The picture of each finding: the image with its region and control, examples of wrong labels, or maps of a method."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.audit.findings import Finding
from pipeline.audit.interventions import Interventions
from pipeline.audit.maps import Maps
from pipeline.audit.patch_regions import elsewhere
from pipeline.audit.statistics import Indices
from pipeline.audit.tables import class_name
from pipeline.audit.values import Flags, Place, Values
from pipeline.results.query import Run
from pipeline.results.rerun import as_pixels

_WRONG = """
SELECT shard, image_key, label, predicted, confidence FROM images WHERE shard = ? AND NOT correct AND maps > 0
ORDER BY confidence DESC, image_key LIMIT 4
"""
_FAILED = """
SELECT shard, image_key AS example, error_stage, error_code, error_detail AS detail FROM failures
WHERE ? IN ('', shard) ORDER BY error_stage = 'shard' DESC, shard, image_key LIMIT 4
"""


def label_examples(run: Run, findings: Sequence[Finding]) -> dict[str, list[dict[str, Any]]]:
    """Choose the most confident wrong predictions of each shard with wrong labels; they are read with the others."""
    shards = [finding.subject for finding in findings if finding.kind == "shard_labels"]
    chosen = {shard: run.arrow(_WRONG, [shard]).to_pylist() for shard in shards}
    for row in (row for rows in chosen.values() for row in rows):
        row["label_name"], row["predicted_name"] = (class_name(run, row.pop(name)) for name in ("label", "predicted"))
    return chosen


class Exhibits:
    """Makes the pictures of findings.

    Args:
        run: the run.
        values: its values.
        maps: its maps.
        interventions: holds the original images.
        labels: the examples of `label_examples`.
    """

    def __init__(
        self,
        run: Run,
        values: Values,
        maps: Maps,
        interventions: Interventions,
        labels: Mapping[str, list[dict[str, Any]]],
    ) -> None:
        self.run, self.values, self.maps, self.interventions, self.labels = run, values, maps, interventions, labels
        self.rows = interventions.rows

    def picture(self, finding: Finding) -> dict[str, Any] | None:
        """Return what the page shows beside a finding; None where there is nothing to show."""
        makers = {
            "watermark": self._region, "background": self._object, "colour": self._colour,
            "shard_labels": self._labels, "method": self._maps, "shard_failures": self._failed,
            "failures": self._failed,
        }  # fmt: skip
        maker = makers.get(finding.kind)
        return None if maker is None else maker(finding)

    def _examples(self, finding: Finding, count: int) -> list[dict[str, Any]]:
        """Choose images of the class of a finding that could be read, of the held-out half first."""
        index = int(finding.subject)
        readable = [place for place in self.interventions.pictures if place in self.rows]
        mine = [place for place in readable if self.values.predicted_I[self.rows[place]] == index]
        if finding.kind == "background":
            mine = [place for place in mine if self.interventions.pictures[place].boxes_xyxy]
        mine.sort(key=lambda place: (not self.values.held_out_I[self.rows[place]], place))
        return [self._image(self.rows[place]) for place in mine[:count]]

    def _image(self, row: int) -> dict[str, Any]:
        place = self.values.places[row]
        label, predicted = int(self.values.labels_I[row]), int(self.values.predicted_I[row])
        return {
            "shard": place[0], "image_key": place[1], "predicted_name": class_name(self.run, predicted),
            "label_name": class_name(self.run, label) if label >= 0 else None,
            "confidence": float(self.values.confidences_I[row]),
        }  # fmt: skip

    def _region(self, finding: Finding) -> dict[str, Any]:
        region_uv = self.interventions.regions[int(finding.subject)]
        return {
            "what": "region", "images": self._examples(finding, 3),
            "region": _cells(region_uv), "control": _cells(elsewhere(region_uv)),
        }  # fmt: skip

    def _object(self, finding: Finding) -> dict[str, Any] | None:
        examples = self._examples(finding, 1)
        if not examples:
            return None
        mean = self.run.manifest.identity.data["preprocess"].get("mean") or (0.5,)
        fill = [round(255 * min(1.0, max(0.0, float(value)))) for value in mean][:3]
        return {"what": "object", "images": examples, "fill": fill if len(fill) == 3 else fill[:1] * 3}

    def _colour(self, finding: Finding) -> dict[str, Any] | None:
        examples = self._examples(finding, 1)
        means = dict(self._means())
        others = [mean for place, mean in means.items() if self._predicted(place) != int(finding.subject)]
        if not examples or not others:
            return None
        place = (examples[0]["shard"], examples[0]["image_key"])
        shift = np.mean(others, axis=0) - as_pixels(self.interventions.pictures[place]).mean((0, 1))
        values = [float(value) for value in shift]
        return {"what": "colour", "images": examples, "shift": values if len(values) == 3 else values[:1] * 3}

    def _means(self) -> Iterator[tuple[Place, Any]]:
        for place in self.interventions.sampled:
            yield place, as_pixels(self.interventions.pictures[place]).mean((0, 1))

    def _predicted(self, place: Place) -> int:
        return int(self.values.predicted_I[self.rows[place]])

    def _labels(self, finding: Finding) -> dict[str, Any]:
        return {"what": "labels", "images": self.labels.get(finding.subject, [])}

    def _maps(self, finding: Finding) -> dict[str, Any]:
        """Return the mean map of a method, and its maps of a few images."""
        method = finding.subject
        rows = _spread(len(self.values), 400)
        heat_Buv = self.maps.consensus([method], rows)
        chosen = [self.rows[place] for place in self.interventions.pictures if place in self.rows][:3]
        chosen = chosen or list(range(min(3, len(self.values))))
        maps_Buv = self.maps.consensus([method], np.array(chosen, np.int64))
        return {
            "what": "maps", "method": method, "mean_map": _cells(heat_Buv.mean(0)),
            "images": [
                {**self._image(row), "map": _cells(map_uv)} for row, map_uv in zip(chosen, maps_Buv, strict=True)
            ],
        }  # fmt: skip

    def _failed(self, finding: Finding) -> dict[str, Any]:
        return {"what": "failures", "images": [], "rows": self.run.arrow(_FAILED, [finding.subject]).to_pylist()}


def _spread(images: int, most: int) -> Indices:
    rows: Indices = np.arange(images)[:: max(1, -(-images // most))]
    return rows


def _cells(map_uv: Flags | Any) -> list[list[float]]:  # noqa: ANN401 - numpy
    return [[round(float(value), 3) for value in row] for row in map_uv]
