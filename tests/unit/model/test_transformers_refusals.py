"""Models of transformers that cannot be explained are refused by one sentence, before any of their code could run."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub import errors
from models.tiny_transformers import NAMES, build, save
from safetensors.torch import load_file, save_file

from pipeline.errors import ConfigError
from pipeline.model.transformers_models import build_transformers
from pipeline.model.transformers_source import found_source, local_folder
from pipeline.settings.model import ModelConfig

CODE = "from pathlib import Path\nPath({!r}).write_text('run')\nclass Mine: pass\n"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    save(build("vit"), folder, "vit")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def refused(folder: Path, **fields: object) -> str:
    with pytest.raises(ConfigError) as caught:
        build_transformers(ModelConfig(name=f"transformers/{folder}", **fields))  # type: ignore[arg-type]
    assert len(caught.value.mistakes) == 1
    return str(caught.value)


def changed(folder: Path, file: str = "config.json", **entries: object) -> None:
    path = folder / file
    fields: dict[str, Any] = json.loads(path.read_text())
    fields |= entries
    path.write_text(json.dumps({name: value for name, value in fields.items() if value != "absent"}))


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "mine.Mine", "AutoModelForImageClassification": "mine.Mine"}}),
        ("config.json", {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}),
        ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "mine.Mine"}}),
        ("config.json", {"vision_config": {"auto_map": {"AutoConfig": "mine.Mine"}}}),
    ],
)
def test_code_beside_a_model_is_refused_and_never_runs(file: str, entries: dict[str, object], folder: Path) -> None:
    trace = folder / "ran"
    (folder / "mine.py").write_text(CODE.format(str(trace)))
    changed(folder, file, **entries)
    assert "comes with Python code of its own (auto_map), which is not run" in refused(folder)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"model_type": "vitt"}, "transformers does not know the architecture 'vitt' of"),
        ({"model_type": "absent"}, "its config.json lacks model_type"),
        ({"model_type": "timm_wrapper"}, "is a model of timm (give its name as timm/NAME)"),
        ({"model_type": "bert"}, "which has none for the classification of images in transformers"),
        ({"model_type": "wav2vec2"}, "which has none for the classification of images in transformers"),
        ({"hidden_size": "many"}, "the config.json of"),
        ({"num_attention_heads": 5}, "would be random: of another shape"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "is quantised"),
        ({"attn_implementation": "somebody/kernel"}, "asks for the attention kernel 'somebody/kernel'"),
        ({"hidden_size": 64}, "would be random: of another shape: classifier.weight"),
        ({"num_hidden_layers": 4}, "would be random: missing: vit."),
        ({"id2label": {}, "label2id": {}}, "is a feature extractor: it has no classifier"),
    ],
)
def test_a_configuration_that_does_not_serve_is_refused(entries: dict[str, object], words: str, folder: Path) -> None:
    changed(folder, **entries)
    assert words in refused(folder)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "has no config.json (give the folder that save_pretrained wrote)"),
        ("model.safetensors", "has no model.safetensors (save the model with save_pretrained)"),
        ("preprocessor_config.json", "model.preprocess: "),
    ],
)
def test_a_missing_file_is_named(file: str, words: str, folder: Path) -> None:
    (folder / file).unlink()
    assert words in refused(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_broken_configuration_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert str(folder / "config.json") in refused(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")
    assert "with these weights" in refused(folder)


def test_a_backbone_without_classifier_is_refused(tmp_path: Path) -> None:
    save(build("vit", "Model"), tmp_path, "vit")
    said = refused(tmp_path)
    assert "would be random: missing: classifier.bias, classifier.weight (give a model that was trained for it" in said


def test_quantised_weights_are_refused(folder: Path) -> None:
    with_weights(folder, lambda state: state.update({"classifier.weight": torch.ones(3, 32, dtype=torch.int8)}))
    assert "holds quantised weights of 8 bits (classifier.weight)" in refused(folder)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter beside a model (merge it" in refused(folder)


def test_tensors_that_are_not_used_are_said(folder: Path) -> None:
    with_weights(folder, lambda state: state.update({"pooler.weight": torch.ones(3)}))
    notes = build_transformers(ModelConfig(name=f"transformers/{folder}")).notes
    assert any("1 tensors of" in note and "pooler.weight" in note for note in notes)


def test_pickles_need_permission_and_hold_no_objects(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert "as a pickle only (pytorch_model.bin), which can run code" in refused(folder)
    found = build_transformers(ModelConfig(name=f"transformers/{folder}", allow_pt=True))
    assert torch.equal(found.model.state_dict()["classifier.weight"], state["classifier.weight"])
    torch.save({**state, "classifier.bias": SimpleNamespace()}, folder / "pytorch_model.bin")
    assert "with these weights" in refused(folder, allow_pt=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_classes": 7}, "model.num_classes: the weights of"),
        ({"weights": "imagenet"}, "model.weights: transformers has no weights 'imagenet'"),
        ({"weights": "absent.safetensors"}, "model.weights: there is no file 'absent.safetensors'"),
    ],
)
def test_settings_that_contradict_the_model_are_refused(fields: dict[str, object], words: str, folder: Path) -> None:
    assert words in refused(folder, **fields)


def test_videos_are_refused(folder: Path) -> None:
    settings = transformers.VideoMAEConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    transformers.VideoMAEForVideoClassification(settings).save_pretrained(folder)
    assert "has none for the classification of images" in refused(folder)


def test_folders_are_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("model", "./model", "~/model", str(folder)):
        assert local_folder(f"transformers/{name}") == folder
    assert [local_folder(name) for name in ("transformers/", "transformers/none", "model", "timm/model")] == [None] * 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nothing", "there is no folder './nothing'"),
        ("/nothing/here", "there is no folder '/nothing/here'"),
        ("a/b/c/d", "there is no folder 'a/b/c/d'"),
        ("", "there is no folder ''"),
    ],
)
def test_a_name_that_is_none_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found_source(f"transformers/{name}", weights=True, allow_pt=False)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.LocalEntryNotFoundError("x"), "not in the cache of the hub, and the hub cannot be reached"),
        (errors.RepositoryNotFoundError, "the hub has no model 'a/b@v1', or it is private"),
        (errors.RevisionNotFoundError, "the hub has no revision 'v1' of 'a/b'"),
        (OSError("no space"), "cannot fetch 'a/b@v1' from the hub: OSError: no space"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    error: Exception | Callable[..., Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object, local_files_only: bool, **_more: object) -> str:
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not cached")
        raise error if isinstance(error, Exception) else error("x", response=_Response())

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(ConfigError) as caught:
        found_source("transformers/a/b@v1", weights=True, allow_pt=False)
    assert words in str(caught.value)


class _Response(SimpleNamespace):
    """What the errors of the hub read of a response."""

    def __init__(self) -> None:
        super().__init__(headers={}, request=None, status_code=404)


def test_a_model_of_the_cache_needs_no_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def cached(name: str, **options: object) -> str:
        asked.append({"name": name, **options})
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    found = build_transformers(ModelConfig(name="transformers/a/b@v1"))
    assert found.class_names == NAMES
    assert found.identity["name"] == "transformers/a/b@v1"
    assert [(each["name"], each["revision"], each["local_files_only"]) for each in asked] == [("a/b", "v1", True)]
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no model.safetensors"):
        build_transformers(ModelConfig(name="transformers/a/b"))
    assert [each["local_files_only"] for each in asked[1:]] == [True, False]


def test_a_missing_library_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'camatlas[transformers]'" in refused(folder)
