"""Tasks in a run file: what is found, what is said, and every refusal."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import task_nets
import torch
from safetensors.torch import save_file
from task_nets import seeded
from torch import Tensor, nn
from torchvision import models

from pipeline.errors import ConfigError
from pipeline.model.outputs import Outputs
from pipeline.model.tasks import Detection, FunctionTask, Segmentation, Similarity, ZeroShot, task_of
from pipeline.model.tasks.detection import check_padding
from pipeline.model.trial import tried_outputs
from pipeline.model.zoo import LoadedModel, load_model
from pipeline.settings.model import ModelConfig

NAMES = ("cat", "dog", "bird")
PREPROCESS = {"resize": None, "crop": task_nets.SIDE, "mean": [0.0] * 3, "std": [1.0] * 3}


def vectors(names: tuple[str, ...] = NAMES, width: int = 5) -> dict[str, Tensor]:
    rows_ND = torch.randn(len(names), width, generator=torch.Generator().manual_seed(1))
    return dict(zip(names, rows_ND, strict=True))


def loaded(net: str, class_names: tuple[str, ...] = (), **fields: object) -> LoadedModel:
    given = {"name": f"task_nets:{net}", "weights": None, "layer": "body.3", "preprocess": PREPROCESS, **fields}
    return load_model(ModelConfig.model_validate(given), class_names)


def refusal(net: str, class_names: tuple[str, ...] = (), **fields: object) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(net, class_names, **fields)
    return str(caught.value)


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., str]:
    """Write a file of embeddings."""

    def write(content: dict[str, Tensor] | None = None, metadata: dict[str, str] | None = None, **more: Tensor) -> str:
        path = tmp_path / "texts.safetensors"
        given = vectors() if content is None else content
        save_file({**given, **more}, path, metadata)
        return str(path)

    return write


def test_a_segmentation_has_softmax_over_its_classes() -> None:
    model = loaded("Segmenter", task="segmentation")
    assert model.outputs == Outputs("softmax", None, False, Segmentation())
    assert model.classes == task_nets.CLASSES
    assert model.outputs.identity() == {"task": "segmentation"}
    assert any("'out' is read" in note for note in model.notes)


def test_a_detector_has_independent_scores() -> None:
    model = loaded("Detector", task="detection")
    assert model.outputs == Outputs("probabilities", None, True, Detection(task_nets.CLASSES))
    assert model.outputs.identity() == {"outputs": "probabilities", "independent": True, "task": "detection"}
    assert model.model.score_thresh == 0.4  # lowered in the trial only


def test_a_silent_detector_is_tried_below_its_threshold() -> None:
    assert loaded("Detector", arguments={"threshold": 0.999}, task="detection").classes == task_nets.CLASSES


def test_a_function_reduces_what_a_model_returns() -> None:
    model = loaded("Segmenter", task="task_nets:first_class_of_pixels")
    assert isinstance(model.outputs.task, FunctionTask)
    identity = model.outputs.identity()
    assert identity["task"] == "task_nets:first_class_of_pixels"
    assert len(identity["task_source"]) == 16
    assert pickle.loads(pickle.dumps(model.outputs)) == model.outputs


def test_similarity_has_no_confidences(texts: Callable[..., str]) -> None:
    model = loaded("Encoder", task="similarity", reference_embeddings=texts())
    assert (model.outputs.kind, model.classes) == ("raw", 3)
    assert model.class_names == ("bird", "cat", "dog")
    assert any("alphabetical order: bird, cat, dog" in note for note in model.notes)
    assert set(model.outputs.identity()) == {"outputs", "task", "embeddings_sha256"}


def test_the_order_is_that_of_the_classes_or_of_the_file(texts: Callable[..., str]) -> None:
    scale = {"logit_scale": torch.tensor([10.0])}
    stated = texts(metadata={"names": json.dumps(["dog", "bird", "cat"])}, **scale)
    in_file = loaded("Encoder", text_embeddings=stated)
    assert in_file.class_names == ("dog", "bird", "cat")
    by_data = loaded("Encoder", NAMES, text_embeddings=stated)
    assert by_data.class_names == NAMES
    assert in_file.outputs.identity() != by_data.outputs.identity()
    pixels_BCHW = task_nets.images()
    with torch.no_grad():
        one, other = (each.outputs.logits(each.model(pixels_BCHW)) for each in (in_file, by_data))
    assert torch.equal(one[:, [2, 0, 1]], other)
    fewer = loaded("Encoder", ("dog", "cat"), text_embeddings=stated)
    assert fewer.class_names == ("dog", "cat")
    assert any("1 vectors of" in note and "left out" in note and note.endswith("bird") for note in fewer.notes)


def test_the_scale_is_that_of_the_file_the_key_or_the_model(texts: Callable[..., str]) -> None:
    def scale(path: str, arguments: dict[str, Any] | None = None, **fields: object) -> float:
        task = loaded("Encoder", text_embeddings=path, arguments=arguments or {}, **fields).outputs.task
        assert isinstance(task, ZeroShot)
        return task.scale

    assert scale(texts(), {"scale": 3.0}) == pytest.approx(torch.tensor(3.0).exp().item())
    assert scale(texts(), logit_scale=50) == 50
    assert scale(texts(logit_scale=torch.tensor([20.0])), {"scale": 3.0}) == 20


def test_a_bias_makes_it_a_sigmoid(texts: Callable[..., str]) -> None:
    path = texts(logit_scale=torch.tensor(10.0), logit_bias=torch.tensor(-5.0))
    assert loaded("Encoder", text_embeddings=path, outputs="sigmoid").outputs.kind == "sigmoid"
    assert loaded("Encoder", text_embeddings=path, outputs="softmax").outputs.kind == "softmax"
    automatic = loaded("Encoder", text_embeddings=path)
    assert automatic.outputs.kind == "sigmoid"
    assert any("logit_bias -5 belongs to a sigmoid" in note for note in automatic.notes)


@pytest.mark.parametrize("form", ["tensor", "image_embeds", "pooler_output"])
def test_the_embedding_is_found(form: str, texts: Callable[..., str]) -> None:
    model = loaded("Encoder", arguments={"form": form}, task="similarity", reference_embeddings=texts())
    assert model.classes == 3


@pytest.mark.parametrize(
    ("net", "fields", "said"),
    [
        ("Segmenter", {"task": "segmentation", "arguments": {"form": "labels"}}, "needs logits (B, N, H, W)"),
        ("Segmenter", {"task": "segmentation", "arguments": {"form": "softmax"}}, "each row sums to 1"),
        ("Segmenter", {"task": "segmentation", "arguments": {"classes": 1}}, "set it to binary"),
        ("Segmenter", {"task": "segmentation", "outputs": "probabilities"}, "no outputs of the kind probabilities"),
        ("Segmenter", {"task": "segmentation", "outputs": "binary"}, "binary needs one output per image"),
        ("Segmenter", {"task": "detection"}, "has no such head as torchvision's"),
        ("Segmenter", {"task": "similarity"}, "model.reference_embeddings: is required"),
        ("Segmenter", {"task": "task_nets:nothing"}, "has no 'nothing'"),
        ("Segmenter", {"task": "task_nets:as_it_is"}, "must return a float tensor (B, N)"),
        ("Segmenter", {"task": "task_nets:as_it_is", "output_key": "out"}, "model.output_key: has no effect"),
        ("Segmenter", {}, "the model must return logits (B, N)"),
        ("Detector", {"task": "detection", "outputs": "softmax"}, "no outputs of the kind softmax"),
        ("Detector", {"task": "detection", "output_key": 0}, "model.output_key: has no effect"),
        ("Detector", {"task": "detection", "layer": "auto"}, "'auto' does not know which layers"),
        ("Detector", {"task": "detection", "arguments": {"classes": None}}, "give the model an attribute num_classes"),
        ("Detector", {"task": "detection", "arguments": {"classes": 2}}, "found class 3, but has 2 classes"),
        ("Detector", {"task": "detection", "arguments": {"off": -2}}, "found class -1"),
        ("Encoder", {"task": "detection", "arguments": {"form": "tensor"}}, "has no such head"),
        ("Encoder", {"logit_scale": 10.0}, "model.logit_scale: has no effect without model.text_embeddings"),
        ("Encoder", {"text_embeddings": "nowhere.safetensors"}, "there is no file 'nowhere.safetensors'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(net: str, fields: dict[str, Any], said: str) -> None:
    assert said in refusal(net, **fields)


def test_a_layer_behind_the_scores_is_refused() -> None:
    with pytest.raises(ConfigError, match="do not depend on layer"):
        loaded("DetectorWithBranch", task="detection", layer="branch", layout="channels_first")


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (vectors(width=4), {"logit_scale": 10}, "the vectors have 4 numbers, but the model's embeddings have 5"),
        ({**vectors(), "cat": torch.zeros(5)}, {}, "the vector of 'cat' is zero"),
        ({**vectors(), "cat": torch.full((5,), torch.nan)}, {}, "the vector of 'cat' contains NaN"),
        ({**vectors(), "cat": torch.ones(4)}, {}, "different widths"),
        ({"all": torch.ones(3, 5)}, {}, "'all' must be a vector (D,)"),
        ({**vectors(), "cat": torch.ones(5, dtype=torch.long)}, {}, "must be a vector (D,) of floats"),
        ({"logit_scale": torch.ones(1)}, {}, "holds no vectors"),
        ({**vectors(), "logit_scale": torch.ones(2)}, {}, "'logit_scale' must be one number"),
        (vectors(("cat",)), {"logit_scale": 10}, "a softmax over the only class 'cat' is always 1"),
        (vectors(), {}, "model.logit_scale: is not known"),
        (vectors(), {"arguments": {"scale": 100.0}}, "no logarithm of a factor"),
        (vectors(), {"arguments": {"scale": 3.0}, "logit_scale": 3.0}, "give the factor itself, 20.09"),
        ({**vectors(), "logit_scale": torch.ones(1)}, {"logit_scale": 3.0}, "says 1.0"),
        (vectors(), {"logit_scale": 10, "outputs": "sigmoid"}, "sigmoid needs logit_bias"),
        (vectors(), {"logit_scale": 10, "outputs": "binary"}, "zero_shot has no outputs of the kind binary"),
        (vectors(), {"logit_scale": 10, "task": "segmentation"}, "model.task: has no effect beside"),
        (vectors(), {"logit_scale": 10, "arguments": {"form": "several"}}, "in which the logits are ambiguous"),
        (vectors(), {"logit_scale": 10, "arguments": {"form": "map"}}, "embeddings are (B, D)"),
    ],
)  # fmt: skip
def test_embeddings_that_do_not_fit_are_refused(
    content: dict[str, Tensor], fields: dict[str, Any], said: str, texts: Callable[..., str]
) -> None:
    assert said in refusal("Encoder", text_embeddings=texts(content), **fields)


def test_names_of_classes_must_be_there(texts: Callable[..., str]) -> None:
    path = texts(logit_scale=torch.tensor(10.0))
    assert "no vector for 'bid'" in (said := refusal("Encoder", ("cat", "bid"), text_embeddings=path))
    assert "did you mean 'bird'?" in said
    assert "two classes are named 'cat'" in refusal("Encoder", ("cat", "cat"), text_embeddings=path)
    assert "differ: 'bird'" in refusal("Encoder", text_embeddings=texts(metadata={"names": '["cat", "dog"]'}))
    assert "must be a JSON list" in refusal("Encoder", text_embeddings=texts(metadata={"names": "{}"}))
    assert "cannot be read" in refusal("Encoder", text_embeddings=texts(metadata={"names": "["}))


def test_references_need_their_task(texts: Callable[..., str]) -> None:
    path = texts()
    assert "needs model.task: similarity" in refusal("Encoder", reference_embeddings=path)
    said = refusal("Encoder", reference_embeddings=path, text_embeddings=path, logit_scale=3.0)
    assert "model.reference_embeddings: has no effect beside" in said


def test_pickles_are_refused(tmp_path: Path) -> None:
    torch.save(vectors(), tmp_path / "texts.pt")
    assert "other files can run code" in refusal("Encoder", text_embeddings=str(tmp_path / "texts.pt"))
    (tmp_path / "texts.pt").rename(tmp_path / "texts.safetensors")
    said = refusal("Encoder", text_embeddings=str(tmp_path / "texts.safetensors"))
    assert said.startswith("model.text_embeddings: ")
    assert "not a valid safetensors file" in said


@pytest.mark.parametrize(
    ("name", "task"),
    [("fasterrcnn_mobilenet_v3_large_320_fpn", "detection"), ("lraspp_mobilenet_v3_large", "segmentation")],
)
def test_models_of_torchvision_name_their_task(name: str, task: str) -> None:
    module = getattr(models, task)
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=3)
    assert type(model).__module__.startswith(module.__name__)
    with pytest.raises(ConfigError, match=f"model.task: {task}"):
        tried_outputs(model, torch.rand(2, 3, 64, 64), "auto", None)


def test_a_detector_that_pads_is_refused() -> None:
    detector = models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64
    )
    check_padding(detector, torch.rand(2, 3, 96, 96))
    with pytest.raises(ConfigError, match="48 x 64 to 64 x 85 and pads them to 64 x 96"):
        check_padding(detector, torch.rand(2, 3, 48, 64))


def test_tasks_in_python() -> None:
    model = seeded(task_nets.Detector)
    assert task_of(None, model) is None
    assert task_of("segmentation", model) == Segmentation()
    assert task_of("detection", model) == Detection(task_nets.CLASSES)
    assert isinstance(task_of(lambda returned: returned, model), FunctionTask)
    assert isinstance(task_of("task_nets:as_it_is", model), FunctionTask)
    given = Similarity(NAMES, torch.stack([*vectors().values()]))
    assert task_of(given, model) is given
    assert pickle.loads(pickle.dumps(given)) == given
    with pytest.raises(ConfigError, match="did you mean 'segmentation'"):
        task_of("segmentations", model)
    with pytest.raises(ConfigError, match=r"camatlas\.Similarity"):
        task_of("similarity", model)
    with pytest.raises(ConfigError, match="3 names need vectors"):
        Similarity(NAMES, torch.ones(2, 5))
    with pytest.raises(ConfigError, match="the scale positive"):
        ZeroShot(NAMES, torch.ones(3, 5), scale=0.0)
    assert isinstance(model, nn.Module)
