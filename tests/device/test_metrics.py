"""Every metric gives on the simulated device the values that it gives on the CPU."""

import pytest
import torch
from device.simulated import is_here, simulated, to_host
from device.small_nets import NETS
from device.small_runs import METRIC_SPECS, explained, measured

from pipeline.metrics import METRICS
from pipeline.model.engine import Precision

IMPUTING = {"road", "road_morf", "road_lerf", "occlusion_agreement"}
"""Metrics that solve a linear system, in some thousand operations."""
METHODS = ["gradcam", "shuffled_gradcam"]


def check(kind: str, precision: Precision, specs: list[dict[str, dict[str, object]]]) -> None:
    expected = measured(explained(NETS[kind], "cpu", precision, METHODS), specs)
    with simulated():
        found = measured(explained(NETS[kind], "cuda", precision, METHODS), specs)
    for name, by_method in expected.items():
        for method, values in by_method.items():
            assert is_here(found[name][method]), name
            torch.testing.assert_close(to_host(found[name][method]), values, rtol=0, atol=0, equal_nan=True, msg=name)


def test_all_metrics_together_give_the_values_of_the_cpu() -> None:
    check("cnn", "fp32", METRIC_SPECS)


def test_metrics_of_a_transformer_give_the_values_of_the_cpu() -> None:
    check("vit", "bf16", [spec for spec in METRIC_SPECS[: len(METRICS)] if IMPUTING.isdisjoint(spec)])


@pytest.mark.campaign
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", NETS)
def test_each_metric_alone_gives_the_values_of_the_cpu(kind: str, precision: Precision) -> None:
    for spec in METRIC_SPECS:
        check(kind, precision, [spec])
