"""What surrounds a run is checked before it: the device, the working folder, and where the output lies."""

from pathlib import Path

import pytest
import torch

from pipeline.data.sources import Shard
from pipeline.errors import ConfigError
from pipeline.run.surroundings import check_device, check_output, check_working_folder
from pipeline.settings.run_file import ComputeConfig


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"compute\.device: torch finds no GPU on this machine"):
        check_device(ComputeConfig(device="cuda"))


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("compute", [ComputeConfig(), ComputeConfig(device="cuda", address="auto")])
def test_other_devices_and_those_of_a_cluster_are_not_looked_for_here(compute: ComputeConfig) -> None:
    check_device(compute)


@pytest.mark.parametrize("module", ["pipeline.py", "schemas/__init__.py", "jobs.py", "camatlas.py"])
def test_a_module_that_workers_would_import_instead_of_ours_is_refused(tmp_path: Path, module: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit(1)\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="workers would import") as caught:
        check_working_folder(tmp_path)
    assert str(path) in str(caught.value)


def test_folders_that_are_no_packages_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    check_working_folder(tmp_path)
    check_working_folder(Path(__file__).resolve().parents[3])


def shard(kind: str, location: Path) -> Shard:
    return Shard(0, "a", kind, str(location), 1, "f")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "output", "refused"),
    [
        ("folder", "data", True),
        ("folder", "data/run", True),
        ("folder", "data/../data/run", True),
        ("folder", "run", False),
        ("folder", "database", False),
        ("tar", "data", True),
        ("tar", "data/run", False),
    ],
)
def test_a_run_folder_in_its_own_data_is_refused(tmp_path: Path, kind: str, output: str, refused: bool) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shards = [shard(kind, data if kind == "folder" else data / "a.tar")]
    if not refused:
        check_output(str(tmp_path / output), str(data), shards)
        return
    with pytest.raises(ConfigError, match=r"output\.path.*lies in data\.shards"):
        check_output(str(tmp_path / output), [str(data)], shards)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_tf32_without_a_gpu_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=r"compute\.precision: tf32 needs NVIDIA GPUs"):
        check_device(ComputeConfig(device=device, precision="tf32"))  # type: ignore[arg-type]
    if device == "auto":
        check_device(ComputeConfig(precision="tf32", address="auto"))
