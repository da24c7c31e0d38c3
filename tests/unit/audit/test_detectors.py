"""Detectors on synthetic data: each reports the planted defect, and nothing without one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.audit import background, patch_finding, patches, properties
from pipeline.audit.findings import Changed, Effect, Finding, ranked
from pipeline.audit.interventions import evenly
from pipeline.audit.maps import GRID, Maps
from pipeline.audit.methods import untrusted, without_controls
from pipeline.audit.patch_regions import grown
from pipeline.audit.values import Values

IMAGES = 400
OTHERS_HELD_OUT_B = np.arange(41) % 2 == 0


class RuleModel:
    """A model whose prediction is a rule on images (B, H, W, C)."""

    def __init__(self, rule: Callable[[np.ndarray], np.ndarray]) -> None:
        self.rule = rule

    def confidences(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[self.rule(pixels_BHWC)]

    def predicted(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        return self.rule(pixels_BHWC)


def maps_with_spot(values: Values, predicted: int, methods: int = 2) -> Maps:
    random = np.random.default_rng(1)
    found = {}
    for method in range(methods):
        heat_Iuv = random.integers(0, 120, (IMAGES, GRID, GRID))
        heat_Iuv[values.predicted_I == predicted, 10:13, 1:5] = 255
        found[f"m{method}"] = heat_Iuv.astype(np.uint8)
    return Maps(found)


def test_a_region_shared_by_the_maps_of_one_prediction_is_suspected(values: Values) -> None:
    (found, *others) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    assert not others
    assert found.predicted == 2
    assert found.methods == ("m0", "m1")
    assert found.region_uv[11, 3]
    assert not found.region_uv[3].any()
    assert patches.suspects(values, maps_with_spot(values, 99), ["m0", "m1"]) == []


def pictures(count: int, *, patch: bool) -> np.ndarray:
    random = np.random.default_rng(count)
    found = random.random((count, 56, 56, 3)).astype(np.float32)
    if patch:
        found[:, 40:52, 4:20] = np.indices((12, 16)).sum(0)[None, ..., None] % 2
    return found


def has_patch(pixels_BHWC: np.ndarray) -> np.ndarray:
    return np.where(np.abs(np.diff(pixels_BHWC[:, 45, 6:18, 0], axis=1)).mean(1) > 0.9, 2, 0)


def test_the_region_of_a_peak_on_a_broad_base_leaves_out_the_base() -> None:
    """Maps are smooth: half of the peak may be reached along a whole side."""
    excess_uv = np.full((GRID, GRID), 0.05, np.float32)
    excess_uv[8:] = 0.45
    excess_uv[10:13, 1:5] = 0.8
    region_uv = patches._region(excess_uv)
    assert region_uv is not None
    assert region_uv[10:13, 1:5].all()
    assert region_uv.mean() <= patches.MAX_REGION
    excess_uv[8:] = 0.75
    assert patches._region(excess_uv) is None, "a whole side is not a patch"


def test_overwriting_confirms_a_patch(values: Values) -> None:
    (suspect,) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    half_B = np.arange(40) % 2 == 0
    own, others = pictures(40, patch=True), pictures(41, patch=False)
    evidence = patches.intervene(suspect, own, half_B, others, OTHERS_HELD_OUT_B, RuleModel(has_patch))  # type: ignore[arg-type]
    assert evidence is not None
    assert evidence.others == 1
    found = patch_finding.finding(suspect, evidence, "owl", ["m0", "m1"])
    assert found is not None
    assert found.control is not None
    assert found.control.value < 0.2
    assert (found.kind, found.subject, found.grade) == ("watermark", "2", "replicated")
    assert found.effect.value == 1
    assert "bottom left" in found.sentence
    alone = patch_finding.finding(suspect, evidence, "owl", ["m0"])
    assert alone is not None
    assert alone.grade == "intervened", "only one of the methods is known to follow the model"


def test_a_patch_that_the_model_ignores_is_not_a_finding(values: Values) -> None:
    (suspect,) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    constant = RuleModel(lambda pixels_BHWC: np.full(len(pixels_BHWC), 2))
    half_B = np.arange(40) % 2 == 0
    own, others = pictures(40, patch=True), pictures(41, patch=False)
    evidence = patches.intervene(suspect, own, half_B, others, OTHERS_HELD_OUT_B, constant)  # type: ignore[arg-type]
    assert evidence is not None
    assert patch_finding.finding(suspect, evidence, "owl") is None


def test_a_region_without_common_pixels_is_not_a_patch(values: Values) -> None:
    (suspect,) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    half_B = np.arange(40) % 2 == 0
    own, others, model = pictures(40, patch=False), pictures(41, patch=False), RuleModel(has_patch)
    assert patches.intervene(suspect, own, half_B, others, OTHERS_HELD_OUT_B, model) is None  # type: ignore[arg-type]


def test_a_region_grows_to_the_constant_pixels_and_to_the_border() -> None:
    """The maps show one cell of a patch of four by four in the corner; one image in ten lacks the patch."""
    random = np.random.default_rng(0)
    own, others = (random.random((count, 56, 56, 3)).astype(np.float32) for count in (20, 30))
    own[2:, :16, :16] = (1, 0, 1)
    region_uv = np.zeros((GRID, GRID), bool)
    region_uv[2, 2] = True
    larger_uv = grown(region_uv, own, others, patches.MAX_REGION)
    assert larger_uv[:4, :4].all()
    assert not larger_uv[6:].any()
    assert (grown(region_uv, others[:15], others[15:], 0.3) == region_uv).all(), "nothing is constant"
    own[:] = 0.5
    assert (grown(region_uv, own, others, 0.3) == region_uv).all(), "whole images are no patch"
    region_uv[1, 2] = True
    assert grown(region_uv, others[:15], others[15:], 0.3)[:2, 2].all(), "the border is one cell away"


def test_a_pasted_patch_that_the_model_does_not_need_is_found(values: Values) -> None:
    """The images of the class have the patch, and something else by which the model knows them."""
    (suspect,) = patches.suspects(values, maps_with_spot(values, 2), ["m0", "m1"])
    own, others = pictures(40, patch=True), pictures(41, patch=False)
    own[:, 0, 0] = 2
    either = RuleModel(lambda pixels_BHWC: np.where(pixels_BHWC[:, 0, 0, 0] > 1, 2, has_patch(pixels_BHWC)))
    evidence = patches.intervene(suspect, own, np.arange(40) % 2 == 0, others, OTHERS_HELD_OUT_B, either)  # type: ignore[arg-type]
    assert evidence is not None
    assert evidence.changed.share() == 0
    found = patch_finding.finding(suspect, evidence, "owl")
    assert found is not None
    assert found.control is not None
    assert (found.effect.value, found.control.value) == (1, 0)
    assert "With the patch overwritten, 0 % of the predictions of 'owl' change" in found.sentence


def test_controls_suggest_nothing() -> None:
    methods = {"gradcam": {"name": "gradcam"}, "noise": {"name": "shuffled_gradcam"}}
    assert without_controls(methods) == ["gradcam"]


@pytest.mark.parametrize(("available", "wanted", "chosen"), [(40, 25, 25), (19, 16, 16), (9, 16, 9), (0, 8, 0)])
def test_as_many_images_are_compared_as_the_test_needs(available: int, wanted: int, chosen: int) -> None:
    places = [("shard", f"{index:02d}") for index in range(available)]
    found = evenly(places, wanted)
    assert (len(set(found)), found) == (chosen, sorted(found))


def tinted(count: int, red: float, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = 0.25 + 0.25 * random.random((count, 20, 20, 3)).astype(np.float32)
    found[..., 0] += red
    return found


def test_a_colour_that_determines_the_prediction_is_found() -> None:
    own, others = tinted(32, 0.3, 0), tinted(96, 0.0, 1)
    predicted_B = np.repeat([1, 0], [32, 96])
    held_out_B = np.arange(128) % 2 == 0
    found = properties.associations(
        properties.measure([*own, *others], np.full((128, 2), 20.0)), predicted_B, held_out_B
    )
    suspects = properties.colour_suspects(found)
    assert {row.predicted for row in suspects} == {0, 1}
    red = RuleModel(lambda pixels_BHWC: (pixels_BHWC[..., 0].mean((1, 2)) > 0.5).astype(int))
    changed = properties.intervene(1, own, held_out_B[:32], others.mean((0, 1, 2)), red)  # type: ignore[arg-type]
    assert changed is not None
    result = properties.finding(next(row for row in suspects if row.predicted == 1), changed, "brick")
    assert result is not None
    assert (result.kind, result.subject, result.grade) == ("colour", "1", "replicated")
    assert result.effect.value == 1
    shape = RuleModel(lambda pixels_BHWC: np.ones(len(pixels_BHWC), int))
    unmoved = properties.intervene(1, own, held_out_B[:32], others.mean((0, 1, 2)), shape)  # type: ignore[arg-type]
    assert unmoved is not None
    assert properties.finding(suspects[0], unmoved, "brick") is None


def test_equal_colours_are_not_suspected() -> None:
    found = properties.associations(
        properties.measure(list(tinted(128, 0.0, 3)), np.full((128, 2), 20.0)),
        np.repeat([1, 0], 64),
        np.arange(128) % 2 == 0,
    )
    assert properties.colour_suspects(found) == []


def test_a_claim_must_hold_on_both_halves_and_beat_its_control() -> None:
    half_B = np.arange(60) < 30
    every, none = np.ones(60, bool), np.zeros(60, bool)
    assert all(Changed(every, none, half_B).holds(half) for half in (False, True))
    assert not Changed(every, every, half_B).holds(True), "the control has the same effect"
    assert not Changed(half_B, none, half_B).holds(False), "only one half shows it"
    assert not Changed(every[:10], none[:10], half_B[:10]).holds(False), "too few images"
    assert not Changed(np.arange(60) % 10 == 0, none, half_B).holds(True), "too few predictions change"


def test_methods_that_ignore_the_model_or_the_image() -> None:
    random = np.random.default_rng(0)
    maps = Maps({
        "varied": random.integers(0, 256, (40, GRID, GRID)).astype(np.uint8),
        "constant": np.broadcast_to(random.integers(0, 256, (GRID, GRID)).astype(np.uint8), (40, GRID, GRID)),
    })  # fmt: skip
    checked = [
        {"method": "varied", "follows": "no", "spearman": 0.97, "low": 0.96, "high": 0.98, "maps": 16},
        {"method": "constant", "follows": "yes", "spearman": 0.1, "low": 0.09, "high": 0.11, "maps": 16},
    ]
    board = [{"method": name, "images": 40, "degenerate": 0.0} for name in maps.by_method]
    findings, checks = untrusted(checked, maps, board, 40)
    assert [(found.subject, found.grade) for found in findings] == [("varied", "intervened"), ("constant", "recorded")]
    assert {check.detector: check.verdict for check in checks} == {"image": "found", "constant": "not found"}
    board[0]["degenerate"] = 0.9
    findings, checks = untrusted([], maps, board, 40)
    assert [found.subject for found in findings] == ["constant", "varied"]
    assert checks[1].verdict == "found"


def with_boxes(values: Values, relies_I: np.ndarray) -> Values:
    columns = [np.where(relies_I, 0.8, 0.1), np.where(relies_I, 0.2, 0.8), np.where(relies_I, 0.3, 0.7)]
    names = ("box_removed_confidence", "box_only_confidence", "energy_in_box")
    return replace(
        values, columns={("predicted", "gradcam", name): place for place, name in enumerate(names)},
        sums_IK=np.stack(columns, 1).astype(np.float32), counts_IK=np.ones((IMAGES, 3), np.float32),
    )  # fmt: skip


class NamedRun:
    """A stand-in for a run that knows only class, metric and method names."""

    class manifest:  # noqa: N801
        @staticmethod
        def class_name(index: int) -> str:
            return ("cat", "dog", "owl", "fox")[index]

        class identity:  # noqa: N801
            metrics = {"energy_in_box": {"name": "energy_in_box"}}  # noqa: RUF012
            methods = {"gradcam": {"name": "gradcam"}}  # noqa: RUF012


def test_a_class_that_relies_on_its_context(values: Values) -> None:
    relies_I = (values.predicted_I == 1) & (np.arange(IMAGES) % 4 < 3)
    right_I = values.correct_I == 1
    (found,) = background._findings(NamedRun(), with_boxes(values, relies_I), right_I, relies_I, ["gradcam"])  # type: ignore[arg-type]
    assert (found.kind, found.subject, found.name, found.grade) == ("background", "1", "dog", "intervened")
    nothing_I = np.zeros(IMAGES, bool)
    assert background._findings(NamedRun(), with_boxes(values, nothing_I), right_I, nothing_I, ["gradcam"]) == []  # type: ignore[arg-type]


def test_recorded_findings_come_first_then_the_largest_effects() -> None:
    def one(grade: str, low: float) -> Finding:
        return Finding("method", str(low), "", "", grade, "", Effect("", low, low, 1, 9), "", "")  # type: ignore[arg-type]

    found = [one("intervened", 0.3), one("recorded", 0.1), one("replicated", 0.9)]
    assert [finding.subject for finding in ranked(found)] == ["0.1", "0.9", "0.3"]
