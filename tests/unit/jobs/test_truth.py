"""camatlas truth and camatlas judge: what they print, where, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner, Result

from jobs.cli import app
from pipeline.judge import judging
from pipeline.truth import training
from pipeline.truth.networks import NETWORKS
from pipeline.truth.training import Trained


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_make_prints_the_run_file_and_says_what_was_left_out(tmp_path: Path) -> None:
    ended = run("truth", "make", tmp_path / "scenes", "--network", "hand", "--scenes", 3)
    assert ended.exit_code == 0
    assert ended.stdout.strip() == str(tmp_path / "scenes" / "run.yaml")
    assert "3 scenes written; 'hand' classifies 100 % rightly" in ended.stderr
    assert not list(tmp_path.glob(".*"))


def test_make_refuses_a_folder_with_files_and_an_unknown_network(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    full = run("truth", "make", tmp_path, "--network", "hand")
    assert (full.exit_code, "exists and is not empty" in full.stderr) == (2, True)
    unknown = run("truth", "make", tmp_path / "new", "--network", "vitt")
    assert (unknown.exit_code, "unknown network 'vitt'" in unknown.stderr, "'vit'" in unknown.stderr) == (2, True, True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_training_keeps_what_is_there_and_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(name: str, seed: int, report: object, scenes: int) -> Trained:
        if name == "vit":
            raise KeyboardInterrupt
        return Trained(NETWORKS[name](), 0.5)

    monkeypatch.setattr(training, "train", trained)
    (tmp_path / "plain.safetensors").write_bytes(b"mine")
    ended = run("truth", "train", tmp_path)
    assert ended.exit_code == 130
    assert (tmp_path / "plain.safetensors").read_bytes() == b"mine"
    assert load_file(tmp_path / "residual.safetensors").keys() == NETWORKS["residual"]().state_dict().keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.safetensors", "residual.safetensors"]


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_EPOCHS", {"plain": 1})
    monkeypatch.setattr(training, "TEST_SCENES", 16)
    monkeypatch.setattr(training, "accuracy", lambda _model, _seed: 0.0)
    states = [training.train("plain", 5, lambda _line: None, scenes=128).model.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge nothing: return a record made by hand."""
    from records import record_fields

    def judge(*_arguments: object, **_options: object) -> dict[str, Any]:
        return record_fields()

    monkeypatch.setattr(judging, "judge", judge)


@pytest.mark.usefixtures("quick")
def test_judge_writes_both_files_and_prints_the_path_or_the_record(tmp_path: Path) -> None:
    ended = run("judge", tmp_path / "judge")
    assert ended.exit_code == 0
    assert ended.stdout.strip() == str(tmp_path / "judge" / "judge.json")
    assert (tmp_path / "judge" / "metrics.md").read_text().startswith("# How far each metric can be believed")
    printed = run("judge", tmp_path / "judge", "--json")
    assert json.loads(printed.stdout) == json.loads((tmp_path / "judge" / "judge.json").read_text())


def test_an_unknown_network_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    ended = run("judge", tmp_path / "judge", "--networks", "plain,residuel")
    assert ended.exit_code == 2
    assert "'residuel' is no network to judge on" in ended.stderr
    assert not (tmp_path / "judge").exists()
    assert isinstance(NETWORKS["plain"](), nn.Module)
