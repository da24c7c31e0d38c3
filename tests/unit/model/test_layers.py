"""The target layer can be given by name, as a module, or as "auto" for a known family."""

import pytest
import torch
from nets import ToyNet
from torch import nn
from torchvision import models

from pipeline.errors import LayerError
from pipeline.model.layers import resolve_layer
from pipeline.model.probe import Probe

FAMILIES = [
    "alexnet", "vgg11", "vgg11_bn", "squeezenet1_1", "resnet18", "resnext50_32x4d", "densenet121", "googlenet",
    "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "mnasnet0_5",
    "regnet_y_400mf", "convnext_tiny",
]  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_auto_finds_a_spatial_layer_with_gradients_in_every_family(name: str) -> None:
    extra = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, num_classes=7, **extra)
    side = 160 if name == "inception_v3" else 64
    with torch.no_grad():
        evidence = Probe(model, "auto").capture(torch.randn(2, 3, side, side), gradients=True)
    assert evidence.acts_BKuv.shape[2] * evidence.acts_BKuv.shape[3] >= 1
    assert evidence.acts_BKuv.shape[1] >= 64
    assert float(evidence.grads_BKuv.abs().sum()) > 0


def test_a_layer_by_name_or_as_a_module_is_the_same() -> None:
    model = ToyNet(0)
    assert resolve_layer(model, "features.3") == ("features.3", model.features[3])
    assert resolve_layer(model, model.features[3]) == ("features.3", model.features[3])


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(LayerError, match=r"did you mean 'features\.3'"):
        resolve_layer(ToyNet(0), "featurs.3")


def test_a_foreign_module_is_refused() -> None:
    with pytest.raises(LayerError, match="not a module of the model"):
        resolve_layer(ToyNet(0), nn.ReLU())


def test_auto_on_an_unknown_family_lists_candidates() -> None:
    with pytest.raises(LayerError, match=r"'auto' does not know the family ToyNet.*features"):
        resolve_layer(ToyNet(0), "auto")


def test_the_whole_model_is_not_a_layer() -> None:
    with pytest.raises(LayerError):
        resolve_layer(ToyNet(0), "")
