"""What runs a model again after a run, and the benchmark, on the simulated device."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from device.simulated import is_here, simulated, to_host
from device.small_nets import CLASSES, SIDE, SmallCnn, made, pictures
from inline import publish_all

from pipeline.audit.sanity import check_sanity
from pipeline.bench.measure import Setup, measured
from pipeline.bench.ours import first_step_cases, forward_cases, road_cases
from pipeline.bench.timing import OURS, BenchCase, time_cases
from pipeline.cams import build_methods
from pipeline.demo.data import run_file, write_demo
from pipeline.model.layout_choice import FoundLayouts
from pipeline.model.outputs import SOFTMAX
from pipeline.model.trial import LoadedModel
from pipeline.results.query import Run, open_run
from pipeline.results.rerun import RunModel
from pipeline.settings.preprocess import Preprocess
from schemas.sanity import SANITY_FOLDER


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run on the CPU of a run file that lets the machine choose the device."""
    folder = tmp_path_factory.mktemp("device")
    write_demo(folder, scenes=6)
    fields: Any = run_file(folder)
    fields["explain"] = {"methods": ["gradcam", {"smooth_gradcam_pp": {"samples": 2}}], "metrics": []}
    with open_run(publish_all(fields)) as opened:
        yield opened


def test_a_sanity_check_gives_the_table_of_the_cpu(run: Run) -> None:
    expected = check_sanity(run, 2, 2)
    for name in run.store.names(SANITY_FOLDER):
        run.store.delete(f"{SANITY_FOLDER}/{name}")
    with simulated() as ledger:
        found = check_sanity(run, 2, 2)
    assert ledger.launches
    assert found.equals(expected)


def test_images_changed_for_the_report_get_the_confidences_of_the_cpu(run: Run) -> None:
    with simulated() as ledger:
        there = RunModel(run)
        pixels_BHWC = np.random.default_rng(0).random((3, *there.loaded.preprocess.size, 3), dtype=np.float32)
        assert there.device == "cuda"
        assert all(map(is_here, there.model.parameters()))
        confidences_BN, predicted_B = there.confidences(pixels_BHWC), there.predicted(pixels_BHWC)
    here = RunModel(run)
    np.testing.assert_array_equal(confidences_BN, here.confidences(pixels_BHWC))
    np.testing.assert_array_equal(predicted_B, here.predicted(pixels_BHWC))
    assert ledger.launches


def test_a_benchmark_runs_on_the_device() -> None:
    loaded = LoadedModel(
        model=made(SmallCnn), layer=SmallCnn.LAYER, preprocess=Preprocess(crop=SIDE, resize=None), weights_digest="",
        classes=CLASSES, stages=SmallCnn.STAGES, stage_shapes=((8, 8, 8), (12, 4, 4)), linear_head=True,
        outputs=SOFTMAX, layouts=FoundLayouts((3, SIDE, SIDE), {}), notes=(),
    )  # fmt: skip
    setup = Setup(loaded, build_methods(["gradcam"]), (), "fp32", pictures(2), compiled=False)
    with simulated() as ledger:
        found = measured(setup, rounds=1, long_rounds=1, report=lambda _: None)
        assert all(map(is_here, loaded.model.parameters()))
    assert found["device"] == "simulated"
    assert found["peak_device_megabytes"] == 0
    assert {row["case"] for row in found["cases"]} >= {"forward pass", "eight gradient methods", "gradcam"}
    assert ledger.launches


def test_cases_of_the_benchmark_give_the_values_of_the_cpu() -> None:
    def cases(device: str) -> list[BenchCase]:
        model, pixels_BCHW = made(SmallCnn).to(device), pictures(2).to(device)
        return [*forward_cases(model, pixels_BCHW), *road_cases(pixels_BCHW)[:1], *first_step_cases(model, pixels_BCHW)]

    expected = [case.work() for case in cases("cpu")]
    with simulated():
        found = [case.work() for case in cases("cuda")]
    for one, other in zip(found[:-1], expected[:-1], strict=True):
        assert torch.equal(to_host(one), other)
    assert torch.equal(to_host(found[-1].logits_BMS), expected[-1].logits_BMS)


@pytest.mark.parametrize("by", [OURS, "a peer"])
def test_a_case_is_timed_between_two_waits_for_the_device(by: str) -> None:
    """Work that was started before must not be counted in its time, and work that it starts must be."""
    order = list[str]()
    with simulated(), mock.patch.object(torch.cuda, "synchronize", side_effect=lambda *_: order.append("wait")):
        time_cases([BenchCase("case", by, lambda: order.append("work"), 1, 1)], 1)
    assert order[-3:] == ["wait", "work", "wait"]
