"""A model of the user's: its module lies in the working folder alone, and its checkpoint is as training saved it."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e.runs import Settings, table_of
from inline import explain_inline
from torch import nn

from jobs.explain import Ended
from pipeline.errors import ConfigError
from pipeline.results.query import open_run
from pipeline.settings.functions import called, imported

HEAD = """
from torch import nn

class Head(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear = nn.Linear(8, classes)

    def forward(self, acts):
        return self.linear(acts.mean((2, 3)))
"""
NETWORK = """
import threading
import torch
from torch import nn
from head_of_mine import Head

class Network(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
        self.head = Head(classes)

    def forward(self, pixels):
        return self.head(self.body(pixels).relu())

def build(classes):
    return Network(classes)

def parallel(classes):
    return nn.DataParallel(Network(classes))

def compiled(classes):
    return torch.compile(Network(classes))

def locked(classes):
    model = Network(classes)
    model.lock = threading.Lock()
    return model
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with the modules and the checkpoints."""
    (tmp_path / "head_of_mine.py").write_text(HEAD)
    (tmp_path / "network_of_mine.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    build = imported("model.name", "network_of_mine:build")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        right, other = (called("model.name", "", build, {"classes": 5}) for _ in range(2))
    for path, content in checkpoints(right, other).items():
        torch.save(content, tmp_path / path)
    yield tmp_path
    for name in ("head_of_mine", "network_of_mine"):
        sys.modules.pop(name, None)


def checkpoints(right: nn.Module, other: nn.Module) -> dict[str, Any]:
    state = right.state_dict()
    options = argparse.Namespace(model="mine", lr=0.1)
    lightning = {f"model.{name}": tensor for name, tensor in state.items()}
    average = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "bare.pth": state,
        "last.ckpt": {"state_dict": lightning, "epoch": 3, "hyper_parameters": {"lr": 0.1}, "optimizer_states": [{}]},
        "best.pth.tar": {"state_dict": other.state_dict(), "state_dict_ema": average, "args": options, "epoch": 7},
    }


def with_model(settings: Settings, folder: Path, run: str, **model: object) -> Settings:
    given = {
        "name": "network_of_mine:build", "arguments": {"classes": 5}, "weights": str(folder / "bare.pth"),
        "allow_pt": True, "layer": "body", "preprocess": settings["model"]["preprocess"], **model,
    }  # fmt: skip
    data = {name: value for name, value in settings["data"].items() if name in ("shards", "chunk_images")}
    return {"data": {**data, "limit": 8}, "model": given, "explain": settings["explain"], "output": {"path": run}}


@pytest.mark.slow
def test_wrapped_models_and_nested_checkpoints_give_the_bare_rows(
    settings: Settings, own: Path, explained: Callable[[Settings], Ended], capsys: pytest.CaptureFixture[str]
) -> None:
    variants: dict[str, dict[str, object]] = {
        "bare": {},
        "lightning": {"name": "network_of_mine:parallel", "weights": str(own / "last.ckpt")},
        "ema": {
            "name": "network_of_mine:compiled", "weights": str(own / "best.pth.tar"), "weights_key": "state_dict_ema",
        },
    }  # fmt: skip
    said = {}
    for run, model in variants.items():
        explain = explained if run == "lightning" else explain_inline
        explain(with_model(settings, own, str(own / run), **model))
        said[run] = capsys.readouterr().err
    rows = table_of(own / "bare")
    assert rows["error_code"].to_pylist().count(None) == 14  # one of the eight demo images is damaged
    for run in ("lightning", "ema"):
        assert table_of(own / run).equals(rows), run
    assert [line for line in said["bare"].splitlines() if "note: " in line and "labels are no class" not in line] == []
    assert said["lightning"].count("last.ckpt were found in 'state_dict' under the prefix 'model.'") == 1
    assert said["ema"].count("best.pth.tar were found in 'state_dict_ema' under the prefix 'module.'") == 1
    with open_run(str(own / "bare")) as opened:
        assert opened.manifest.identity.model["arguments"] == {"classes": 5}


def test_a_model_that_cannot_travel_is_refused(
    settings: Settings, own: Path, explained: Callable[[Settings], Ended]
) -> None:
    with pytest.raises(ConfigError, match=r"model\.name: it cannot be sent to the workers: .*cannot pickle"):
        explained(with_model(settings, own, str(own / "run"), name="network_of_mine:locked"))
    assert not list((own / "run").glob("*.parquet"))
