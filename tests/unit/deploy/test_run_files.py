"""The run files of the papers: each is valid, and its command and data are in the guide next to them."""

import re
from pathlib import Path

import pytest
from torchvision import models

from pipeline.cams import build_methods
from pipeline.data.archives import ARCHIVES
from pipeline.metrics import build_metrics
from pipeline.settings.run_file import RunConfig, load_config
from pipeline.settings.targets import TargetRules

ROOT = Path(__file__).resolve().parents[3]
RUNS = ROOT / "deploy" / "runs"
FILES = sorted(RUNS.glob("*/*.yaml"))
GUIDE = (RUNS / "README.md").read_text(encoding="utf-8")
OUTPUTS = {"data/voc2007": 20, "data/cub200": 200, "data/imagenet-val": None}
"""`model.num_classes` for each dataset; None where the model already has the right number of classes."""
PAPERS = {
    "integrated_gradcam": "integrated_gradcam", "iscam": "iscam", "increment_cam": "increment_cam",
    "integrative_cam": "integrative_cam",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(RUNS).as_posix()


@pytest.fixture(params=FILES, ids=name_of)
def config(request: pytest.FixtureRequest) -> RunConfig:
    """A valid run file."""
    return load_config(str(request.param))


def test_each_paper_has_its_folder_and_its_command() -> None:
    assert {path.parent.name for path in FILES} == set(PAPERS)
    assert all(f"for run in deploy/runs/{folder}/*.yaml;" in GUIDE for folder in PAPERS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_paper_runs_its_own_method(path: Path) -> None:
    methods = build_methods(load_config(str(path)).explain.methods)
    assert PAPERS[path.parent.name] in methods


def test_methods_metrics_and_targets_can_be_built(config: RunConfig) -> None:
    assert len(build_methods(config.explain.methods)) >= 3
    assert len(build_metrics(config.explain.metrics)) >= 5
    TargetRules.of(config.explain.targets).check(config.model.num_classes or 1000)


def test_the_model_and_its_weights_exist(config: RunConfig) -> None:
    """Weights are named, or safetensors files that the guide asks the user to supply."""
    name, weights = config.model.name.removeprefix("torchvision/"), config.model.weights or ""
    assert weights.endswith(".safetensors") or weights in models.get_model_weights(name).__members__
    assert name in models.list_models(module=models)
    assert config.model.num_classes == OUTPUTS[str(config.data.shards)]
    assert (config.model.num_classes is None) == (not weights.endswith(".safetensors"))


def test_the_data_is_where_the_guide_packs_it(config: RunConfig) -> None:
    kind = str(config.data.shards).removeprefix("data/")
    assert kind in ARCHIVES
    assert re.search(rf"camatlas pack --from {kind} \S+ data/{kind}\n", GUIDE)
    assert config.data.classes == f"data/{kind}/classes.csv"
    assert (config.data.sample is not None) == (kind == "imagenet-val")


def test_no_two_runs_share_a_folder() -> None:
    paths = [load_config(str(path)).output.path for path in FILES]
    assert len(set(paths)) == len(paths)


def test_the_main_readme_points_here() -> None:
    assert "deploy/runs/README.md" in (ROOT / "README.md").read_text(encoding="utf-8")
