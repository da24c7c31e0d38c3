"""Rows of several targets per image, of methods that combine stages and of random methods, for every batch size."""

from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from explaining import chunk, rows, spec
from nets import StagedNet
from quick import OF_ATTENTION, SPECS

from pipeline.cams import METHODS as ALL_METHODS
from pipeline.cams import build_methods
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.explain.explainer import Explainer
from pipeline.metrics import METRICS as ALL_METRICS
from pipeline.metrics import build_metrics
from pipeline.settings.explain import TargetRule
from pipeline.settings.targets import TargetRules

STAGED = {"layer": "stage2", "stages": StagedNet.STAGES}
METHODS = [
    SPECS[name] for name, kind in ALL_METHODS.items() if not kind().needs.linear_head and name not in OF_ATTENTION
]


def explained(targets: TargetRules, labels: list[int | None], batch: int = 16) -> list[dict[str, object]]:
    changes = {"targets": targets, "methods": build_methods(METHODS), "batch": batch, "seed": 5, **STAGED}
    return rows(Explainer(StagedNet(1), spec(**changes)), chunk(5, labels=labels))


def test_each_pair_of_image_and_target_has_a_row_of_every_method() -> None:
    found = explained(TargetRules(("predicted", "label")), [0, 1, 2, 3, 0])
    per_image: dict[object, set[object]] = {}
    for row in found:
        per_image.setdefault(row["image_key"], set()).add((row["target"], row["target_rule"]))
    for row in found:
        expected = {(row["predicted"], "predicted")} | (
            set() if row["label"] == row["predicted"] else {(row["label"], "label")}
        )
        assert per_image[row["image_key"]] == expected
    assert len(found) == len(METHODS) * sum(len(pairs) for pairs in per_image.values())
    assert 5 < sum(len(pairs) for pairs in per_image.values()) <= 10


def test_confidences_and_boxes_are_those_of_the_target() -> None:
    found = explained(TargetRules(top=4), [0] * 5)
    totals: dict[object, float] = {}
    for row in found:
        if row["method"] == "gradcam":
            totals[row["image_key"]] = totals.get(row["image_key"], 0.0) + float(str(row["target_confidence"]))
            assert (row["energy_in_box"] is None) == (row["target"] != 0)
    assert all(total == pytest.approx(1, abs=1e-5) for total in totals.values())


@pytest.mark.parametrize("targets", [TargetRules(top=3), TargetRules(("label", "predicted"))])
def test_rows_do_not_depend_on_the_batches(targets: TargetRules) -> None:
    labels: list[int | None] = [3, 0, 1, 2, 3]
    whole, single = explained(targets, labels, batch=16), explained(targets, labels, batch=1)
    keys = ["image_key", "target", "method"]
    tables = [pa.Table.from_pylist(found).sort_by([(key, "ascending") for key in keys]) for found in (whole, single)]
    assert tables[0].equals(tables[1])


def test_metrics_do_not_depend_on_the_batches() -> None:
    """This includes the metrics that solve systems, sample, or redraw maps."""
    cheap = {"insertion": {"steps": 3}, "infidelity": {"samples": 2}, "max_sensitivity": {"samples": 1}}
    metrics = build_metrics([{name: cheap.get(name, {})} for name in ALL_METRICS if name not in ("box_iou_curve",)])
    changes = {"targets": TargetRules(top=2), "methods": build_methods(["gradcam", {"rise": {"num_masks": 9}}])}
    found = [
        rows(Explainer(StagedNet(1), spec(**changes, **STAGED, metrics=metrics, batch=batch, seed=5)), chunk(5))
        for batch in (16, 1)
    ]
    by_name = [sorted(one, key=lambda row: str((row["image_key"], row["target"], row["method"]))) for one in found]
    assert by_name[0] == by_name[1]


def test_an_image_with_nan_logits_is_the_only_failure() -> None:
    class Poisoned(StagedNet):
        def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
            logits_BN = super().forward(pixels_BCHW)
            brightest = pixels_BCHW.mean((1, 2, 3)) == pixels_BCHW.mean((1, 2, 3)).max()
            return logits_BN.masked_fill(brightest[:, None], torch.nan)

    changes = {"targets": TargetRules(top=2), "methods": build_methods(["gradcam"]), **STAGED}
    found = rows(Explainer(Poisoned(1), spec(**changes)), chunk(5))
    failed = [row for row in found if row["error_code"] is not None]
    assert [row["error_code"] for row in failed] == ["nonfinite"]
    assert len(found) == 2 * 4 + 1


def several(*, box_labels: tuple[int, ...], labels: tuple[int, ...] = (3, 1)) -> DecodedChunk:
    """Return a chunk of one image with a small box and a large one."""
    boxes = ((1.0, 1.0, 5.0, 5.0), (0.0, 0.0, 16.0, 14.0))
    sample = DecodedSample("k0", None, boxes[: len(box_labels)], (30, 40), labels, box_labels)
    return replace(chunk(1), samples=(sample,))


def measured(targets: TargetRules, decoded: DecodedChunk) -> dict[object, dict[str, object]]:
    changes = {"targets": targets, "methods": build_methods(["layercam"]), **STAGED}
    return {row["target"]: row for row in rows(Explainer(StagedNet(1), spec(**changes)), decoded)}


def test_every_label_of_an_image_has_its_rows_and_its_own_boxes() -> None:
    found = measured(TargetRules(("labels",)), several(box_labels=(3, 1)))
    assert [(found[target]["target_rule"], found[target]["label"]) for target in (1, 3)] == [("label", None)] * 2
    small = measured(TargetRules(classes=(1, 3)), replace_label(3, 0))
    large = measured(TargetRules(classes=(1, 3)), replace_label(1, 1))
    assert found[3]["energy_in_box"] == small[3]["energy_in_box"] != large[1]["energy_in_box"]
    assert found[1]["energy_in_box"] == large[1]["energy_in_box"] is not None


def replace_label(label: int, box: int) -> DecodedChunk:
    """Return the same image with one label and one of the boxes."""
    (sample,) = several(box_labels=(3, 1)).samples
    one = DecodedSample("k0", label, (sample.boxes_xyxy or ())[box : box + 1], sample.size)
    return replace(chunk(1), samples=(one,))


def test_a_label_without_a_box_has_no_box_metrics() -> None:
    found = measured(TargetRules(("labels",)), several(box_labels=(1, 1)))
    assert (found[3]["energy_in_box"], found[1]["energy_in_box"] is None) == (None, False)


@pytest.mark.parametrize(
    ("rule", "labels", "word"),
    [("label", (3, 1), "2 labels"), ("labels", (), "no label"), ("labels", (3, 4), "label 4")],
)
def test_an_image_with_unsuitable_labels_is_one_failure(rule: TargetRule, labels: tuple[int, ...], word: str) -> None:
    (row,) = measured(TargetRules((rule,)), several(box_labels=(3, 3), labels=labels)).values()
    assert row["error_code"] == "label"
    assert word in str(row["error_detail"])
