"""Interventions: reads the images once, loads the model once, and runs every detector that modifies images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.audit import patch_check, patch_finding, patch_search, patches, properties
from pipeline.audit.absent import absent
from pipeline.audit.background import NAME as CONTEXT
from pipeline.audit.background import Context, control_of, with_control, without_objects, worst_class
from pipeline.audit.background import check as check_context
from pipeline.audit.checked import NO_MODEL, Checked, Unasked, counted, not_checked, not_loaded
from pipeline.audit.findings import MIN_IMAGES, Changed, Effect, Finding
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

MAX_SHOWN, MAX_CONTROLS = 20, 64
_NEEDS_MODEL = "Patches, colours, and the control of findings about context reliance"
"""The checks that run the model."""


class Interventions:
    """Runs the detectors that modify images, and holds the original images that they and the page need.

    Attributes:
        pictures: original images by (shard, image key); those that cannot be read are left out.
        unchecked: the checks that could not be made, and why.
        regions: the tested region of each suspected class.
        checks: the lines of the detectors, once `findings` and `confirmed` have run.
        suspicions: what is suspected and could not be tested without the model, in sentences.
        unasked: why the model was not run, where it was not.

    Args:
        methods: those whose maps may suggest a region: all but controls and those that do not follow the model.
        following: those known to follow the model, whose maps count as evidence; None where this was not measured.
    """

    def __init__(
        self, run: Run, values: Values, maps: Maps, methods: Sequence[str],
        following: Sequence[str] | None, shown: set[Place], *, ask_model: bool, unasked: Unasked = NO_MODEL,
    ) -> None:  # fmt: skip
        self.run, self.values, self.following = run, values, following
        kind = OutputKind.of(run.manifest)
        self.kind, self.checks, self.unasked = kind, list[Checked](), unasked
        self.suspicions: list[str] = []
        self.screened = patches.screen(values, maps, methods)
        self.suspects, self.regions = self.screened.suspects, dict[int, Flags]()
        self.looked = patch_search.Looked()
        self.sample = properties.sample(values) if kind.has_confidences else []
        self.of_suspect = {suspect.predicted: patches.sample(values, suspect) for suspect in self.suspects}
        places = {*shown, *self.sample, *(place for sampled in self.of_suspect.values() for place in sampled)}
        self.pictures: dict[Place, Original] = dict(originals_of(run, places))
        self.rows = {place: row for row, place in enumerate(values.places) if place in places}
        self.unchecked: list[str] = []
        if len(self.pictures) < len(places):
            lost = len(places) - len(self.pictures)
            self.unchecked.append(f"{lost} of {len(places)} original images could not be read from the shards.")
        if not kind.has_confidences:
            self.unchecked.append(absent(kind)["interventions"])
        elif not ask_model:
            self._no_model(unasked)
        self.rerun = self._model() if ask_model and kind.has_confidences else None
        self.sampled = [place for place in self.sample if place in self.pictures]
        self.predicted_B = values.predicted_I[[self.rows[place] for place in self.sampled]]
        self.held_out_B = self._held_out(self.sampled)
        sizes_B2 = values.sizes_I2[[self.rows[place] for place in self.sampled]]
        measured = properties.measure(map(self._pixels, self.sampled), sizes_B2)
        self.properties = properties.Sampled(measured, self.predicted_B, self.held_out_B)
        self.associations = properties.associations(measured, self.predicted_B, self.held_out_B)

    def findings(self) -> list[Finding]:
        """Test every suspected patch and colour by intervention; empty without the model."""
        if not self.kind.has_confidences:
            reason = absent(self.kind)["interventions"].split(": ", 1)[1].rstrip(".")
            self.checks += [not_checked("patch", patch_check.NAME, "context", reason)]
            self.checks += [not_checked("colour", properties.NAME, "properties", reason)]
            return []
        return [*self._patches(), *self._colours()]

    def confirmed(self, context: Context) -> list[Finding]:
        """Drop findings about context reliance that fail their control; without the model, all of them are kept."""
        kept, control = context.findings, None
        if self.rerun is not None and context.tested:
            kept, control = self._controlled(context, self.rerun)
        if not self.kind.has_confidences:
            self.checks.append(not_checked("context", CONTEXT, "context", absent(self.kind)["background"].rstrip(".")))
        else:
            self.checks.append(check_context(self.run, context, control, kept))
        return kept

    def _controlled(self, context: Context, rerun: RunModel) -> tuple[list[Finding], Effect | None]:
        """Remove the objects from images of other classes; without a finding, from a few, for the worst class."""
        places = [place for place in self.sampled if self.pictures[place].boxes_xyxy]
        if not context.findings:
            places = places[:: max(1, -(-len(places) // MAX_CONTROLS))]
        predicted_B = self.values.predicted_I[[self.rows[place] for place in places]]
        if any(np.count_nonzero(predicted_B != int(finding.subject)) < MIN_IMAGES for finding in context.findings):
            self.unchecked.append(
                f"Control of findings about context reliance: fewer than {MIN_IMAGES} images of other classes have "
                "boxes."
            )
        if not places:
            return context.findings, None
        modified_BHWC = np.stack([without_objects(self.pictures[place], rerun.normalisation.mean) for place in places])
        confidences_BN = rerun.confidences(modified_BHWC)
        kept = [kept for one in context.findings if (kept := with_control(one, confidences_BN, predicted_B))]
        worst = worst_class(context)
        return kept, None if worst is None else control_of(worst, confidences_BN, predicted_B)

    def associated(self) -> list[dict[str, Any]]:
        """Return the strongest associations between image properties and classes; they are not findings."""
        strongest = [row for row in self.associations if row.p < 0.01][:MAX_SHOWN]
        return [properties.to_json(row, class_name(self.run, row.predicted)) for row in strongest]

    def _model(self) -> RunModel | None:
        try:
            return RunModel(self.run)
        except CamatlasError as error:
            self._no_model(not_loaded(first_line(error)))
            return None

    def _no_model(self, unasked: Unasked) -> None:
        self.unasked = unasked
        self.unchecked.append(f"{_NEEDS_MODEL}: {unasked.why}.")

    def _patches(self) -> list[Finding]:
        self.looked = patch_search.look(self._pixels_of_classes())
        mapped = {suspect.predicted: suspect for suspect in self.suspects}
        suspected = dict.fromkeys([*mapped, *(suspect.predicted for suspect in self.looked.suspects)])
        if suspected and self.rerun is None:
            self.checks.append(self._suspected("patch", patch_check.NAME, "context", len(suspected)))
            return []
        tried, found = list[patch_check.Tried](), list[Finding]()
        for predicted in suspected if self.rerun else ():
            one, finding = self._patch(mapped.get(predicted), predicted, self.rerun)
            tried.append(one)
            found += [finding] if finding else []
        self.checks.append(self._patch_line(tried))
        return found

    def _patch_line(self, tried: Sequence[patch_check.Tried]) -> Checked:
        """Return the line about patches, with the names of the classes."""
        few = {class_name(self.run, index): images for index, images in self.screened.few.items()}
        large = {class_name(self.run, index): share for index, share in self.looked.large.items()}
        untested = [class_name(self.run, index) for index in self.looked.untested]
        pixels = patch_check.Pixels(self.looked.classes, large, untested)
        name = class_name(self.run, self.screened.of_class)
        return patch_check.check(self.screened, len(self.values), name, tried, few, pixels)

    def _patch(
        self, mapped: patches.Suspect | None, predicted: int, rerun: RunModel | None
    ) -> tuple[patch_check.Tried, Finding | None]:
        """Overwrite the suspected regions of one class, and run the model."""
        name, images = class_name(self.run, predicted), self._images(predicted)
        few = patch_check.Tried(name, len(images.class_BHWC), len(images.other_BHWC), None, None)
        if rerun is None or not images.enough:
            return few, None
        tested = patch_search.strongest(mapped, self.looked, predicted, images, rerun)
        self.regions[predicted] = tested.suspect.region_uv
        evidence = tested.evidence
        finding = None if evidence is None else patch_finding.finding(tested.suspect, evidence, name, self.following)
        return replace(few, pattern=tested.pattern, evidence=evidence), finding

    def _pixels_of_classes(self) -> Iterator[tuple[int, patch_search.Compared]]:
        """Yield the images of each class of which enough were read, one class at a time."""
        for predicted in np.unique(self.predicted_B[self.predicted_B >= 0]):
            images = self._images(int(predicted))
            if images.enough:
                yield int(predicted), images

    def _images(self, predicted: int) -> patch_search.Compared:
        """Stack the images of a class that were read, and images of all other classes."""
        sampled = self.of_suspect.get(predicted) or self._chosen(self.predicted_B == predicted)
        own = [place for place in sampled if place in self.pictures]
        others = self._compared(predicted, self._held_out(own))
        return patch_search.Compared(
            self._stacked(own), self._held_out(own), self._stacked(others), self._held_out(others)
        )

    def _compared(self, predicted: int, held_out_B: Flags) -> list[Place]:
        """Choose images of all other classes: of each half as many as of the class, or as the test needs."""
        others = self._chosen(self.predicted_B != predicted)
        halves = [(half, [place for place in others if self._held_out([place])[0] == half]) for half in (False, True)]
        counts = [max(MIN_IMAGES, int((held_out_B == half).sum())) for half, _ in halves]
        return [place for (_, own), count in zip(halves, counts, strict=True) for place in evenly(own, count)]

    def _colours(self) -> list[Finding]:
        suspects = properties.colour_suspects(self.associations)
        if suspects and self.rerun is None:
            self.checks.append(self._suspected("colour", properties.NAME, "properties", len(suspects)))
            return []
        tried, found = list[tuple[str, Changed]](), list[Finding]()
        for association in suspects if self.rerun else ():
            name = class_name(self.run, association.predicted)
            changed = self._recoloured(association, self.rerun)
            tried += [(name, changed)] if changed else []
            finding = changed and properties.finding(association, changed, name)
            found += [finding] if finding else []
        names = {row.predicted: class_name(self.run, row.predicted) for row in self.associations}
        self.checks.append(properties.check(self.properties, self.associations, names, tried, found))
        return found

    def _recoloured(self, association: properties.Association, rerun: RunModel | None) -> Changed | None:
        """Shift the colour of the images of a class, and run the model."""
        mine_B = self.predicted_B == association.predicted
        mean_C = np.mean([self._pixels(place).mean((0, 1)) for place in self._chosen(~mine_B)], axis=0)
        class_BHWC = self._stacked(self._chosen(mine_B))
        held_out_B = self.held_out_B[mine_B]
        return None if rerun is None else properties.intervene(
            association.predicted, class_BHWC, held_out_B, mean_C, rerun
        )  # fmt: skip

    def _suspected(self, detector: str, name: str, section: str, classes: int) -> Checked:
        """Return the line of a detector whose suspects cannot be tested without the model."""
        why = f"suspected in {counted(classes)}, but {self.unasked.why}"
        line = not_checked(detector, name, section, why, self.unasked.command)
        self.suspicions.append(line.sentence())
        return line

    def _chosen(self, chosen_B: Flags) -> list[Place]:
        """Return the chosen images of the sample."""
        return [place for place, chosen in zip(self.sampled, chosen_B, strict=True) if chosen]

    def _held_out(self, places: Sequence[Place]) -> Flags:
        return self.values.held_out_I[[self.rows[place] for place in places]]

    def _pixels(self, place: Place) -> FloatArray:
        return as_pixels(self.pictures[place])

    def _stacked(self, places: Sequence[Place]) -> FloatArray:
        return np.stack(list(map(self._pixels, places))) if places else np.zeros((0, 1, 1, 3), np.float32)


def evenly(places: Sequence[Place], count: int) -> list[Place]:
    """Choose a number of places, evenly spaced; all of them where there are not more."""
    count = min(count, len(places))
    return [places[index * len(places) // count] for index in range(count)]
