"""The measurements of a device on the simulated one: values are those of the CPU, and rows come out."""

from typing import Any
from unittest import mock

import pytest
import torch
from device.simulated import simulated

from pipeline.bench.device import cases
from pipeline.bench.device.cases import CASES
from pipeline.bench.device.clock import Device
from pipeline.bench.device.correctness import compared_maps, compared_metrics
from pipeline.bench.device.scale import REHEARSAL
from pipeline.bench.device.subjects import trained

CUDA = Device("cuda", 0.0)


@pytest.fixture(autouse=True)
def without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated device multiplies as the CPU does."""
    monkeypatch.setattr(Device, "precisions", lambda _: ["fp32", "bf16"])


def test_maps_and_metrics_agree_with_the_cpu() -> None:
    with simulated() as ledger:
        maps = compared_maps(CUDA, 1, ["gradcam"])
        metrics = compared_metrics(CUDA, 1, ["average_drop", "energy_in_box", "mass"])
    assert ledger.launches
    assert {found.error for found in maps["precisions"]["fp32"].values()} == {0.0}
    assert len(maps["precisions"]["bf16"]) == 1
    assert (maps["unequal_runs"], maps["unequal_passes"]) == ([], [])
    assert metrics == {"average_drop": 0.0, "energy_in_box": 0.0, "mass": 0.0}


def test_a_case_counts_waits_and_gives_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels: dict[str, Any] = {"started": 1, "busy_ms": 1.0, "busy_share": 0.1}
    monkeypatch.setattr(cases, "kernels", lambda *_: kernels)
    for name in ("reset_peak_memory_stats", "set_sync_debug_mode"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    scale, loaded = REHEARSAL, trained("residual")
    with simulated(), mock.patch.object(torch.cuda, "max_memory_allocated", return_value=0):
        (row,) = cases.timed_cases(CUDA, scale, loaded, 10.0, lambda _: None, CASES[:1])
    assert "failed" not in row, row
    assert row["waits"] == 0  # the simulated device does not warn of them
    assert row["error_codes"] == []
    assert cases.chunk_of(1, 96).samples[0].boxes_of(3)  # boxes apply to whatever class is predicted
    assert row["kernels"] == kernels
