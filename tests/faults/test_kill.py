"""Kills the driver with kill -9 at random moments, then runs the same command again."""

from pathlib import Path

import pytest
import yaml
from e2e.runs import Settings, table_of, write_run_file
from faults.checker import check
from faults.harness import kill_repeatedly
from inline import publish_all

from pipeline.data.packing import pack_images
from pipeline.demo.data import run_file, write_demo
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore


def scenes_run(folder: Path, name: str, scenes: int) -> tuple[Path, Path]:
    if not (folder / "shards").exists():
        write_demo(folder, scenes=scenes, scenes_per_shard=24)
    fields = run_file(folder)
    fields["data"] = {**fields["data"], "chunk_images": 6}  # type: ignore[dict-item]
    fields["explain"] = {**fields["explain"], "methods": ["gradcam", "scorecam"]}  # type: ignore[dict-item]
    fields["output"] = {"path": str(folder / name)}
    return write_run_file(fields, folder / f"{name}.yaml"), folder / name


def photographs_run(folder: Path, name: str, data: Path) -> tuple[Path, Path]:
    """Write a run of ImageNet photographs with SqueezeNet and methods that need few passes."""
    if not (folder / "shards").exists():
        pack_images(data / "imagenet_val", folder / "shards", images_per_shard=100)
    fields: Settings = {
        "data": {"shards": str(folder / "shards" / "*.tar"), "classes": "imagenet-1k", "chunk_images": 16},
        "model": {
            "name": "torchvision/squeezenet1_1",
            "weights": str(data / "weights" / "squeezenet1_1.safetensors"),
            "preprocess": "squash",
        },
        "explain": {
            "targets": "label",
            "methods": ["gradcam", "gradcam_pp", {"integrated_gradcam": {"steps": 10}}],
            "metrics": ["average_drop", "increase", "pointing_game", "energy_in_box"],
        },
        "output": {"path": str(folder / name)},
    }
    return write_run_file(fields, folder / f"{name}.yaml"), folder / name


def check_that_kills_change_nothing(
    undisturbed: tuple[Path, Path], killed: tuple[Path, Path], images: int, kills: int, seed: int, longest: float
) -> None:
    publish_all(yaml.safe_load(undisturbed[0].read_text()))
    assert kill_repeatedly(*killed, kills, seed, longest) == []
    assert check(killed[1], images=images) == []
    assert verify(LocalStore(killed[1])).problems == []
    assert table_of(killed[1]).equals(table_of(undisturbed[1]))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_whose_driver_was_killed_equals_an_undisturbed_run(tmp_path: Path) -> None:
    undisturbed = scenes_run(tmp_path, "undisturbed", scenes=72)
    killed = scenes_run(tmp_path, "killed", scenes=72)
    check_that_kills_change_nothing(undisturbed, killed, images=72, kills=1, seed=7, longest=20)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_a_run_whose_driver_was_killed_thirty_times_equals_an_undisturbed_run(tmp_path: Path) -> None:
    undisturbed = scenes_run(tmp_path, "undisturbed", scenes=720)
    killed = scenes_run(tmp_path, "killed", scenes=720)
    check_that_kills_change_nothing(undisturbed, killed, images=720, kills=30, seed=20261120, longest=45)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_a_run_of_photographs_equals_an_undisturbed_run_after_ten_kills(tmp_path: Path, data_folder: Path) -> None:
    undisturbed = photographs_run(tmp_path, "undisturbed", data_folder)
    killed = photographs_run(tmp_path, "killed", data_folder)
    check_that_kills_change_nothing(undisturbed, killed, images=525, kills=10, seed=2020, longest=40)
