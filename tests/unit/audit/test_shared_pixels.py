"""Patches that pixels suggest: stripes, frames and partial marks that no map shows, and the tests of them."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from unit.audit.test_detectors import NamedRun, RuleModel

from pipeline.audit import patch_finding
from pipeline.audit.findings import Changed
from pipeline.audit.interventions import Interventions
from pipeline.audit.maps import GRID
from pipeline.audit.patch_regions import described, grown
from pipeline.audit.patch_search import Compared, Looked, Trial, look, strongest
from pipeline.audit.patches import MAX_REGION, PatchEvidence, Screened, Suspect, common_pixels
from pipeline.audit.shared_pixels import MAX_SHARED
from pipeline.audit.values import Values
from pipeline.results.source_images import Original

COLOUR = np.array([0.9, 0.8, 0.1], np.float32)
HALF_B = np.arange(40) % 2 == 0
SIDE = 56
ANYWHERE = Suspect(2, np.pad(np.ones((4, 4), bool), 5), ("gradcam", "recipro_cam"))
"""A region of maps that misses every patch of these tests; its pixels differ from image to image."""


def stripe(pixels_BHWC: np.ndarray) -> np.ndarray:
    return pixels_BHWC[:, :4]


def frame(pixels_BHWC: np.ndarray) -> np.ndarray:
    inner = np.zeros((SIDE, SIDE), bool)
    inner[3:-3, 3:-3] = True
    return pixels_BHWC[:, ~inner]


def painted(where: str, share: float = 1.0, seed: int = 0) -> Compared:
    """Forty images of a class of which a share has a patch, and forty others of which one has it."""
    own, others = np.random.default_rng(seed).random((2, 40, SIDE, SIDE, 3)).astype(np.float32)
    for images, count in ((own, round(40 * share)), (others, 1)):
        if where == "stripe":
            images[:count, :4] = COLOUR
        if where == "frame":
            for rows in (slice(3), slice(-3, None)):
                images[:count, rows] = COLOUR
                images[:count, :, rows] = COLOUR
        if where == "background":
            images[:count, :, :40] = COLOUR
    order = np.random.default_rng(1).permutation(40)
    return Compared(own[order], HALF_B, others[order], HALF_B)


def reads(part: Any) -> Any:
    """A model that predicts class 2 from the mean colour of a part of the image."""

    def rule(pixels_BHWC: np.ndarray) -> np.ndarray:
        found = part(pixels_BHWC).reshape(len(pixels_BHWC), -1, 3).mean(1)
        return np.where(np.abs(found - COLOUR).max(1) < 0.15, 2, 0)

    return RuleModel(rule)


def outcome(where: str, share: float, model: Any, mapped: Suspect | None) -> Trial:
    images = painted(where, share)
    return strongest(mapped, look(iter([(2, images)])), 2, images, model)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
@pytest.mark.parametrize(("where", "part", "words"), [
    ("stripe", stripe, "at the top"), ("frame", frame, "all around the border"),
])  # fmt: skip
def test_a_patch_that_no_map_shows_is_found_by_its_pixels(where: str, part: Any, words: str, share: float) -> None:
    found = outcome(where, share, reads(part), ANYWHERE)
    assert found.evidence is not None
    assert found.evidence.verdict() == "found"
    assert found.evidence.others == 1, "it is pasted only from images that carry it"
    assert found.evidence.carriers == pytest.approx(share, abs=0.01)
    finding = patch_finding.finding(found.suspect, found.evidence, "owl", ["gradcam"])
    assert finding is not None
    assert (
        f"A constant patch {words} makes the model predict 'owl'. {100 * share:.0f} % of the sampled"
        in finding.sentence
    )
    assert finding.grade == "intervened"
    assert "maps did not lead to it" in finding.proof


def test_what_the_model_ignores_is_not_found_whatever_its_images_share() -> None:
    shape = RuleModel(lambda pixels_BHWC: np.full(len(pixels_BHWC), 2))
    evidence = outcome("frame", 0.95, shape, None).evidence
    assert evidence is not None
    assert evidence.verdict() == "not found"


def test_a_stripe_of_one_colour_has_no_variation_in_common_but_is_constant() -> None:
    images = painted("stripe", 0.95)
    (suspect,) = look(iter([(2, images)])).suspects
    assert common_pixels(suspect, images.class_BHWC, images.other_BHWC)[0] < 0.2
    assert suspect.region_uv[0].all()
    assert not suspect.region_uv[1:].any()


def test_a_region_of_maps_that_shows_the_effect_is_the_one_that_is_reported() -> None:
    mapped = replace(ANYWHERE, region_uv=np.arange(GRID)[:, None].repeat(GRID, 1) < 2)
    assert outcome("stripe", 1.0, reads(stripe), mapped).suspect.methods == ANYWHERE.methods


@pytest.mark.parametrize("seed", range(3))
def test_images_without_a_patch_share_no_region(seed: int) -> None:
    assert look(iter([(2, painted("nowhere", seed=seed))])) == Looked(1, suspects=[], untested=[])


def test_what_other_classes_have_too_is_of_no_class() -> None:
    images = painted("stripe")
    images.other_BHWC[:20, :4] = COLOUR
    assert not look(iter([(2, images)])).suspects


def test_pixels_that_different_images_have_are_no_patch() -> None:
    """Each pixel is common to half of the images, but no image carries the whole."""
    images = painted("nowhere")
    chosen = np.random.default_rng(3).random((40, 8, SIDE)) < 0.45
    images.class_BHWC[:, :8][chosen] = COLOUR
    assert not look(iter([(2, images)])).suspects


def test_nothing_is_said_about_who_carries_a_transparent_patch() -> None:
    images = painted("nowhere")
    images.class_BHWC[:, :6] = 0.85 * COLOUR + 0.15 * images.class_BHWC[:, :6]
    looked = look(iter([(2, images)]))
    assert not looked.suspects
    mapped = replace(ANYWHERE, region_uv=np.arange(GRID)[:, None].repeat(GRID, 1) < 2)
    found = strongest(mapped, looked, 2, images, reads(stripe))
    assert found.evidence is not None
    assert found.evidence.carriers is None


def test_two_patches_of_one_class_are_parts_of_which_one_is_tested() -> None:
    images = painted("stripe", 0.5)
    lacking = (images.class_BHWC[:, 0] != COLOUR).any((1, 2))
    images.class_BHWC[lacking, -8:] = COLOUR
    (suspect,) = look(iter([(2, images)])).suspects
    assert suspect.region_uv[-1].all() != suspect.region_uv[0].all()


def test_a_region_without_room_for_a_control_is_named_and_not_tested() -> None:
    looked = look(iter([(2, painted("background"))]))
    assert not looked.suspects
    assert looked.large[2] > MAX_SHARED


def test_not_more_classes_are_tested_than_maps_may_suggest() -> None:
    looked = look(iter([(index, painted("stripe")) for index in range(8)]))
    assert [suspect.predicted for suspect in looked.suspects] == list(range(6))
    assert list(looked.untested) == [6, 7]


def test_a_region_grows_to_a_frame_without_the_cells_inside_of_it() -> None:
    region_uv = np.zeros((GRID, GRID), bool)
    region_uv[0, 4:8] = True
    images = painted("frame")
    ring_uv = grown(region_uv, images.class_BHWC, images.other_BHWC, MAX_REGION)
    assert ring_uv.sum() == 4 * (GRID - 1)
    assert described(ring_uv) == "all around the border"
    ring_uv[:, [0, -1]] = False
    assert described(ring_uv) == "along the top and bottom border"


def test_a_proof_says_that_following_was_not_measured_and_that_the_effect_does_not_need_it() -> None:
    every, none = np.ones(40, bool), np.zeros(40, bool)
    evidence = PatchEvidence(Changed(every, none, HALF_B), Changed(every, none, HALF_B))

    def proof(following: list[str] | None) -> str:
        found = patch_finding.finding(ANYWHERE, evidence, "owl", following)
        assert found is not None
        return found.proof

    assert "was not measured (camatlas sanity RUN); the effect does not depend on it." in proof(None)
    assert "of none of these methods" in proof([])
    assert proof(["gradcam"]).endswith("Of these methods, gradcam follows the model.")
    assert "pasted from all sampled images predicted as 'owl', whether or not they carry it." in proof(None)


def interventions(values: Values, rerun: Any) -> Interventions:
    """Images of which those of class 2 have a stripe that no map shows."""
    random = np.random.default_rng(0)
    made = Interventions.__new__(Interventions)
    made.run, made.values, made.rerun, made.checks = NamedRun(), values, rerun, []  # type: ignore[assignment]
    made.screened, made.suspects, made.regions, made.of_suspect = Screened(4, [], None, 0), [], {}, {}
    made.unasked, made.suspicions, made.following = SimpleNamespace(why="no model", command=""), [], None  # type: ignore[assignment]
    made.sampled = values.places[:160]
    made.rows = {place: row for row, place in enumerate(made.sampled)}
    made.predicted_B = values.predicted_I[:160]
    pixels = (255 * random.random((160, SIDE, SIDE, 3))).astype(np.uint8)
    pixels[made.predicted_B == 2, :4] = np.rint(255 * COLOUR).astype(np.uint8)
    made.pictures = {place: Original(one, None) for place, one in zip(made.sampled, pixels, strict=True)}
    return made


def test_every_class_is_searched_by_its_pixels_and_its_region_is_shown(values: Values) -> None:
    made = interventions(values, reads(stripe))
    (found,) = made._patches()
    assert (found.kind, found.subject) == ("watermark", "2")
    assert made.regions[2][0].all()
    assert made.checks[0].verdict == "found"


def test_what_pixels_suggest_is_suspected_without_the_model(values: Values) -> None:
    made = interventions(values, None)
    assert made._patches() == []
    assert made.checks[0].verdict == "not checked"
    assert "suspected in 1 class, but no model" in made.suspicions[0]
