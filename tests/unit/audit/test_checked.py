"""What was checked: every detector says what it measured, whether or not it found anything."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from handmade import RunMaker
from judged import JudgedRun, binary_case

from pipeline.audit import patch_finding, properties
from pipeline.audit.checked import Checked, of_changes
from pipeline.audit.clusters import check as check_clusters
from pipeline.audit.excess import Excess
from pipeline.audit.facts import Audited, audit
from pipeline.audit.findings import Changed, Effect, Finding, ranked
from pipeline.audit.merged import merged, to_json
from pipeline.audit.page import render
from pipeline.audit.patch_check import Pixels, Tried
from pipeline.audit.patch_check import check as check_patch
from pipeline.audit.patches import PatchEvidence, Screened, Suspect
from pipeline.audit.shards import _check_failures, _check_labels
from pipeline.results.query import open_run
from pipeline.storage.checksums import checksummed
from schemas.sanity import SANITY_FOLDER, SANITY_SCHEMA

HALF_B = np.arange(60) < 30
EVERY, NONE, FEW = np.ones(60, bool), np.zeros(60, bool), np.arange(60) % 4 == 0
LOOKED = Pixels(4)
EXCESS = Effect("largest excess of '{name}'", 0.05, 0.02, 0.08, 40)


@pytest.mark.parametrize(
    ("changed", "control", "verdict"),
    [(EVERY, NONE, "found"), (NONE, NONE, "not found"), (EVERY, EVERY, "not found"), (FEW, NONE, "undecided")],
)
def test_changes_are_found_excluded_or_undecided(changed: Any, control: Any, verdict: str) -> None:
    made = Changed(changed, control, HALF_B)
    assert made.verdict() == verdict
    line = of_changes(
        Checked("patch", "A patch", "undecided", "context", 60), [("owl", made)], [], "of {name}", "control"
    )
    assert line.effect is not None
    assert line.control is not None
    assert (line.effect.what, line.effect.images, line.control.images) == ("of owl", 30, 30)
    assert line.effect.value == changed[HALF_B].mean()
    assert line.control.value == control[HALF_B].mean()
    assert bool(line.command) == (verdict == "undecided")


def test_seven_images_do_not_exclude_anything() -> None:
    assert Changed(NONE[:14], NONE[:14], np.arange(14) < 7).verdict() == "undecided"


def test_the_line_of_patches_says_where_the_search_ended() -> None:
    screened = Screened(4, [], EXCESS, 1)
    assert check_patch(screened, 80, "owl", [], {}, LOOKED).verdict == "not found"
    assert (
        check_patch(replace(screened, largest=replace(EXCESS, high=0.2)), 80, "owl", [], {}, LOOKED).verdict
        == "undecided"
    )
    assert check_patch(replace(screened, largest=None), 80, "owl", [], {}, LOOKED).verdict == "not checked"
    other = check_patch(screened, 80, "owl", [Tried("fox", 30, 20, (0.05, 0.04), None)], {}, LOOKED)
    assert (other.verdict, "in 1 class, but" in other.why) == ("not found", True)
    assert other.control is not None
    assert (other.effect and other.effect.value, other.control.value) == (0.05, 0.04)
    unread = check_patch(screened, 80, "owl", [Tried("fox", 0, 20, None, None)], {}, LOOKED)
    assert (unread.verdict, "restore the shards" in unread.command) == ("not checked", True)


def test_the_line_of_patches_shows_the_suspect_nearest_to_a_patch_and_what_a_patch_needs() -> None:
    tried = [Tried("fox", 30, 30, (0.3, 0.29), None), Tried("owl", 30, 30, (0.19, 0.02), None)]
    line = check_patch(Screened(4, [], EXCESS, 1), 80, "owl", tried, {}, LOOKED)
    assert (line.verdict, line.effect and "'owl'" in line.effect.what) == ("not found", True)
    assert line.limit == "a patch needs at least 0.2, and 2.5 times that of other classes"


def test_a_class_that_could_not_be_tested_leaves_the_line_of_patches_undecided() -> None:
    screened = Screened(4, [], EXCESS, 1)
    tested, untested = Tried("fox", 30, 20, (0.05, 0.04), None), Tried("owl", 25, 13, None, None)
    line = check_patch(screened, 80, "owl", [tested, untested], {"cat": 7}, LOOKED)
    assert line.verdict == "undecided"
    assert "a suspected region of 1 class: owl (25, and 13 of other classes); 16 are needed" in line.why
    assert "to search 1 class: cat (7); 8 are needed" in line.why
    assert check_patch(screened, 80, "owl", [untested], {}, LOOKED).verdict == "undecided"
    assert check_patch(screened, 80, "owl", [], {"cat": 7}, LOOKED).verdict == "undecided"
    found = PatchEvidence(Changed(EVERY, NONE, HALF_B), Changed(EVERY, NONE, HALF_B))
    assert (
        check_patch(screened, 80, "owl", [Tried("fox", 60, 60, (0.6, 0.1), found), untested], {}, LOOKED).verdict
        == "found"
    )


def test_a_patch_is_excluded_only_where_pixels_were_compared_and_the_line_says_what_it_excludes() -> None:
    screened, differing = Screened(4, [], EXCESS, 1), [Tried("fox", 30, 20, (0.05, 0.04), None)]
    for tried in ([], differing):
        line = check_patch(screened, 80, "owl", tried, {}, LOOKED)
        assert line.verdict == "not found"
        assert "the pixels of 4 of 4 classes were compared with those of other classes" in line.why
        assert "This excludes a patch with the same pixels in the same place in at least 35 %" in line.why
        unread = check_patch(screened, 80, "owl", tried, {}, Pixels())
        assert (unread.verdict, "pixels were not compared" in unread.why) == ("undecided", True)
        large = check_patch(screened, 80, "owl", tried, {}, Pixels(4, {"cat": 0.72}))
        assert (large.verdict, "not tested: cat (72 % of the image); over 50 %" in large.why) == ("undecided", True)
        beyond = check_patch(screened, 80, "owl", tried, {}, Pixels(4, {}, ["cat"]))
        assert (beyond.verdict, "beyond the 6 that are tested: cat" in beyond.why) == ("undecided", True)


@pytest.mark.parametrize(
    ("changed", "pasted", "control", "verdict"),
    [
        (NONE, EVERY, NONE, "found"), (NONE, FEW, NONE, "undecided"), (NONE, NONE, NONE, "not found"),
        (NONE, EVERY, EVERY, "not found"), (FEW, NONE, NONE, "undecided"), (EVERY, NONE, NONE, "found"),
    ],
)  # fmt: skip
def test_a_patch_is_proven_by_overwriting_or_by_pasting(changed: Any, pasted: Any, control: Any, verdict: str) -> None:
    evidence = PatchEvidence(Changed(changed, NONE, HALF_B), Changed(pasted, control, HALF_B))
    assert evidence.verdict() == verdict
    line = check_patch(Screened(4, [], EXCESS, 1), 80, "owl", [Tried("fox", 60, 60, (0.6, 0.1), evidence)], {}, LOOKED)
    assert (line.verdict, bool(line.command)) == (verdict, verdict == "undecided")
    assert ("This excludes a patch" in line.why) == (verdict == "not found")
    broad = Screened(4, [], replace(EXCESS, high=0.2), 1)
    line = check_patch(broad, 80, "owl", [Tried("fox", 60, 60, (0.6, 0.1), evidence)], {}, LOOKED)
    assert line.verdict == verdict.replace("not found", "undecided"), "maps exclude nothing"
    assert line.effect is not None
    assert ("pasted in" in line.effect.what) == (pasted.any() and not control.any())
    found = patch_finding.finding(Suspect(1, np.eye(14, dtype=bool), ("gradcam",)), evidence, "fox")
    assert (found is not None) == (verdict == "found")


def test_the_line_of_colours_has_an_auc_of_the_held_out_half() -> None:
    random = np.random.default_rng(0)
    predicted_B = np.repeat([1, 0], 64)
    sampled = properties.Sampled({"brightness": random.random(128)}, predicted_B, np.arange(128) % 2 == 0)
    rows = properties.associations(sampled.measured, predicted_B, sampled.held_out_B)
    line = properties.check(sampled, rows, {0: "cat", 1: "dog"}, [], [])
    assert (line.verdict, line.images) == ("not found", 128)
    assert line.effect is not None
    assert line.effect.low is not None
    assert line.effect.high is not None
    assert line.effect.low < line.effect.value < line.effect.high < 0.85
    assert properties.check(sampled, [], {}, [], []).verdict == "not checked"


def shard_rows(*failed: int, accuracy: float | None = 0.9) -> list[dict[str, Any]]:
    return [{"shard": f"s{i}", "images": 100, "failed": count, "accuracy": accuracy} for i, count in enumerate(failed)]


@pytest.mark.parametrize(("errors", "images", "verdict"), [(0.1, 400, "not found"), (0.2, 20, "undecided")])
def test_the_line_of_labels_shows_the_worst_shard(errors: float, images: int, verdict: str) -> None:
    half = {("", f"s{i}"): Excess(errors + 0.01 * i, 0.1, 1.0, images, 0.01, 900) for i in range(3)}
    line = _check_labels(shard_rows(0, 0, 0), (half, half), [])
    assert line.verdict == verdict
    assert line.effect is not None
    assert line.control is not None
    assert "s2" in line.effect.what
    assert (line.control.value, line.control.low, line.control.images) == (0.1, pytest.approx(0.0804), 900)
    assert _check_labels(shard_rows(0), ({}, {}), []).why == "the run has a single shard"
    assert "no labels" in _check_labels(shard_rows(0, 0, accuracy=None), ({}, {}), []).why


def test_the_line_of_failures_counts_all_images() -> None:
    line = _check_failures(shard_rows(1, 2), [])
    assert (line.verdict, line.images, line.effect and line.effect.value) == ("not found", 200, 0.015)


def test_clusters_are_compared_with_the_rest_of_their_class() -> None:
    one = {"judged": 20, "errors": 0.1, "low": 0.0, "high": 0.3}
    two = {"judged": 20, "errors": 0.6, "low": 0.4, "high": 0.8}
    entry = {"name": "owl", "images": 40, "clusters": [one, two], "stability": 0.9}
    line = check_clusters([entry])
    assert (line.verdict, line.images) == ("found", 40)
    assert line.effect is not None
    assert line.control is not None
    assert {line.effect.value, line.control.value} == {0.1, 0.6}
    assert check_clusters([entry | {"stability": 0.2}]).verdict == "undecided"
    assert check_clusters([entry | {"clusters": [one]}]).verdict == "not found"
    assert check_clusters([]).verdict == "not checked"


def finding(kind: str, subject: str, low: float) -> Finding:
    effect = Effect("an effect", 0.9, low, 1.0, 20)
    return Finding(kind, subject, subject, "context", "replicated", kind, effect, "", f"advice for {kind}")  # type: ignore[arg-type]


def test_findings_about_the_same_images_are_merged() -> None:
    made = [
        finding("background", "1", 0.9), finding("watermark", "1", 0.5), finding("colour", "2", 0.6),
        finding("method", "1", 0.8), finding("shard_labels", "a.tar", 0.4), finding("shard_failures", "a.tar", 0.3),
    ]  # fmt: skip
    groups = merged(ranked(made))
    kinds = [[one.kind for one in group] for group in groups]
    assert kinds == [["watermark", "background"], ["method"], ["colour"], ["shard_labels", "shard_failures"]]
    fields = to_json(groups[0], {"what": "region"})
    assert (fields["kind"], fields["picture"]) == ("watermark", {"what": "region"})
    assert [evidence["advice"] for evidence in fields["evidence"]] == ["advice for watermark", "advice for background"]


def with_sanity(maker: RunMaker, **rows: tuple[float | None, float | None, int]) -> Audited:
    """Store the result of a sanity check (mean, half width, pairs of maps), and audit the run."""
    table = [
        {"test": "randomisation", "step": 1, "method": method, "images": 16, "maps": maps, "degenerate": 0.0,
         "spearman": mean, "spearman_half_width": half, "ssim": 0.1, "ssim_half_width": 0.1}
        for method, (mean, half, maps) in rows.items()
    ]  # fmt: skip
    maker.complete().store.publish(
        f"{SANITY_FOLDER}/x.parquet", checksummed(pa.Table.from_pylist(table, schema=SANITY_SCHEMA))
    )
    with open_run(maker.folder) as run:
        return audit(run, ask_model=False)


def test_on_two_maps_nothing_is_a_yes(tmp_path: Path) -> None:
    found = with_sanity(RunMaker(tmp_path / "run"), gradcam=(0.106, 2.920, 2), scorecam=(None, None, 0))
    assert [row["follows"] for row in found.facts["sanity"]["rows"]] == ["undecided", "undecided"]
    line = next(check for check in found.facts["checked"] if check["detector"] == "model")
    assert (line["verdict"], line["effect"]["images"]) == ("undecided", 2)
    assert -1 <= line["effect"]["low"] < line["effect"]["high"] <= 1
    assert "do not count as evidence" in line["why"]
    page = render(found.facts, found.pictures)
    chapter = page[page.index('id="leaderboard"') : page.index('id="believed"')]
    assert chapter.count("undecided (n = 2)") == 2, "in the table of metrics and in that of the check"
    assert '<span class="good">yes</span></td>' not in chapter.replace("can the metric rank methods?", "")


def test_methods_that_do_not_follow_are_found_and_the_others_named(tmp_path: Path) -> None:
    facts = with_sanity(RunMaker(tmp_path / "run"), gradcam=(0.97, 0.01, 16), scorecam=(0.1, 0.1, 16)).facts
    assert [(one["kind"], one["subject"]) for one in facts["findings"] if one["kind"] == "method"] == [
        ("method", "gradcam")
    ]
    line = next(check for check in facts["checked"] if check["detector"] == "model")
    assert (line["verdict"], line["why"]) == ("found", "1 of 2 methods do not follow the model: gradcam")
    picture = next(one["picture"] for one in facts["findings"] if one["kind"] == "method")
    assert (picture["what"], len(picture["images"])) == ("maps", 3)


def facts_of(maker: RunMaker) -> dict[str, Any]:
    with open_run(maker.complete().folder) as run:
        found = audit(run)
    return found.facts | {"page": render(found.facts, found.pictures)}


def verdicts(facts: dict[str, Any]) -> dict[str, str]:
    return {check["detector"]: check["verdict"] for check in facts["checked"]}


def test_a_run_of_one_image_claims_nothing(tmp_path: Path) -> None:
    facts = facts_of(JudgedRun(tmp_path / "run", cases=[binary_case(1, 2.0)]))
    assert facts["findings"] == []
    assert verdicts(facts) == {
        "patch": "not checked", "colour": "not checked", "context": "not checked", "labels": "not checked",
        "failures": "not found", "model": "not checked", "image": "not checked", "constant": "undecided",
        "clusters": "not checked", "others": "not checked", "slices": "not checked",
        "label_order": "undecided",
    }  # fmt: skip
    assert "1 of 1 image" in facts["page"]


def test_a_run_of_one_class_says_that_two_are_needed(tmp_path: Path) -> None:
    facts = facts_of(JudgedRun(tmp_path / "run", cases=[binary_case(1, 2.0 + i % 3) for i in range(40)]))
    (patch,) = [check for check in facts["checked"] if check["detector"] == "patch"]
    assert (patch["verdict"], "fewer than two classes" in patch["why"]) == ("not checked", True)
    assert any("fewer than two classes" in sentence for sentence in facts["unchecked"])
    assert {one["kind"] for one in facts["findings"]} == {"method"}, "handmade maps are the same for every image"


class AllLost(JudgedRun):
    """A run in which each image failed, in a sound shard."""

    def explained_nothing(self) -> "AllLost":
        return replace(self, cases=[replace(case, targets={}) for case in self.cases])


def test_a_run_in_which_every_image_failed_is_a_finding(tmp_path: Path) -> None:
    """A failure without a target is one unless the targets are above a threshold."""
    facts = facts_of(AllLost(tmp_path / "run", cases=[binary_case(1, 2.0)] * 12).explained_nothing())
    (lost,) = facts["findings"]
    assert (lost["kind"], lost["effect"]["value"], lost["picture"]["what"]) == ("failures", 1.0, "failures")
    assert "No image could be explained" in lost["sentence"]
    assert set(verdicts(facts).values()) == {"found", "not checked"}
    assert verdicts(facts)["failures"] == "found"
    assert facts["page"].count("no image was explained") >= 8
