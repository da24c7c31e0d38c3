"""A whole run with methods and metrics of the user's: rows, identity, resuming, and readers that lack the plug-in."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from inline import config_of, explain_inline, publish_all
from PIL import Image

from jobs.explain import Ended
from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.audit.sanity import check_sanity
from pipeline.errors import ConfigError
from pipeline.explain.explainer import images_together
from pipeline.results.query import open_run
from pipeline.results.reliability import leaderboard_note, shipped_record
from pipeline.results.status import status
from pipeline.results.verify import verify
from pipeline.run.paths import absolute
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.settings.functions import modules_beside
from pipeline.settings.plugins import classes_of
from schemas.manifest import changed_plugins

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar
import camatlas
from factors_of_mine import FACTOR

@dataclass(frozen=True)
class MyCam(camatlas.BaseMethod):
    """Mean of the activations and of those of a darker image."""
    power: float = 1.0
    def __call__(self, evidence, probe):
        darker = probe.capture(FACTOR * evidence.pixels_BCHW, evidence.targets_B, gradients=False)
        return (evidence.acts_BKuv + darker.acts_BKuv).relu().mean(1) ** self.power

@dataclass(frozen=True)
class Picky(camatlas.BaseMethod):
    def __call__(self, evidence, probe):
        if "1.png" in evidence.keys:
            raise ValueError("not this one")
        return evidence.acts_BKuv.mean(1)

@dataclass(frozen=True)
class Kept(camatlas.BaseMetric):
    unit: ClassVar = "confidence"
    better: ClassVar = "lower"
    reads: ClassVar = "probability"
    def views(self):
        return (camatlas.TopPixels(0.3, "mean"),)
    def __call__(self, batch):
        if "2.png" in batch.evidence.keys:
            raise ValueError("nor this one")
        return batch.scores(*self.views()).confidences_BMS[:, :, 0]

@dataclass(frozen=True)
class Boxed(camatlas.BaseMetric):
    truth: ClassVar = "boxes"
    def __call__(self, batch):
        return batch.inside_BHW.float().mean((1, 2))[:, None].expand(batch.heatmaps_BMHW.shape[:2])
'''
IMAGES = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a module and images."""
    folder = tmp_path_factory.mktemp("plugged")
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    for i in range(IMAGES):
        Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        yield folder
    forget()


def forget() -> None:
    """Take the modules out of Python's memory, as another process would not have them."""
    for name in [name for name in sys.modules if name.endswith("_of_mine")]:
        del sys.modules[name]


def write(folder: Path, factor: float = 0.5) -> None:
    forget()
    (folder / "cams_of_mine.py").write_text(MODULE)
    (folder / "factors_of_mine.py").write_text(f"FACTOR = {factor}\n")


def fields(folder: Path, run: str = "run", **explain: object) -> dict[str, Any]:
    return {
        "data": {"shards": str(folder / "images"), "chunk_images": 2},
        "model": {"name": "nets:ToyNet", "layer": "features.3", "preprocess": {"resize": 32, "crop": 32}},
        "explain": {
            "methods": ["gradcam", {"cams_of_mine:MyCam": {"power": 2}}, {"cams_of_mine:Picky": {"as": "picky"}}],
            "metrics": ["average_drop", "cams_of_mine:Kept"],
        }
        | explain,
        "compute": {"device": "cpu", "batch": 8},
        "output": {"path": str(folder / run)},
    }


def prepared(settings: dict[str, Any]) -> PreparedRun:
    return prepare(absolute(config_of(settings)))


@pytest.fixture(scope="module")
def ended(place: Path) -> Ended:
    write(place)
    return explain_inline(fields(place))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(sorted(folder.glob("part-*.parquet"))).to_pylist()


def test_failures_are_rows_by_name_and_count_for_the_failure_rate(place: Path, ended: Ended) -> None:
    failed = {(row["image_key"], row["method"]): row for row in rows_of(place / "run") if row["error_code"]}
    of_method = {("1.png", "picky"): "method_error"}
    of_metric = {("2.png", method): "metric_error" for method in ("gradcam", "my_cam", "picky")}
    assert {place: row["error_code"] for place, row in failed.items()} == of_method | of_metric
    detail = failed["1.png", "picky"]["error_detail"]
    assert detail == "plug-in cams_of_mine:Picky raised ValueError: not this one (cams_of_mine.py:19)"
    assert failed["2.png", "my_cam"]["error_detail"].startswith("metric 'kept': plug-in cams_of_mine:Kept raised")
    assert ended.failures == {"explain/metric_error": 3, "explain/method_error": 1}
    assert (ended.images, ended.explained, ended.with_failures, ended.rows) == (5, 4, 2, 11)
    assert ended.failure_rate == 0.4


def test_readers_need_no_plugin(place: Path, ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.chdir("/")
    with open_run(place / "run") as run:
        assert verify(run.store).problems == []
        assert status(run.store, 0.0, None).failures.codes == ended.failures
        board = run.sql("SELECT method, kept FROM leaderboard ORDER BY method")
        assert list(board["method"]) == ["gradcam", "my_cam", "picky"]
        audited = audit(run, ask_model=False)
        facts = audited.facts
        assert facts["metrics"]["kept"] == {
            "name": "cams_of_mine:Kept", "unit": "confidence", "better": "lower", "reads": "probability"
        }  # fmt: skip
        best = [row["method"] for row in facts["leaderboard"]["rows"] if row["intervals"]["kept"]["best"]]
        assert best == [board.sort_values("kept")["method"].iloc[0]]
        assert {row["error_code"] for row in facts["failures"]["rows"]} == {"method_error", "metric_error"}
        assert "cams_of_mine:Picky" in render(audited.facts, audited.pictures)
        assert "kept (not judged)" in leaderboard_note(run.manifest.identity.metrics, shipped_record())
    assert "cams_of_mine" not in sys.modules


def test_a_changed_source_is_another_run_and_is_refused_in_the_folder(place: Path, ended: Ended) -> None:
    write(place)
    same = prepared(fields(place))
    write(place, factor=0.6)
    changed = prepared(fields(place, "other"))
    assert changed.manifest.run_id != same.manifest.run_id
    mine, theirs = changed.manifest.identity, same.manifest.identity
    assert changed_plugins(mine, theirs) == ["my_cam", "picky", "kept"]
    with pytest.raises(ConfigError, match=r"another run .*source of the plug-ins my_cam, picky, kept has changed"):
        prepared(fields(place))
    with (
        open_run(place / "run") as run,
        pytest.raises(ConfigError, match="source of the plug-ins my_cam, picky has changed since the run"),
    ):
        check_sanity(run, 2, 1)


def test_a_run_that_was_stopped_goes_on_to_the_same_rows(place: Path, ended: Ended) -> None:
    write(place)
    settings = fields(place, "stopped")
    publish_all(settings)
    parts = sorted((place / "stopped").glob("part-*.parquet"))
    for gone in parts[1:]:
        gone.unlink()
        for receipt in (place / "stopped" / "_receipts").glob(f"*{gone.stem.removeprefix('part-')}*"):
            receipt.unlink()
    forget()
    publish_all(settings)
    assert rows_of(place / "stopped") == rows_of(place / "run")


def test_the_sanity_check_runs_the_plugins_again(place: Path) -> None:
    write(place)
    publish_all(fields(place, "sane", methods=["gradcam", "cams_of_mine:MyCam"], metrics=[]))
    with open_run(place / "sane") as run:
        table = check_sanity(run, 2, 2).to_pylist()
    assert {row["method"] for row in table if row["test"] == "randomisation"} == {"gradcam", "my_cam"}


def test_the_measured_cost_reaches_batches_and_deadlines(place: Path) -> None:
    write(place)
    run = prepared(fields(place, "costly", methods=["cams_of_mine:MyCam"], metrics=[]))
    assert run.explainer_spec("cpu", 1).passes == 1
    assert images_together(16, run.explainer_spec("cpu", 1).passes) == 16


def test_runs_without_plugins_keep_their_id_and_entries(place: Path) -> None:
    identity = prepared(fields(place, "plain", methods=["gradcam"], metrics=["average_drop"])).manifest.identity
    assert identity.methods == {"gradcam": {"name": "gradcam"}}
    assert identity.metrics == {"average_drop": {"name": "average_drop", "fill": "mean", "mask": "soft", "share": 0.15}}


def test_the_modules_that_travel_are_those_of_the_plugins(place: Path) -> None:
    write(place)
    config = prepared(fields(place, "travel")).config
    names = classes_of([*config.explain.methods, *config.explain.metrics], "camatlas.methods")
    assert names == ["cams_of_mine:MyCam", "cams_of_mine:Picky", "cams_of_mine:Kept"]
    assert {"cams_of_mine", "factors_of_mine"} <= {module.__name__ for module in modules_beside(names)}


def test_a_metric_of_boxes_is_refused_where_no_image_has_any(place: Path) -> None:
    write(place)
    with pytest.raises(ConfigError, match="boxed needs boxes, but no image has any"):
        prepared(fields(place, "boxless", metrics=["cams_of_mine:Boxed"]))


def test_plugins_that_fail_the_trial_are_refused_with_all_other_mistakes(place: Path) -> None:
    write(place)
    (place / "bad_of_mine.py").write_text(MODULE.replace("return evidence.acts_BKuv.mean(1)", "return 3"))
    with pytest.raises(ConfigError) as caught:
        prepared(fields(place, "bad", methods=["bad_of_mine:Picky", "cams_of_mine:MyCam"], metrics=["boxed", "x:Y"]))
    assert {mistake.where for mistake in caught.value.mistakes} == {"explain.metrics"}
    with pytest.raises(ConfigError, match="plug-in bad_of_mine:Picky returned an int; a method returns a float tensor"):
        prepared(fields(place, "bad", methods=["bad_of_mine:Picky"], metrics=[]))
