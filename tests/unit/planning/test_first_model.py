"""The model of a new run file: named, found beside the images, or assumed."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from pipeline.errors import ConfigError
from pipeline.planning.first_model import choose_model, resnet_of
from pipeline.planning.machine import Machine, this_machine
from pipeline.settings.model import ModelConfig


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a fine-tuned ResNet-18 with three classes, beside a folder of images."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "images").mkdir()
    save_file(resnet18(num_classes=3).state_dict(), folder / "mine.safetensors")
    return folder / "mine.safetensors"


def test_weights_beside_the_images_are_found_with_their_architecture(weights: Path) -> None:
    found = choose_model(None, None, weights.parent / "images")
    assert found.fields == {"name": "torchvision/resnet18", "weights": str(weights), "num_classes": 3}
    assert (found.outputs, found.is_imagenet, found.is_assumed) == (3, False, False)
    assert "Found beside the images: mine.safetensors." in found.notes


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[ModelConfig]:
    """The sections `model` that are asked for; none is built."""
    asked: list[ModelConfig] = []

    def load(config: ModelConfig) -> SimpleNamespace:
        asked.append(config)
        return SimpleNamespace(notes=())

    monkeypatch.setattr("pipeline.model.zoo.load_model", load)
    return asked


def test_a_file_of_weights_can_be_named_instead_of_a_model(weights: Path, built: list[ModelConfig]) -> None:
    wanted = {"name": "torchvision/resnet18", "weights": str(weights), "num_classes": 3}
    assert choose_model(str(weights), None, Path("/")).fields == wanted
    assert choose_model("torchvision/resnet18", str(weights), Path("/")).fields == wanted
    assert choose_model(None, str(weights), Path("/")).fields == wanted
    assert [config.weights for config in built] == [str(weights)] * 3


def test_weights_of_unknown_names_ask_for_their_architecture(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "own.safetensors")
    with pytest.raises(ConfigError, match=r"not the name of their architecture .*--model torchvision/NAME --weights"):
        choose_model(str(tmp_path / "own.safetensors"), None, tmp_path)
    for damaged in (b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x04\0\0\0\0\0\0\0nul"):
        (tmp_path / "own.safetensors").write_bytes(damaged)
        assert resnet_of(tmp_path / "own.safetensors") is None


def test_without_a_model_a_usual_one_is_assumed_and_nothing_is_downloaded(
    tmp_path: Path, built: list[ModelConfig]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    save_file({"a.weight": torch.zeros(2)}, images / "other.safetensors")
    found = choose_model(None, None, images)
    assert (found.fields, found.is_assumed) == ({"name": "torchvision/resnet50", "weights": "DEFAULT"}, True)
    assert [config.weights for config in built] == ["random"]
    assert any("Files of models lie beside the images (other.safetensors)" in note for note in found.notes)


def test_a_folder_of_transformers_is_named_by_its_path(tmp_path: Path, built: list[ModelConfig]) -> None:
    (tmp_path / "images").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "vit" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "vit" / name).write_bytes(b"{}")
    for name in (str(tmp_path / "vit"), f"transformers/{tmp_path}/vit", None):
        assert choose_model(name, None, tmp_path / "images").fields["name"] == f"transformers/{tmp_path}/vit"
    assert [config.name for config in built] == [f"transformers/{tmp_path}/vit"] * 3


def test_a_function_keeps_the_weights_that_it_loads() -> None:
    found = choose_model("layouts.net:of", None, Path("/"))
    assert (dict(found.fields), found.outputs) == ({"name": "layouts.net:of", "weights": None}, 10)
    assert any("model.preprocess is not stated" in note for note in found.notes)


def test_the_machine_is_described_within_the_limits_of_its_container(tmp_path: Path) -> None:
    (tmp_path / "gpus").mkdir()
    for bus in ("0000:01", "0000:02"):
        (tmp_path / "gpus" / bus).mkdir()
    (tmp_path / "max").write_text(f"{3 * 2**30}\n", encoding="ascii")
    assert str(this_machine(tmp_path / "gpus", tmp_path / "max")).endswith("2 GPUs, 3 GiB of memory")
    (tmp_path / "max").write_text("max\n", encoding="ascii")
    assert this_machine(tmp_path / "none", tmp_path / "max").gpus == 0
    assert str(Machine(1, 0, 2**30)) == "1 CPU, no GPUs, 1 GiB of memory"
