"""Suspicions put to the model: images are read once, the model is loaded once, every detector asks its questions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.audit import patches, properties
from pipeline.audit.background import apart_from_others, emptied
from pipeline.audit.findings import ENOUGH, Finding
from pipeline.audit.maps import Maps
from pipeline.audit.tables import class_name
from pipeline.audit.values import Flags, Place, Values
from pipeline.errors import CamatlasError, first_line
from pipeline.maps.codec import FloatArray
from pipeline.results.query import Run
from pipeline.results.rerun import RunModel, as_pixels
from pipeline.results.source_images import Original, originals

MOST_SHOWN = 20
_ASKED = "Patches and colours, and the control of what is found of surroundings"
"""What takes the model itself."""


class Interventions:
    """The pictures that the detectors and the page need, and the model where it is there.

    Attributes:
        pictures: by shard and image key; those that are gone are left out.
        unchecked: what could not be asked, and why.
    """

    def __init__(
        self, run: Run, values: Values, maps: Maps, methods: Sequence[str], also: set[Place], *, ask_model: bool
    ) -> None:
        self.run, self.values = run, values
        self.suspects = patches.suspects(values, maps, methods)
        self.sample = properties.sample(values)
        self.own = {suspect.answer: patches.wanted(values, suspect) for suspect in self.suspects}
        places = {*also, *self.sample, *(place for own in self.own.values() for place in own)}
        self.pictures: dict[Place, Original] = dict(originals(run.manifest, sorted(places)))
        self.rows = {place: row for row, place in enumerate(values.places) if place in places}
        self.unchecked: list[str] = []
        if len(self.pictures) < len(places):
            lost = len(places) - len(self.pictures)
            self.unchecked.append(f"{lost} of {len(places)} originals are not where the run found them.")
        self.rerun = self._model() if ask_model else None
        if not ask_model:
            self.unchecked.append(f"{_ASKED}: the model was not to be asked (--no-model).")
        self.sampled = [place for place in self.sample if place in self.pictures]
        self.answers_B = values.predicted_I[[self.rows[place] for place in self.sampled]]
        self.held_out_B = self._held_out(self.sampled)
        sizes_B2 = values.sizes_I2[[self.rows[place] for place in self.sampled]]
        measured = properties.measured(map(self._pixels, self.sampled), sizes_B2)
        self.associations = properties.associations(measured, self.answers_B, self.held_out_B)

    def findings(self) -> list[Finding]:
        """Put every suspicion to the model."""
        if self.rerun is None:
            return []
        return [*self._patches(self.rerun), *self._colours(self.rerun)]

    def confirmed(self, found: list[Finding]) -> list[Finding]:
        """Hold findings about surroundings against emptied pictures of other classes, where the model can be asked."""
        if not found or self.rerun is None:
            return found
        places = [place for place in self.sampled if self.pictures[place].boxes_xyxy]
        answers_B = self.values.predicted_I[[self.rows[place] for place in places]]
        if any(np.count_nonzero(answers_B != int(one.subject)) < ENOUGH for one in found):
            self.unchecked.append("Surroundings: too few pictures of other classes with boxes are there for a control.")
        if not places:
            return found
        fill_C = self.rerun.normalisation.mean
        said_BN = self.rerun.confidences(np.stack([emptied(self.pictures[place], fill_C) for place in places]))
        return [kept for one in found if (kept := apart_from_others(one, said_BN, answers_B))]

    def associated(self) -> list[dict[str, Any]]:
        """Give the strongest properties of classes; they claim nothing."""
        strongest = [row for row in self.associations if row.p < 0.01][:MOST_SHOWN]
        return [properties.to_json(row, class_name(self.run, row.answer)) for row in strongest]

    def _model(self) -> RunModel | None:
        try:
            return RunModel(self.run)
        except CamatlasError as error:
            self.unchecked.append(f"{_ASKED}: the model could not be asked ({first_line(error)}).")
            return None

    def _patches(self, rerun: RunModel) -> Iterator[Finding]:
        for suspect in self.suspects:
            own = [place for place in self.own[suspect.answer] if place in self.pictures]
            others = self._with(self.answers_B != suspect.answer)
            others = others[:: max(1, -(-len(others) // max(1, len(own))))]  # as many, of every class
            pixels = self._stacked(own), self._held_out(own), self._stacked(others)
            evidence = patches.tried(suspect, *pixels, rerun)
            found = evidence and patches.finding(suspect, evidence, class_name(self.run, suspect.answer))
            if found:
                yield found

    def _colours(self, rerun: RunModel) -> Iterator[Finding]:
        for association in properties.colour_suspects(self.associations):
            mine_B = self.answers_B == association.answer
            mean_C = np.mean([self._pixels(place).mean((0, 1)) for place in self._with(~mine_B)], axis=0)
            own_BHWC = self._stacked(self._with(mine_B))
            changed = properties.tried(association.answer, own_BHWC, self.held_out_B[mine_B], mean_C, rerun)
            found = changed and properties.finding(association, changed, class_name(self.run, association.answer))
            if found:
                yield found

    def _with(self, chosen_B: Flags) -> list[Place]:
        """Give some of the sampled images."""
        return [place for place, chosen in zip(self.sampled, chosen_B, strict=True) if chosen]

    def _held_out(self, places: Sequence[Place]) -> Flags:
        return self.values.held_out_I[[self.rows[place] for place in places]]

    def _pixels(self, place: Place) -> FloatArray:
        return as_pixels(self.pictures[place])

    def _stacked(self, places: Sequence[Place]) -> FloatArray:
        return np.stack(list(map(self._pixels, places))) if places else np.zeros((0, 1, 1, 3), np.float32)
