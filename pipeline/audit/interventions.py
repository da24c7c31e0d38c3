"""Suspicions put to the model: images are read once, the model is loaded once, every detector asks its questions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.audit import patches, properties
from pipeline.audit.findings import Finding
from pipeline.audit.maps import Maps
from pipeline.audit.tables import class_name
from pipeline.audit.values import Flags, Place, Values
from pipeline.codec import FloatArray
from pipeline.errors import CamatlasError, first_line
from pipeline.originals import Original, originals
from pipeline.query import Run
from pipeline.rerun import Rerun, as_pixels

MOST_SHOWN = 20


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
            self.unchecked.append("Patches and colours: the model was not to be asked (--no-model).")
        sampled = [place for place in self.sample if place in self.pictures]
        self.answers_B = values.predicted_I[[self.rows[place] for place in sampled]]
        self.held_out_B = self._held_out(sampled)
        self.pixels = [as_pixels(self.pictures[place]) for place in sampled]
        self.associations = properties.associations(
            properties.measured(self.pixels, values.sizes_I2[[self.rows[place] for place in sampled]]),
            self.answers_B, self.held_out_B,
        )  # fmt: skip

    def findings(self) -> list[Finding]:
        """Put every suspicion to the model."""
        if self.rerun is None:
            return []
        return [*self._patches(self.rerun), *self._colours(self.rerun)]

    def associated(self) -> list[dict[str, Any]]:
        """Give the strongest properties of classes; they claim nothing."""
        strongest = [row for row in self.associations if row.p < 0.01][:MOST_SHOWN]
        return [properties.to_json(row, class_name(self.run, row.answer)) for row in strongest]

    def _model(self) -> Rerun | None:
        try:
            return Rerun(self.run)
        except CamatlasError as error:
            self.unchecked.append(f"Patches and colours: the model could not be asked ({first_line(error)}).")
            return None

    def _patches(self, rerun: Rerun) -> Iterator[Finding]:
        for suspect in self.suspects:
            own = [place for place in self.own[suspect.answer] if place in self.pictures]
            others_BHWC = self._stacked(
                [p for p, a in zip(self.pixels, self.answers_B, strict=True) if a != suspect.answer]
            )
            own_BHWC = self._stacked([as_pixels(self.pictures[place]) for place in own])
            evidence = patches.tried(suspect, own_BHWC, self._held_out(own), others_BHWC, rerun)
            found = evidence and patches.finding(suspect, evidence, class_name(self.run, suspect.answer))
            if found:
                yield found

    def _colours(self, rerun: Rerun) -> Iterator[Finding]:
        for association in properties.colour_suspects(self.associations):
            mine_B = self.answers_B == association.answer
            others = [p.mean((0, 1)) for p, mine in zip(self.pixels, mine_B, strict=True) if not mine]
            own_BHWC = self._stacked([p for p, mine in zip(self.pixels, mine_B, strict=True) if mine])
            changed = properties.tried(
                association.answer, own_BHWC, self.held_out_B[mine_B], np.mean(others, axis=0), rerun
            )
            found = changed and properties.finding(association, changed, class_name(self.run, association.answer))
            if found:
                yield found

    def _held_out(self, places: Sequence[Place]) -> Flags:
        return self.values.held_out_I[[self.rows[place] for place in places]]

    @staticmethod
    def _stacked(pixels: Sequence[FloatArray]) -> FloatArray:
        return np.stack(pixels) if pixels else np.zeros((0, 1, 1, 3), np.float32)
