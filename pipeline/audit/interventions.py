"""Interventions: reads the images once, loads the model once, and runs every detector that modifies images."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.audit import patches, properties
from pipeline.audit.absent import absent
from pipeline.audit.background import with_control, without_objects
from pipeline.audit.findings import MIN_IMAGES, Finding
from pipeline.audit.maps import Maps
from pipeline.audit.tables import class_name
from pipeline.audit.values import Flags, Place, Values
from pipeline.errors import CamatlasError, first_line
from pipeline.maps.codec import FloatArray
from pipeline.results.one_image import originals_of
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.rerun import RunModel, as_pixels
from pipeline.results.source_images import Original

MAX_SHOWN = 20
_NEEDS_MODEL = "Patches, colours, and the control of findings about surroundings"
"""The checks that run the model."""


class Interventions:
    """Runs the detectors that modify images, and holds the original images that they and the page need.

    Attributes:
        pictures: original images by (shard, image key); those that cannot be read are left out.
        unchecked: the checks that could not be made, and why.
    """

    def __init__(
        self, run: Run, values: Values, maps: Maps, methods: Sequence[str], shown: set[Place], *, ask_model: bool
    ) -> None:
        self.run, self.values = run, values
        kind = OutputKind.of(run.manifest)
        self.suspects = patches.suspects(values, maps, methods)
        self.sample = properties.sample(values) if kind.has_confidences else []
        self.of_suspect = {suspect.predicted: patches.sample(values, suspect) for suspect in self.suspects}
        places = {*shown, *self.sample, *(place for sampled in self.of_suspect.values() for place in sampled)}
        self.pictures: dict[Place, Original] = dict(originals_of(run, places))
        self.rows = {place: row for row, place in enumerate(values.places) if place in places}
        self.unchecked: list[str] = []
        if len(self.pictures) < len(places):
            lost = len(places) - len(self.pictures)
            self.unchecked.append(f"{lost} of {len(places)} original images could not be read from the shards.")
        self.rerun = self._model() if ask_model and kind.has_confidences else None
        if not kind.has_confidences:
            self.unchecked.append(absent(kind)["interventions"])
        elif not ask_model:
            self.unchecked.append(f"{_NEEDS_MODEL}: the model was not loaded (--no-model).")
        self.sampled = [place for place in self.sample if place in self.pictures]
        self.predicted_B = values.predicted_I[[self.rows[place] for place in self.sampled]]
        self.held_out_B = self._held_out(self.sampled)
        sizes_B2 = values.sizes_I2[[self.rows[place] for place in self.sampled]]
        measured = properties.measure(map(self._pixels, self.sampled), sizes_B2)
        self.associations = properties.associations(measured, self.predicted_B, self.held_out_B)

    def findings(self) -> list[Finding]:
        """Test every suspected patch and colour by intervention; empty without the model."""
        if self.rerun is None:
            return []
        return [*self._patches(self.rerun), *self._colours(self.rerun)]

    def confirmed(self, findings: list[Finding]) -> list[Finding]:
        """Drop findings about surroundings that fail their control; without the model, all of them are kept."""
        if not findings or self.rerun is None:
            return findings
        places = [place for place in self.sampled if self.pictures[place].boxes_xyxy]
        predicted_B = self.values.predicted_I[[self.rows[place] for place in places]]
        if any(np.count_nonzero(predicted_B != int(finding.subject)) < MIN_IMAGES for finding in findings):
            self.unchecked.append(
                f"Control of findings about surroundings: fewer than {MIN_IMAGES} images of other classes have boxes."
            )
        if not places:
            return findings
        fill_C = self.rerun.normalisation.mean
        modified_BHWC = np.stack([without_objects(self.pictures[place], fill_C) for place in places])
        confidences_BN = self.rerun.confidences(modified_BHWC)
        return [kept for finding in findings if (kept := with_control(finding, confidences_BN, predicted_B))]

    def associated(self) -> list[dict[str, Any]]:
        """Return the strongest associations between image properties and classes; they are not findings."""
        strongest = [row for row in self.associations if row.p < 0.01][:MAX_SHOWN]
        return [properties.to_json(row, class_name(self.run, row.predicted)) for row in strongest]

    def _model(self) -> RunModel | None:
        try:
            return RunModel(self.run)
        except CamatlasError as error:
            self.unchecked.append(f"{_NEEDS_MODEL}: the model could not be loaded ({first_line(error)}).")
            return None

    def _patches(self, rerun: RunModel) -> Iterator[Finding]:
        for suspect in self.suspects:
            own = [place for place in self.of_suspect[suspect.predicted] if place in self.pictures]
            others = self._chosen(self.predicted_B != suspect.predicted)
            step = -(-len(others) // max(1, len(own)))
            others = others[:: max(1, step)]  # about as many as there are images of the class, from all other classes
            pixels = self._stacked(own), self._held_out(own), self._stacked(others)
            evidence = patches.intervene(suspect, *pixels, rerun)
            finding = evidence and patches.finding(suspect, evidence, class_name(self.run, suspect.predicted))
            if finding:
                yield finding

    def _colours(self, rerun: RunModel) -> Iterator[Finding]:
        for association in properties.colour_suspects(self.associations):
            mine_B = self.predicted_B == association.predicted
            mean_C = np.mean([self._pixels(place).mean((0, 1)) for place in self._chosen(~mine_B)], axis=0)
            class_BHWC = self._stacked(self._chosen(mine_B))
            changed = properties.intervene(association.predicted, class_BHWC, self.held_out_B[mine_B], mean_C, rerun)
            finding = changed and properties.finding(association, changed, class_name(self.run, association.predicted))
            if finding:
                yield finding

    def _chosen(self, chosen_B: Flags) -> list[Place]:
        """Return the chosen images of the sample."""
        return [place for place, chosen in zip(self.sampled, chosen_B, strict=True) if chosen]

    def _held_out(self, places: Sequence[Place]) -> Flags:
        return self.values.held_out_I[[self.rows[place] for place in places]]

    def _pixels(self, place: Place) -> FloatArray:
        return as_pixels(self.pictures[place])

    def _stacked(self, places: Sequence[Place]) -> FloatArray:
        return np.stack(list(map(self._pixels, places))) if places else np.zeros((0, 1, 1, 3), np.float32)
