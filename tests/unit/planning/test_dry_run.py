"""Dry runs: count the same passes as a real run, without running the masked ones on the model."""

import dataclasses

import pyarrow as pa
import pytest
import torch
from explaining import chunk, spec
from nets import StagedNet, ToyNet
from scoring_batches import Seen
from torch import Tensor

from pipeline.cams import build_methods
from pipeline.explain.explainer import Explainer
from pipeline.metrics import build_metrics
from pipeline.model.counts import Counts
from pipeline.planning.dry_run import SWEEP, DryRun, DryRunner
from pipeline.settings.targets import TargetRules

METHODS = ["gradcam", "scorecam", {"integrated_gradcam": {"steps": 3}}, "ablation_cam", {"sscam": {"samples": 2}}]
METRICS = ["average_drop", "increase", {"insertion": {"steps": 4}}, "coherency", "box_only_confidence"]


class HalfBlind(ToyNet):
    """A network with two constant channels of six in the target layer; records the images passed through it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.seen = Seen()
        with torch.no_grad():
            self.features[2].weight[:2] = 0

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if isinstance(pixels_BCHW, Tensor):
            self.seen.append(pixels_BCHW)
        return super().forward(pixels_BCHW)


def passes(dry_run: DryRun) -> Counts:
    accounts = dry_run.accounts.values()
    return Counts(*(round(sum(getattr(a, f.name) for a in accounts)) for f in dataclasses.fields(Counts)))


@pytest.mark.parametrize("rule", [TargetRules(("predicted",)), TargetRules(top=2)])
def test_passes_equal_those_of_a_real_run(rule: TargetRules) -> None:
    requested = spec(methods=build_methods(METHODS), metrics=build_metrics(METRICS), targets=rule)
    real = Explainer(HalfBlind(), requested)
    table = pa.concat_tables(real.tables(chunk(5)))
    dry_run = DryRunner(Explainer(HalfBlind(), requested)).explain(chunk(5), 5)
    assert passes(dry_run) == real.probe.counts
    assert dry_run.images == 5
    assert dry_run.rows.schema == table.schema
    for column in ("image_key", "target", "method", "method_params", "confidence", "error_code"):
        assert dry_run.rows[column] == table[column]


@pytest.mark.parametrize("methods", [["poly_cam"], ["sise"], ["group_cam"], [{"rise": {"num_masks": 20, "grid": 4}}]])
def test_passes_of_other_families_equal_those_of_a_real_run(methods: list[object]) -> None:
    requested = spec(methods=build_methods(methods), metrics={}, layer="stage2", stages=StagedNet.STAGES)
    real = Explainer(StagedNet(0), requested)
    assert sum(table.num_rows for table in real.tables(chunk(3))) == 3
    assert passes(DryRunner(Explainer(StagedNet(0), requested)).explain(chunk(3), 3)) == real.probe.counts


def test_each_method_and_metric_has_its_own_account() -> None:
    explainer = Explainer(HalfBlind(), spec(methods=build_methods(METHODS[:3]), metrics=build_metrics(METRICS[:3])))
    found = DryRunner(explainer).explain(chunk(5), 5)
    forwards = {name: account.forwards for name, account in found.accounts.items()}
    assert forwards[""] == 5
    assert forwards["method gradcam"] == 0
    assert 0 < forwards["method scorecam"] <= 5 * 4
    assert forwards["method integrated_gradcam"] == 5 * 2 + 1
    assert forwards[SWEEP] == sum(found.requested.values())
    assert found.requested["metric average_drop"] == 5 * 3
    assert found.requested["metric increase"] == 0
    assert found.requested["metric insertion"] > 0


def test_the_model_runs_few_masked_passes_and_is_the_same_afterwards() -> None:
    model = HalfBlind()
    explainer = Explainer(model, spec(batch=16))
    scorer, requested = explainer.probe.scorer, explainer.spec
    dry_runner = DryRunner(explainer)
    for _ in range(10):
        dry_runner.explain(chunk(5), 5)
    assert (
        10 * 16 <= sum(map(len, model.seen)) <= 10 * 16 + 2 * 9 * 16
    )  # the clean passes, padded to 16 images, and up to nine masked passes of each shape
    assert explainer.probe.scorer is scorer
    assert explainer.spec is requested
    seconds = dry_runner.pass_seconds()
    assert seconds
    assert all(shape[1:] == (3, 16, 16) and shape[0] % 16 == 0 and each > 0 for shape, each in seconds.items())
    fresh, used = (pa.concat_tables(e.tables(chunk(5))) for e in (Explainer(HalfBlind(), requested), explainer))
    assert used.equals(fresh)


def test_a_dry_run_of_fewer_images_uses_the_first_ones() -> None:
    dry_runner = DryRunner(Explainer(HalfBlind(), spec()))
    assert dry_runner.explain(chunk(5), 2).rows["image_key"].unique().to_pylist() == ["k0", "k1"]
    again = dry_runner.explain(chunk(5), 5)
    assert again.images == 5
    assert again.accounts[""].forwards == 5
