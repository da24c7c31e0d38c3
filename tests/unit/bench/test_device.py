"""The measurements of a device: rehearsed on the CPU with tiny sizes, and their parts against hand-made numbers."""

import json
import operator
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import typer
from typer.testing import CliRunner

import pipeline
from jobs.bench import bench
from pipeline.bench.device import cases, host, needed, sections, speed
from pipeline.bench.device import decoding as decoding_module
from pipeline.bench.device.apart import apart
from pipeline.bench.device.cases import CASES, Case
from pipeline.bench.device.clock import Device
from pipeline.bench.device.correctness import Agreement, _agreement, _difference
from pipeline.bench.device.failures import failed_device, too_large_pass
from pipeline.bench.device.host import HostCosts, host_costs
from pipeline.bench.device.node import Node, Projection
from pipeline.bench.device.scale import FULL, REHEARSAL
from pipeline.bench.device.sections import Session, plain
from pipeline.bench.device.subjects import untrained
from pipeline.bench.device.tables import page
from pipeline.bench.device.waits import counted_waits
from pipeline.cams import build_methods
from pipeline.errors import ConfigError
from pipeline.metrics import build_metrics

CPU = Device("cpu", 0.0)
TINY = replace(
    REHEARSAL, network="squeezenet1_1", side=33, passes=(2,), images=2, warm=1, seconds=0.0, floats=100, product=8,
    compared=1, photographs=1,
)  # fmt: skip
COSTS = HostCosts(pass_launching=2.56e-3, unpacking=1e-6, copying=9e-6, rows=30e-6, publishing=50e-6, decoding=1e-3)


def session(**changes: Any) -> Session:
    cases = (CASES[0], Case("wrong", ("no_such_method",)))
    fields = {"methods": ("gradcam", "legrad"), "metrics": ("average_drop", "pointing_game"), "cases": cases}
    return Session(CPU, TINY, **({"seconds": 1000.0} | fields | changes))


@pytest.fixture
def few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what starts processes or the compiler, which is tested by itself."""
    monkeypatch.setattr(speed, "flops", lambda _: 10**9)
    monkeypatch.setattr(decoding_module, "_with_processes", lambda data, processes: 1.0)
    monkeypatch.setattr(sections, "failures", lambda *_: {"too_large_pass": "left out"})
    monkeypatch.setattr(sections, "compiled", lambda *_: {"first_call_seconds": 1.0})
    monkeypatch.setattr(sections, "host_costs", lambda _: COSTS)


def test_a_rehearsal_finds_all_figures(few_processes: None, tmp_path: Path) -> None:
    found = session(out=tmp_path / "found.json").run()
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8")) == found
    assert not [name for name, each in found.items() if isinstance(each, dict) and "failed" in each]
    assert set(found["maps"]["precisions"]) == {"fp32", "bf16"}
    assert found["maps"]["precisions"]["fp32"] == {
        "gradcam (residual)": {"error": 0.0, "rank": pytest.approx(1)},
        "legrad (vit)": {"error": 0.0, "rank": pytest.approx(1)},
    }
    assert 0 < found["maps"]["precisions"]["bf16"]["gradcam (residual)"]["error"] < 0.1
    assert found["metrics"] == {"average_drop": 0.0, "pointing_game": 0.0}
    gradcam, wrong = found["cases"]
    assert gradcam["forwards_per_image"] == 1
    assert gradcam["error_codes"] == []
    assert gradcam["waits"] is None
    assert "no_such_method" in wrong["failed"]
    assert found["forwards"]["engine fp32"]["by_images_of_a_pass"]["2"] > 0
    assert found["projection"]["pillow"]["is_projection"]
    written = page(found)
    assert "Rehearsal on a CPU" in written
    assert "Projection, not a measurement" in written
    assert "| gradcam |" in written


def test_sections_without_time_or_with_an_error_say_so_and_the_others_go_on(
    few_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "ceilings", mock.Mock(side_effect=RuntimeError("no kernel image\nis available")))
    found = session(seconds=14.0).run()
    assert found["ceilings"] == {"failed": "RuntimeError: no kernel image is available"}
    assert {name for name, each in found.items() if "left out" in str(each)} >= {"maps", "metrics", "cases", "compiled"}
    assert "no kernel image" in page(found)
    assert "left out: 14 s were left" in page(found)


def test_a_failed_device_ends_the_cases_and_keeps_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[Any] = [{"case": "one"}, ValueError("of the case"), torch.AcceleratorError("device-side assert")]
    monkeypatch.setattr(cases, "_timed_case", mock.Mock(side_effect=results))
    rows = cases.timed_cases(CPU, TINY, mock.Mock(), None, lambda _: None, CASES[:5])
    assert [row.get("failed", "") for row in rows] == [
        "", "ValueError: of the case", "AcceleratorError: device-side assert",
    ]  # fmt: skip


def test_all_cases_can_be_built() -> None:
    assert len(CASES) == 10
    for case in CASES:
        assert build_methods(case.methods)
        build_metrics(case.metrics)


def test_maps_agree_or_the_reason_is_told() -> None:
    map_1uv = torch.arange(9.0).view(1, 3, 3)
    assert Agreement.of(1.1 * map_1uv, map_1uv) == Agreement(pytest.approx(0.1), pytest.approx(1, abs=1e-4))
    assert Agreement.of(-map_1uv, map_1uv) == Agreement(pytest.approx(2), pytest.approx(-1, abs=1e-4))
    assert _agreement("it failed", map_1uv) == "it failed"
    assert _agreement(map_1uv, "it failed") == "on the CPU: it failed"


def test_a_value_that_is_missing_on_one_device_is_no_small_difference() -> None:
    nan = float("nan")
    assert _difference(torch.tensor([1.0, nan]), torch.tensor([0.5, nan])) == pytest.approx(1.0)
    assert _difference(torch.tensor([nan]), torch.tensor([0.5])) == "NaN on one of both devices"


def test_costs_of_the_host_are_those_of_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NETWORK": "resnet18", "_FEW": 4, "_MANY": 12, "_REPEATS": 2}.items():
        monkeypatch.setattr(host, name, value)
    found = host_costs(CPU)
    assert all(0 <= cost < 1 for name, cost in vars(found).items() if name != "decoding")
    assert found.pass_launching > found.unpacking


def test_a_projection_adds_up_costs_and_names_what_holds_it() -> None:
    projection = Projection(Node(gpus=2, cores=14, images=256, busy=2, driver=2), COSTS)
    rates = {step.name: step.rate for step in projection.steps}
    assert list(rates.values()) == pytest.approx([4000, 20_000, 20_000, 10_000])
    assert projection.slowest.name == "4 cores that decode"
    assert "40% of 10,000" in projection.sentence
    assert "takes 10 cores for each GPU, and 4 are there" in projection.sentence
    fast = Projection(projection.node, replace(COSTS, decoding=1e-4))
    assert fast.as_json()["reached"]
    assert fast.sentence == "Projection, not a measurement: the host side feeds 10,000 images a second and GPU."


def asking(file: str) -> Callable[[], None]:
    """A function of a file of the pipeline that makes the host wait."""
    names: dict[str, Any] = {"warnings": warnings}
    source = "\ndef ask(): warnings.warn('called a synchronizing CUDA operation')"
    exec(compile(source, f"{Path(pipeline.__file__).parent}/{file}", "exec"), names)
    return names["ask"]


def test_waits_are_counted_by_the_line_that_asks() -> None:
    with (
        mock.patch.object(torch.cuda, "get_sync_debug_mode", return_value=0),
        mock.patch.object(torch.cuda, "set_sync_debug_mode") as mode,
        counted_waits(Device("cuda", 0.0)) as waits,
    ):
        for _ in range(3):
            asking("cams/score.py")()
        asking("model/transfers.py")()
        warnings.warn("of something else", stacklevel=1)
    assert waits == {"pipeline/cams/score.py:2": 3, "outside of the pipeline": 1}
    assert [call.args for call in mode.call_args_list] == [("warn",), (0,)]


def test_a_model_that_fails_on_the_cpu_gives_rows_of_failures() -> None:
    assert failed_device(CPU) == {"error_codes": {"model_error": 2}}


def test_work_apart_may_die_raise_or_hang() -> None:
    assert apart(60, operator.add, 1, 2) == 3
    assert apart(60, os._exit, 1) == "the process died"
    assert apart(60, operator.truediv, 1, 0) == "ZeroDivisionError: division by zero"
    assert apart(0.01, time.sleep, 60) == "not finished after 0 s"


@pytest.mark.campaign
def test_operations_are_counted_as_published() -> None:
    assert speed.flops(untrained("resnet18", 224)) == pytest.approx(2 * 1.814e9, rel=0.01)


@pytest.mark.campaign
def test_a_pass_that_is_really_too_large_becomes_smaller() -> None:
    found = apart(120, too_large_pass, CPU, REHEARSAL)
    assert isinstance(found, dict), found
    assert found["reached"] < found["requested"]
    assert not found["error_codes"]


def test_missing_libraries_are_named_together() -> None:
    with (
        mock.patch.object(needed, "find_spec", lambda module: None if module in ("PIL", "yaml") else module),
        pytest.raises(ConfigError, match="pip install pillow pyyaml"),
    ):
        needed.check_libraries()
    with mock.patch.object(needed, "version", return_value="2.9.1+cu128"), pytest.raises(ConfigError, match="oldest"):
        needed.check_libraries()
    needed.check_libraries()


def test_nothing_but_the_named_libraries_is_imported() -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'duckdb', 'obstore', 'webdataset', 'braceexpand', 'skimage', 'sklearn', 'altair'):\n"
        "    sys.modules[name] = None\n"
        "import pipeline.bench.device.__main__, pipeline.bench.device.sections, pipeline.bench.device.tables\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_results_are_json() -> None:
    assert plain({"a": (float("nan"), COSTS.__class__), 2: CPU})["2"] == {"name": "cpu", "seconds": 0.0}
    assert plain([float("inf"), 1.5]) == [None, 1.5]
    assert FULL.budget <= 480


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--device", "tpu"), "'tpu' is not a device"),
        (("--device", "cpu", "--against", "captum"), "have their own networks"),
        (("--seconds", "5"), "it needs --device"),
        (("--device", "cpu", "--out", "/no/such/folder/found.json"), "there is no folder"),
        pytest.param(("--device", "cuda"), "torch finds no GPU",
                     marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")),
    ],
)  # fmt: skip
def test_the_verb_refuses_what_does_not_go_together(words: tuple[str, ...], said: str) -> None:
    app = typer.Typer()
    app.command()(bench)
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 2
    assert said in result.output
