"""The benchmark: cases run what their names say, and ratios compare cases within the same round."""

import json
from pathlib import Path

import pytest
import torch
import typer
from nets import StagedNet, images
from typer.testing import CliRunner, Result

from jobs.bench import bench
from pipeline.bench import handover
from pipeline.bench.data import data_rows
from pipeline.bench.images import bench_images
from pipeline.bench.measure import comparable
from pipeline.bench.ours import GRADIENT_METHODS, engine_name, forward_cases, method_case, road_cases
from pipeline.bench.peers import peer_cases
from pipeline.bench.report import case_rows, projection_rows
from pipeline.bench.timing import ENGINE, BenchCase, CaseTiming, time_cases
from pipeline.cams import LayerShape, NetShape, build_methods
from pipeline.demo.data import write_demo
from pipeline.errors import ConfigError
from pipeline.model.probe import Probe
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import load_config


def camatlas(*words: str) -> Result:
    app = typer.Typer()
    app.command()(bench)
    return CliRunner().invoke(app, list(words))


def timing(name: str, by: str, rounds: tuple[float, ...], images: int = 4, forwards: int = 4) -> CaseTiming:
    return CaseTiming(BenchCase(name, by, lambda: None, images, forwards), rounds, forwards)


def test_ratios_are_medians_of_quotients_within_rounds() -> None:
    ours = timing("gradcam", "camatlas", (1.0, 2.0, 4.0))
    peer = timing("gradcam", "peer", (3.0, 8.0, 8.0), images=2)
    assert ours.times(peer) == pytest.approx(3.0 * 2)  # quotients 3, 4, 2, and twice the images
    assert ours.images_per_second == pytest.approx(2.0)


def test_rows_hold_shares_of_the_engine_and_ratios_to_the_peers() -> None:
    timings = [
        timing("forward pass", "plain model", (4.0,)),
        timing("forward pass", "camatlas fp32", (2.0,)),
        timing("scorecam", "camatlas", (8.0,), images=1, forwards=16),
        timing("scorecam", "peer", (32.0,), images=1, forwards=16),
    ]
    plain, engine, ours, peer = case_rows(timings)
    assert {row["engine"] for row in (plain, engine, ours, peer)} == {"fp32"}
    assert engine["share_of_engine_forward"] == pytest.approx(1.0)
    assert ours["share_of_engine_forward"] == pytest.approx(1.0)
    assert ours["image_in_engine_forwards"] == pytest.approx(16.0)
    assert peer["share_of_engine_forward"] == pytest.approx(0.25)
    assert [row["camatlas_times_as_fast"] for row in (plain, engine, ours, peer)] == [2.0, None, None, 4.0]
    assert projection_rows(timings) == [
        {"methods": "scorecam", "forwards_per_image": 16.0, "hours_of_imagenet_val": pytest.approx(50_000 * 8 / 3600)}
    ]


def test_a_compiled_method_is_compared_with_the_compiled_engine() -> None:
    compiled = engine_name("bf16", compiled=True)
    masked = BenchCase("scorecam", "camatlas", lambda: None, 1, 16, engine=compiled)
    forward = BenchCase("forward pass", compiled, lambda: None, 4, 4, engine=compiled)
    rows = case_rows(
        [timing("forward pass", ENGINE, (2.0,)), CaseTiming(forward, (1.0,), 4), CaseTiming(masked, (8.0,), 16)]
    )
    assert [row["engine"] for row in rows] == ["fp32", "bf16 compiled", "bf16 compiled"]
    assert [row["share_of_engine_forward"] for row in rows] == [1.0, 1.0, 0.5]


def test_every_case_runs_once_a_round_and_warms_up_once() -> None:
    ran = list[str]()
    cases = [
        BenchCase("short", "camatlas", lambda: ran.append("short"), 1, 1),
        BenchCase("long", "peer", lambda: ran.append("long"), 1, 1000),
    ]
    timings = time_cases(cases, 2)
    assert ran == ["short", *["short"] * 2, "long", *["short"] * 2]  # ours runs once more per round, to hold its memory
    assert [len(each.rounds) for each in timings] == [2, 1]


def test_cases_run_what_their_names_say() -> None:
    model, pixels_BCHW = StagedNet(0), images(0, count=2, side=32)
    probe = Probe(model, "stage2", batch=8)
    shape = NetShape((LayerShape(7, 8, 8),), linear_head=False)
    eight = method_case(probe, "eight gradient methods", build_methods(GRADIENT_METHODS), pixels_BCHW, shape, ENGINE)
    exact = method_case(probe, "scorecam", build_methods(["scorecam"]), pixels_BCHW[:1], shape, ENGINE)
    assert [timing.forwards for timing in time_cases([eight, exact], 1)] == [2, 1 + 7]
    expected_BN = model(pixels_BCHW)
    for case in forward_cases(model, pixels_BCHW):
        tolerance = 0.05 if "bf16" in case.by else 1e-4
        torch.testing.assert_close(case.work(), expected_BN, rtol=tolerance, atol=tolerance)
    assert [case.images for case in road_cases(pixels_BCHW)] == [2, 2, 2]


@pytest.mark.parametrize("peer", ["pytorch-grad-cam", "torchcam", "captum"])
def test_peers_run_on_the_same_images_and_layer(peer: str) -> None:
    pytest.importorskip({"pytorch-grad-cam": "pytorch_grad_cam"}.get(peer, peer))
    model, pixels_BCHW = StagedNet(0), images(0, count=2, side=32)
    cases = {case.name: case for case in peer_cases(peer, model, "stage2", pixels_BCHW)}
    assert len(torch.as_tensor(_first(cases["gradcam"].work()))) == 2
    if "scorecam" in cases:
        assert cases["scorecam"].forwards == 1 + 7


def _first(result: object) -> object:
    return result[0] if isinstance(result, list) else result


def test_the_data_path_is_measured_on_a_separate_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, little in {"_WINDOW_SECONDS": 0.01, "_ROUNDS": 1, "_CHUNKS": 1}.items():
        monkeypatch.setattr(handover, name, little)
    config = load_config(str(write_demo(tmp_path, scenes=8)), ["explain.methods=[gradcam]"])
    rows = {row["what"]: row["value"] for row in data_rows(config, images=4)}
    assert all(value > 0 for value in rows.values())
    assert {"make a row, 8 x 3 values", "rate a launching thread keeps beside unpacking"} <= rows.keys()
    assert {"decode and resize", "encode and commit", "look an image up by its key", "read maps back"} <= rows.keys()
    assert not (tmp_path / "run").exists()


def test_the_verb_prints_one_json_object(tmp_path: Path) -> None:
    run_file = str(write_demo(tmp_path, scenes=4))
    chart = tmp_path / "chart.svg"
    options = ["--no-compile", "--no-data", "--rounds", "1", "--batch", "2", "--chart", str(chart), "--json"]
    done = camatlas(run_file, "--set", "explain.methods=[gradcam, {scorecam: {clusters: 4}}]", *options)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["case"] for row in found["cases"]][-2:] == ["gradcam", "scorecam"]
    assert found["imagenet_val"][-1]["forwards_per_image"] <= 1 + 4
    assert {row["rounds"] for row in found["cases"]} == {1}
    assert chart.read_text(encoding="utf-8").startswith("<?xml")


def test_wrong_options_are_refused_before_anything_is_timed() -> None:
    assert camatlas("--against", "torchcan").exit_code == 2
    assert camatlas("--precision", "fp8").exit_code == 2
    assert camatlas("--chart", "chart.txt").exit_code == 2
    assert camatlas("--chart", "nowhere/chart.svg").exit_code == 2
    assert camatlas("--set", "explain.seed=1").exit_code == 2
    assert camatlas("run.yaml", "--model", "torchvision/resnet18").exit_code == 2


def test_peers_are_compared_with_the_same_method_only() -> None:
    methods = build_methods([{"gradcam": {"as": "ours"}}, {"scorecam": {"clusters": 4}}])
    assert comparable(methods) == {"gradcam": "ours"}


def test_methods_are_timed_on_real_images(tmp_path: Path) -> None:
    config = load_config(str(write_demo(tmp_path, scenes=3)))
    drawn_BCHW = bench_images(None, Preprocess(96, 96), 4)
    read_BCHW = bench_images(config, Preprocess(96, 96), 4)
    assert drawn_BCHW.shape == read_BCHW.shape == (4, 3, 96, 96)
    assert torch.equal(read_BCHW[3], read_BCHW[0]), "the three images repeat, because four are requested"
    assert float(drawn_BCHW.std()) > 0.1
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_bytes(b"no image")
    with pytest.raises(ConfigError, match="can be decoded"):
        bench_images(load_config(str(tmp_path / "run.yaml"), [f"data.shards={tmp_path}/bad"]), Preprocess(96, 96), 4)
