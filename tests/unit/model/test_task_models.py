"""Models of libraries with a task: by name from torchvision, and objects of transformers from tiny configurations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import tasks as reference
from safetensors.torch import save_file
from torch import nn

import camatlas
from pipeline.errors import ConfigError
from pipeline.model.architectures import build_architecture, task_of_library
from pipeline.model.outputs import Outputs
from pipeline.model.tasks import Detection, Segmentation, ZeroShot, stated_task
from pipeline.model.zoo import LoadedModel, load_model
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess

transformers = pytest.importorskip("transformers")
SIDE = 32


def loaded(**fields: object) -> LoadedModel:
    return load_model(ModelConfig.model_validate({"weights": "random", **fields}))


def small(side: int) -> dict[str, Any]:
    return {"resize": None, "crop": side, "mean": [0.0] * 3, "std": [1.0] * 3}


def test_a_segmentation_by_name() -> None:
    layer = {"layer": "backbone.16", "layout": "channels_first"}
    model = loaded(name="torchvision/lraspp_mobilenet_v3_large", num_classes=3, preprocess=small(64), **layer)
    assert model.outputs == Outputs(task=Segmentation())
    assert model.classes == 3
    assert any("is a segmentation model: model.task is segmentation" in note for note in model.notes)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ssdlite320_mobilenet_v3_large", "backbone.features.0"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "backbone.body"),
        ("retinanet_resnet50_fpn", "backbone.body"),
    ],
)
def test_a_detector_by_name(name: str, body: str) -> None:
    config = ModelConfig(name=f"torchvision/{name}", weights="random", num_classes=3)
    built = build_architecture(config)
    task, notes = stated_task(config, (), task_of_library(config.name)).of(built.model)
    assert task == Detection(3, body)
    assert built.preprocess == Preprocess(800 if "retina" in name else 320, None, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert any("masked with fill: mean are black" in note for note in notes)


def test_a_detector_of_torchvision_is_explained_in_any_batch() -> None:
    """Its heads work on the boxes of all images together, and its head cannot run on other activations alone."""
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=3, min_size=64, box_score_thresh=0.0
        ).eval()
    pixels_BCHW = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    methods = ["gradcam", "hirescam"]
    both = camatlas.explain(model, pixels_BCHW, methods=methods, task="detection")
    assert both.probe.layer.startswith("backbone.body.")
    assert not both.degenerate["gradcam"].any()
    with torch.no_grad():
        scores_BN = reference.detection_scores(model(pixels_BCHW), 3)
    assert torch.allclose(both.evidence.outputs.confidences(both.logits), scores_BN, atol=1e-5)
    one = camatlas.explain(model, pixels_BCHW[1:], methods=methods, task="detection", targets=both.targets[1:])
    assert torch.allclose(one.logits, both.logits[1:], atol=1e-4)
    largest = float(one.maps["hirescam"].abs().max())
    assert torch.allclose(one.maps["hirescam"], both.maps["hirescam"][1:], atol=1e-3 * largest)
    acts_1Kuv = both.evidence.acts_BKuv[1:]
    same = both.probe.head(both.evidence, 1, 3, lambda index_P: acts_1Kuv.expand(len(index_P), -1, -1, -1))
    assert torch.allclose(same, both.logits[1:].expand(3, -1), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("deeplabv3_resnet50", "segmentation"),
        ("fcn_resnet50", "segmentation"),
        ("retinanet_resnet50_fpn", "detection"),
        ("resnet18", ""),
        ("nothing", ""),
    ],
)
def test_the_task_is_that_of_the_library(name: str, task: str) -> None:
    assert task_of_library(f"torchvision/{name}") == task
    assert task_of_library(f"mine:{name}") == ""


def test_the_preprocessing_of_a_segmentation_is_the_centre_at_its_size() -> None:
    preprocess = build_architecture(
        ModelConfig(name="torchvision/deeplabv3_mobilenet_v3_large", weights="random", num_classes=2)
    ).preprocess
    assert (preprocess.crop, preprocess.resize) == (520, 520)
    assert preprocess.mean == pytest.approx((0.485, 0.456, 0.406))


def test_weights_with_an_auxiliary_head_fit(tmp_path: Path) -> None:
    from torchvision import models

    made = models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=2, aux_loss=True
    )
    save_file(made.state_dict(), tmp_path / "weights.safetensors")
    fields = {"name": "torchvision/deeplabv3_mobilenet_v3_large", "num_classes": 2}
    built = build_architecture(ModelConfig(**fields, weights=str(tmp_path / "weights.safetensors"))).model
    assert built.state_dict().keys() == made.state_dict().keys()
    built = build_architecture(ModelConfig(**fields, weights="random")).model
    assert not any(name.startswith("aux") for name in built.state_dict())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "torchvision/fcn_resnet50", "task": "detection"}, "'detection' does not fit"),
        ({"name": "torchvision/fcn_resnet50", "weights": "COCO"}, "has no weights 'COCO'"),
        ({"name": "torchvision/fasterrcnn_resnet50", "num_classes": 3}, "did you mean 'fasterrcnn_resnet50_fpn"),
        ({"name": "torchvision/fcos_resnet50_fpn", "output_key": 0}, "model.output_key: has no effect"),
    ],
)
def test_what_does_not_fit_a_name_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(**fields)
    assert said in str(caught.value)


def images(count: int = 2, side: int = SIDE) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def seeded(build: Any, config: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = build(config).eval()
        return model


def test_segformer() -> None:
    config = transformers.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=3,
    )  # fmt: skip
    model = seeded(transformers.SegformerForSemanticSegmentation, config)
    found = camatlas.explain(model, images(), methods=["gradcam"], task="segmentation", layer="decode_head.activation")
    with torch.no_grad():
        expected = Segmentation().outputs(model(images()).logits, None)
    assert torch.allclose(found.logits, expected, atol=1e-5)
    assert not found.degenerate["gradcam"].any()


TOWER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
    "patch_size": 8,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_vision_towers_are_zero_shot_classifiers(kind: str) -> None:
    if kind == "clip":
        config = transformers.CLIPVisionConfig(**TOWER, projection_dim=6)
        model, width = seeded(transformers.CLIPVisionModelWithProjection, config), 6
    else:
        model, width = seeded(transformers.SiglipVisionModel, transformers.SiglipVisionConfig(**TOWER)), 16
    vectors_ND = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    task = ZeroShot(("a", "b", "c"), vectors_ND, scale=20.0, bias=None if kind == "clip" else -1.0)
    found = camatlas.explain(model, images(), methods=["gradcam"], task=task)
    with torch.no_grad():
        returned = model(images())
    embedding_BD = returned.image_embeds if kind == "clip" else returned.pooler_output
    cosines_BN = torch.nn.functional.cosine_similarity(embedding_BD[:, None], vectors_ND[None], dim=-1)
    assert torch.allclose(found.logits, 20 * cosines_BN - float(kind == "siglip"), atol=1e-4)
    assert found.evidence.outputs.kind == ("softmax" if kind == "clip" else "sigmoid")
    assert found.maps["gradcam"].shape == (2, 4, 4)
