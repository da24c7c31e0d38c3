"""Several targets of an image, methods that join stages, and random methods: rows whatever the batches."""

import pyarrow as pa
import pytest
import torch
from explaining import chunk, rows, spec
from nets import StagedNet
from quick import SPECS

from pipeline.cams import METHODS as KNOWN
from pipeline.cams import build_methods
from pipeline.explainer import Explainer
from pipeline.metrics import METRICS as MEASURES
from pipeline.metrics import build_metrics
from pipeline.targets import TargetRules

STAGED = {"layer": "stage2", "stages": StagedNet.STAGES}
METHODS = [SPECS[name] for name, kind in KNOWN.items() if not kind().needs.linear_head]


def explained(targets: TargetRules, labels: list[int | None], batch: int = 16) -> list[dict[str, object]]:
    changes = {"targets": targets, "methods": build_methods(METHODS), "batch": batch, "seed": 5, **STAGED}
    return rows(Explainer(StagedNet(1), spec(**changes)), chunk(5, labels=labels))


def test_each_pair_of_image_and_target_has_a_row_of_every_method() -> None:
    found = explained(TargetRules(("predicted", "label")), [0, 1, 2, 3, 0])
    per_image: dict[object, set[object]] = {}
    for row in found:
        per_image.setdefault(row["image_key"], set()).add((row["target"], row["target_rule"]))
    for row in found:
        own = {(row["predicted"], "predicted")} | (
            set() if row["label"] == row["predicted"] else {(row["label"], "label")}
        )
        assert per_image[row["image_key"]] == own
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
    """Also those that solve, sample and draw again."""
    cheap = {"insertion": {"steps": 3}, "infidelity": {"samples": 2}, "max_sensitivity": {"samples": 1}}
    metrics = build_metrics([{name: cheap.get(name, {})} for name in MEASURES if name not in ("box_iou_curve",)])
    changes = {"targets": TargetRules(top=2), "methods": build_methods(["gradcam", {"rise": {"num_masks": 9}}])}
    found = [
        rows(Explainer(StagedNet(1), spec(**changes, **STAGED, metrics=metrics, batch=batch, seed=5)), chunk(5))
        for batch in (16, 1)
    ]
    by_name = [sorted(one, key=lambda row: str((row["image_key"], row["target"], row["method"]))) for one in found]
    assert by_name[0] == by_name[1]


def test_a_nan_image_fails_alone_among_several_targets() -> None:
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
