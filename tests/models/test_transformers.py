"""Models of transformers: `auto` finds their layer, maps are those of plain autograd, a whole run knows their names.

Legend: B images, K channels, (u, v) grid, N classes.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
import transformers
from inline import publish_all
from models.members import auto_probe, engine_difference, gradcam_difference, noise, relative
from models.tiny_transformers import MEMBERS, NAMES, build, save, saved
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import pipeline
from pipeline.data.framing import fitted
from pipeline.errors import ConfigError
from pipeline.model.baselines import Normalisation, unit_pixels
from pipeline.model.probe import Probe
from pipeline.model.transformers_models import build_transformers
from pipeline.model.trial import LoadedModel
from pipeline.model.zoo import load_model
from pipeline.results.query import open_run
from pipeline.settings.model import ModelConfig

TOLERANCE = 1e-5
LIKE_OTHERS = ("swinv2", "regnet", "pvt_v2", "deit")
SEVERAL_STAGES = ("convnext", "resnet", "regnet", "segformer")


def loaded(name: str, **fields: object) -> LoadedModel:
    return load_model(ModelConfig(name=name, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.campaign] * (name in LIKE_OTHERS)) for name in MEMBERS]
)
def test_a_layer_is_found_and_its_maps_are_right(name: str, tmp_path: Path) -> None:
    found = loaded(saved(name, tmp_path))
    shape = (3, *found.preprocess.size)
    probe = auto_probe(found.model, shape)
    assert probe.layer == found.layer
    assert gradcam_difference(found.model, probe, noise(shape)) < TOLERANCE
    assert engine_difference(found.model, probe, noise(shape)) < TOLERANCE
    assert (found.class_names, found.classes) == (NAMES, 3)
    assert (len(found.stages) > 1) == (name in SEVERAL_STAGES)


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_precision_and_python_objects(name: str) -> None:
    model = build(name)
    pixels_BCHW = noise((3, *[model.config.image_size] * 2))
    exact = pipeline.explain(model, pixels_BCHW, methods=["gradcam"])
    rough = pipeline.explain(model, pixels_BCHW, methods=["gradcam"], precision="bf16")
    with torch.no_grad():
        assert relative(exact.logits, model(pixels_BCHW).logits) < TOLERANCE
    assert relative(rough.logits, exact.logits) < 0.1
    assert float(exact.maps["gradcam"].max()) > 0


def test_a_block_that_returns_a_tuple_serves_as_a_layer() -> None:
    model = build("swin")
    layer, pixels_BCHW = "swin.encoder.layers.1.blocks.0", noise((3, 64, 64))
    block, kept = model.get_submodule(layer), list[Tensor]()

    def keep(_module: nn.Module, _args: object, output: tuple[Tensor, None]) -> None:
        kept.append(output[0])
        assert output[1:] == (None,)

    with block.register_forward_hook(keep), torch.enable_grad():
        logits_BN = model(pixels_BCHW).logits
    (grads,) = torch.autograd.grad(logits_BN.amax(1).sum(), kept)
    probe = Probe(model, layer)
    evidence = probe.capture(pixels_BCHW, gradients=True)
    assert str(probe.layouts(pixels_BCHW).by_layer[layer]) == "tokens 8 x 8"
    assert relative(evidence.acts_BKuv.flatten(2).mT, kept[0].detach()) < TOLERANCE
    assert relative(evidence.grads_BKuv.flatten(2).mT, grads) < TOLERANCE
    again = pipeline.explain(model, pixels_BCHW, methods=["ablation_cam"], layer=layer)  # replaces what the block gives
    assert float(again.maps["ablation_cam"].abs().max()) > 0


def test_stages_may_be_named_blocks(tmp_path: Path) -> None:
    stages = [f"swin.encoder.layers.{index}.blocks.0" for index in range(2)]
    found = loaded(saved("swin", tmp_path), stages=[*stages, "swin.layernorm"])
    assert [shape[1:] for shape in found.stage_shapes] == [(16, 16), (8, 8), (4, 4)]


def test_models_travel_to_workers(tmp_path: Path) -> None:
    model = loaded(saved("vit", tmp_path)).model
    for path in tmp_path.iterdir():
        path.unlink()
    copy = ray.cloudpickle.loads(ray.cloudpickle.dumps(model))
    assert torch.equal(copy(noise((3, 48, 48))).logits, model(noise((3, 48, 48))).logits)


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "convnext"])
def test_logits_of_photographs_are_those_of_the_library(name: str, tmp_path: Path, data_folder: Path) -> None:
    """Images that have the size of the input already are the same to 1e-5; resizing rounds pixels otherwise."""
    found = loaded(saved(name, tmp_path))
    theirs = transformers.pipeline("image-classification", model=str(tmp_path), top_k=3)
    for path in sorted(data_folder.glob("imagenet_val/*"))[:4]:
        with Image.open(path) as file:
            image = file.convert("RGB")
        for given, tolerance in ((image, 0.02), (image.resize(found.preprocess.size), TOLERANCE)):
            if given is not image and found.preprocess.resize is not None:
                continue
            scores = {one["label"]: one["score"] for one in theirs(given)}
            expected_N = torch.tensor([scores[label] for label in NAMES])
            assert float((confidences(found, given) - expected_N).abs().max()) < tolerance


def confidences(found: LoadedModel, image: Image.Image) -> Tensor:
    pixels_1HWC = fitted((image,), None, found.preprocess).pixels_HWC[None]
    normalisation = Normalisation(found.preprocess.mean, found.preprocess.std)
    with torch.no_grad():
        returned = found.model(normalisation.apply(unit_pixels(torch.tensor(pixels_1HWC))))
    return found.outputs.confidences(found.outputs.logits(returned))[0]


def test_a_run_needs_nothing_but_the_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = saved("convnext", tmp_path / "model")
    fields = {
        "data": {"shards": photographs(tmp_path / "images", NAMES)},
        "model": {"name": name},
        "explain": {"methods": ["gradcam"], "metrics": ["average_drop"]},
        "output": {"path": str(tmp_path / "run")},
    }
    capfd.readouterr()
    run = open_run(str(publish_all(fields)))
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert run.manifest.classes == NAMES
    account = run.manifest.account or {}
    assert account["source"] == "3 names from the model"
    labels = run.sql("SELECT DISTINCT image_key, label FROM explanations ORDER BY image_key")
    found = zip(labels["image_key"], labels["label"], strict=True)
    assert {key.partition("/")[0]: label for key, label in found} == {"bird": 2, "cat": 0, "dog": 1}
    assert run.manifest.identity.model["name"] == "transformers/ConvNextForImageClassification"
    moved = tmp_path / "elsewhere"
    (tmp_path / "model").rename(moved)
    fields["model"] = {"name": f"transformers/{moved}"}
    publish_all(fields)  # the same run: it would be refused otherwise


def photographs(folder: Path, names: tuple[str, ...]) -> str:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(folder / name / "0.png")
    return str(folder)


@pytest.mark.parametrize("key", ["clip", "siglip"])
def test_encoders_are_image_towers(key: str, tmp_path: Path) -> None:
    whole = build(key, "Model")
    name = save(whole, tmp_path, key)
    encoder = build_transformers(ModelConfig(name=name), "embedding").model
    pixels_BCHW = noise((3, 48, 48))
    with torch.no_grad():
        found_BD = encoder(pixels_BCHW)
        expected = whole.get_image_features(pixels_BCHW)
    expected_BD = expected if isinstance(expected, Tensor) else expected.pooler_output
    assert found_BD.shape == (2, 16 if key == "clip" else 32)
    assert relative(found_BD, expected_BD) < TOLERANCE


def test_zero_shot_logits_are_those_of_the_whole_model(tmp_path: Path) -> None:
    whole, pixels_BCHW = build("clip", "Model"), noise((3, 48, 48))
    tokens_NT = torch.randint(0, 99, (3, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_BN = whole(input_ids=tokens_NT, pixel_values=pixels_BCHW).logits_per_image
        texts = whole.text_projection(whole.text_model(input_ids=tokens_NT).pooler_output)
    file = tmp_path / "texts.safetensors"
    save_file({name: text_D.contiguous() for name, text_D in zip(NAMES, texts, strict=True)}, file)
    found = loaded(save(whole, tmp_path / "model", "clip"), text_embeddings=str(file))
    with torch.no_grad():
        logits_BN = found.outputs.logits(found.model(pixels_BCHW))
    order = [NAMES.index(name) for name in found.class_names or ()]
    assert relative(logits_BN, expected_BN[:, order]) < TOLERANCE
    assert any("logit_scale of the model, exponentiated" in note for note in found.notes)


def test_other_encoders_return_their_pooled_output(tmp_path: Path) -> None:
    whole = build("dinov2", "Model")
    encoder = build_transformers(ModelConfig(name=save(whole, tmp_path, "dinov2")), "embedding").model
    with torch.no_grad():
        assert torch.equal(encoder(noise((3, 48, 48))), whole(noise((3, 48, 48))).pooler_output)


def test_segmenters_return_maps_of_classes(tmp_path: Path) -> None:
    name = save(build("segformer", "ForSemanticSegmentation"), tmp_path, "segformer", do_reduce_labels=True)
    found = build_transformers(ModelConfig(name=name), "segmentation")
    assert found.model(noise((3, 64, 64))).logits.shape == (2, 3, 16, 16)
    assert found.class_names == NAMES
    segmenter = loaded(name, task="segmentation")
    assert (segmenter.classes, segmenter.class_names, segmenter.outputs.kind) == (3, NAMES, "softmax")
    with pytest.raises(ConfigError, match="would be random: missing: classifier"):
        build_transformers(ModelConfig(name=name))


@pytest.mark.parametrize(
    ("problem", "kind"), [("multi_label_classification", "sigmoid"), ("regression", "raw"), (None, "softmax")]
)
def test_outputs_are_what_the_configuration_says(problem: str | None, kind: str, tmp_path: Path) -> None:
    found = loaded(saved("resnet", tmp_path, problem_type=problem))
    assert found.outputs.kind == kind
    assert any("config.json of the model says" in note for note in found.notes) == (problem is not None)


def test_names_and_weights_are_chosen(tmp_path: Path) -> None:
    name = saved("vit", tmp_path)
    own, file = loaded(name), str(tmp_path / "model.safetensors")
    assert loaded(name, weights=file).weights_digest == own.weights_digest
    current = tmp_path / "current.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in own.model.state_dict().items()}}, current)
    assert loaded(name, weights=str(current), allow_pt=True).weights_digest == own.weights_digest
    one, other = (loaded(name, weights="random") for _ in range(2))
    assert one.weights_digest == other.weights_digest != own.weights_digest
    five = loaded(name, weights="random", num_classes=5)
    assert (five.classes, five.class_names) == (5, None)
    assert loaded(name, num_classes=3).class_names == NAMES


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    name = save(build("vit").bfloat16(), tmp_path, "vit")
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert {parameter.dtype for parameter in loaded(name).model.parameters()} == {torch.float32}


def test_placeholders_are_no_names(tmp_path: Path) -> None:
    assert loaded(saved("vit", tmp_path, id2label={0: "LABEL_0", 1: "LABEL_1"})).class_names is None


def test_what_determines_rows_is_the_configuration_and_not_the_path(tmp_path: Path) -> None:
    model = build("vit")
    identities = []
    for folder, epsilon in (("a", 1e-12), ("b", 1e-12), ("c", 1e-2)):
        model.config.layer_norm_eps = epsilon
        identities.append(loaded(save(model, tmp_path / folder, "vit")).identity)
    assert identities[0] == identities[1] != identities[2]


def test_a_model_whose_hidden_states_were_asked_for_can_be_sent_to_workers(tmp_path: Path) -> None:
    """The library leaves hooks in such a model that cannot be pickled, and installs them again when it needs them."""
    found = loaded(saved("vit", tmp_path, output_hidden_states=True))
    pickle, pixels_BCHW = ray.cloudpickle, noise((3, *found.preprocess.size))
    sent = pickle.loads(pickle.dumps(found.model))
    with torch.no_grad():
        assert torch.equal(sent(pixels_BCHW).logits, found.model(pixels_BCHW).logits)
        assert len(sent(pixels_BCHW).hidden_states) > 1
