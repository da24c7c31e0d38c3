"""Weights files must fit the model exactly, and no code in them runs."""

import pickle
from pathlib import Path

import pytest
import torch
from nets import ToyNet
from safetensors.torch import save_file

from pipeline.errors import ConfigError
from pipeline.model.weights import digest, load_weights


def saved(path: Path, seed: int = 1, **changes: torch.Tensor) -> str:
    save_file({**ToyNet(seed).state_dict(), **changes}, path)
    return str(path)


def test_safetensors_are_loaded_and_change_the_digest(tmp_path: Path) -> None:
    model = ToyNet(0)
    before = digest(model)
    load_weights(model, saved(tmp_path / "w.safetensors"), allow_pt=False)
    assert digest(model) == digest(ToyNet(1)) != before


def test_half_precision_is_converted_to_float32(tmp_path: Path) -> None:
    model, path = ToyNet(0), tmp_path / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in ToyNet(1).state_dict().items()}, path)
    load_weights(model, str(path), allow_pt=False)
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())
    torch.testing.assert_close(model.linear.weight, ToyNet(1).linear.weight.half().float(), rtol=0, atol=0)


def test_missing_extra_and_misshapen_tensors_are_refused(tmp_path: Path) -> None:
    extra = saved(tmp_path / "extra.safetensors", other=torch.zeros(2))
    shape = saved(tmp_path / "shape.safetensors", **{"linear.bias": torch.zeros(9)})
    lean = tmp_path / "lean.safetensors"
    save_file({"linear.bias": torch.zeros(4)}, lean)
    for path, word in ((extra, "other"), (shape, "linear.bias"), (str(lean), "features.0.weight")):
        with pytest.raises(ConfigError, match=word):
            load_weights(ToyNet(0), path, allow_pt=False)


@pytest.mark.parametrize("content", [b"", b"garbage", (1 << 60).to_bytes(8, "little") + b"{}"])
def test_files_that_are_not_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"not a valid safetensors file: .*if it is a pickle: .*convert it once"):
        load_weights(ToyNet(0), str(path), allow_pt=False)


def test_a_missing_file_and_an_unknown_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load_weights(ToyNet(0), str(tmp_path / "none.safetensors"), allow_pt=False)
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"not a \.safetensors file"):
        load_weights(ToyNet(0), str(tmp_path / "w.onnx"), allow_pt=True)


def test_pickles_must_be_allowed_and_contain_only_tensors(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": ToyNet(1).state_dict()}, path)
    with pytest.raises(ConfigError, match="pickle"):
        load_weights(ToyNet(0), str(path), allow_pt=False)
    model = ToyNet(0)
    load_weights(model, str(path), allow_pt=True)
    assert digest(model) == digest(ToyNet(1))


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, (str(self.path), "w"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_a_pickle_never_runs_code(tmp_path: Path, name: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / name
    path.write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ConfigError):
        load_weights(ToyNet(0), str(path), allow_pt=True)
    assert not canary.exists()
