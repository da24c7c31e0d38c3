"""What a model's outputs are is found, or refused before the work: by the numbers and the functions that made them."""

import pytest
import torch
from nets import ToyNet, images
from returning import PARTS_PN, Z_BN, Returning, cosines, found, refusal, squares, then
from torch import Tensor, nn

import camatlas
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (ToyNet(0, classes=1), "one output per image, and auto cannot tell what it is (set it to binary"),
        (Returning(torch.sigmoid, 1), "auto cannot tell what it is (probabilities)"),
        (Returning(lambda z: z.softmax(1)), "the outputs are probabilities already: each row sums to 1"),
        (Returning(lambda z: z.exp() / z.exp().sum(1, keepdim=True)), "each row sums to 1"),
        (Returning(torch.sigmoid), "all outputs lie in [0, 1], as after a sigmoid"),
        (Returning(lambda z: z.sigmoid().clamp(0.01, 0.99)), "all outputs lie in [0, 1]"),
        (Returning(lambda z: torch.stack([z.sigmoid(), (2 * z).sigmoid()]).mean(0)), "all outputs lie in [0, 1]"),
        (Returning(lambda z: 1 - (1 - z.sigmoid()) ** 2), "all outputs lie in [0, 1]"),
        (Returning(lambda z: z.sigmoid().cumprod(1)), "all outputs lie in [0, 1]"),
        (Returning(lambda z: 0.9 * z.softmax(1)), "all outputs lie in [0, 1]"),
        (Returning(lambda z: 100 * z.softmax(1)), "made by a softmax already, shifted or scaled"),
        (Returning(lambda z: z.softmax(1) - 0.25), "made by a softmax already, shifted or scaled"),
        (Returning(lambda z: 2 * z.sigmoid() - 1), "made by a sigmoid already, shifted or scaled"),
        (Returning(lambda z: z.exp() / z.exp().sum(1, keepdim=True) * 100), "as probabilities times 100 do"),
        (Returning(nn.functional.logsigmoid), "the outputs are logarithms of a sigmoid"),
        (Returning(lambda z: torch.stack([nn.functional.logsigmoid(z)] * 2).mean(0)), "logarithms of a sigmoid"),
        (Returning(lambda z: (z.sigmoid() + 1e-6).log()), "logarithms of a sigmoid"),
        (Returning(lambda z: -nn.functional.softplus(-z)), "logarithms of a sigmoid"),
        (Returning(lambda z: -z.log_softmax(1)), "the largest is the least likely class"),
        (Returning(lambda z: torch.cat([z.log_softmax(1), (3 * z).log_softmax(1)], 1)), "sum to 2, as those of 2"),
        (Returning(lambda z: z[:, :1] + torch.tensor([0.0, -1.0, -2.0])), "as the thresholds of an ordinal regression"),
        (Returning(lambda z: torch.cdist(z, Z_BN)[:, :2], 3), "no output is negative, as with distances"),
        (Returning(lambda z: ((z[:, None] - Z_BN) ** 2).sum(2), 3), "no output is negative, as with distances"),
        (Returning(lambda z: ((z[:, None] - Z_BN) * (z[:, None] - Z_BN)).sum(2), 3), "no output is negative"),
        (Returning(squares), "no output is negative"),
        (Returning(lambda z: nn.functional.softplus(z) + 1), "with evidence"),
        (Returning(lambda z: z.exp()), "no output is negative"),
        (Returning(lambda z: torch.cdist(z, PARTS_PN).unflatten(1, (3, 2)).amin(2), 3), "as with distances"),
        (Returning(lambda z: 1 - cosines(z), 3), "as with distances"),
        (Returning(lambda z: torch.einsum("bnd,bnd->bn", z[:, None] - Z_BN, z[:, None] - Z_BN), 3), "distances"),
        (Returning(lambda z: nn.functional.mse_loss(3 * z, Z_BN[:1, :1].expand_as(z), reduction="none")), "distances"),
        (Returning(lambda z: -2 * z.log_softmax(1)), "the largest is the least likely class"),
        (Returning(lambda z: 100 * z.sigmoid()), "made by a sigmoid already, shifted or scaled"),
        (Returning(lambda z: 20 * z.softmax(1).unflatten(1, (2, 2)).amax(2)), "made by a softmax already"),
        (Returning(torch.tanh), "all outputs lie in [-1, 1], as after a tanh"),
        (Returning(nn.functional.normalize), "the outputs are cosines in [-1, 1]"),
        (Returning(lambda z: z @ Z_BN.T / (z.norm(dim=1, keepdim=True) * Z_BN.norm(dim=1)), 3), "are cosines"),
        (Returning(cosines, 3), "the outputs are cosines in [-1, 1]"),
        (Returning(lambda z: nn.functional.cosine_similarity(z[:, None], Z_BN, 2), 3), "the outputs are cosines"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
         "seems to be a feature extractor: its 6 outputs come from no classifier"),
        (nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(6)),
         "feature extractor"),
    ],
)  # fmt: skip
def test_auto_refuses_what_it_cannot_decide(model: nn.Module, sentence: str) -> None:
    assert sentence in refusal(model)


@pytest.mark.parametrize(
    ("model", "kind", "sentence"),
    [
        (ToyNet(0, classes=1), "softmax", "softmax needs two outputs or more"),
        (Returning(lambda z: z.softmax(1)), "softmax", "made by a softmax already"),
        (Returning(lambda z: z.softmax(1)), "sigmoid", "made by a softmax already"),
        (Returning(torch.sigmoid), "sigmoid", "made by a sigmoid already"),
        (Returning(torch.sigmoid, 1), "binary", "made by a sigmoid already"),
        (ToyNet(0), "binary", "binary needs one output per image, but the model has 4"),
        (ToyNet(0), "probabilities", "probabilities lie in [0, 1], but the trial images give outputs from"),
        (Returning(lambda z: 0.5 + 0.1 * z), "probabilities", "images of much contrast give outputs outside of it"),
        (Returning(lambda z: torch.stack([z.sigmoid(), (2 * z).sigmoid()]).mean(0), 1), "binary", "for images of any"),
        (Returning(lambda z: 1 / (1 + (-z).exp()), 1), "binary", "binary needs a logit, but the output lies in [0, 1]"),
        (Returning(lambda z: 1 / (1 + (-z).exp())), "softmax", "softmax needs logits, but the outputs lie in [0, 1]"),
        (Returning(lambda z: torch.stack([z.sigmoid(), (2 * z).sigmoid()]).mean(0)), "sigmoid", "lie in [0, 1] for"),
        (Returning(nn.functional.logsigmoid, 1), "binary", "logarithms of a sigmoid"),
        (Returning(nn.functional.logsigmoid), "sigmoid", "logarithms of a sigmoid"),
        (Returning(nn.functional.logsigmoid), "softmax", "logarithms of a sigmoid"),
        (Returning(lambda z: z.log_softmax(1)), "sigmoid", "made by a log-softmax"),
        (Returning(lambda z: 100 * z.softmax(1)), "softmax", "made by a softmax already, shifted or scaled"),
        (Returning(lambda z: -z.log_softmax(1)), "softmax", "the largest is the least likely class"),
        (Returning(lambda z: z[:, :1] + torch.tensor([0.0, -1.0])), "softmax", "set sigmoid: each output is then the"),
    ],
)
def test_a_stated_kind_that_the_outputs_contradict_is_refused(model: nn.Module, kind: str, sentence: str) -> None:
    assert sentence in refusal(model, kind)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (ToyNet(0), "auto"),
        (ToyNet(0), "softmax"),
        (ToyNet(0), "sigmoid"),
        (ToyNet(0), "raw"),
        (ToyNet(0, classes=1), "binary"),
        (ToyNet(0, classes=1), "sigmoid"),
        (ToyNet(0, classes=1), "raw"),
        (Returning(lambda z: z[:, 0]), "binary"),
        (Returning(lambda z: z.log_softmax(1)), "auto"),
        (Returning(lambda z: z - z.mean(1, keepdim=True)), "auto"),
        (Returning(lambda z: -torch.cdist(z, Z_BN), 3), "auto"),  # a prototypical network
        (Returning(lambda z: torch.cdist(z, Z_BN), 3), "softmax"),
        (Returning(lambda z: 16 * cosines(z), 3), "auto"),
        (Returning(cosines, 3), "softmax"),
        (Returning(torch.relu), "auto"),  # SqueezeNet
        (Returning(lambda z: torch.cat([0 * z, -z.abs()], 1), 1), "auto"),  # a logit beside a constant
        (then(nn.Sigmoid(), 4), "auto"),  # LeNet-5
        (then(nn.Sigmoid(), 4), "softmax"),
        (then(nn.Softmax(1), 4), "softmax"),
        (then(nn.Sigmoid(), 1), "binary"),
        (then(nn.Softplus(), 4, bias=-9.0), "sigmoid"),
        (then(nn.ELU(), 4, bias=9.0), "auto"),
        (Returning(lambda z: torch.logsumexp(torch.stack([z, 2 * z], 1) - 9, 1)), "auto"),
        (Returning(lambda z: z.sigmoid().logit() - 9), "sigmoid"),
        (Returning(lambda z: 10 * z.sigmoid()), "softmax"),
        (
            nn.Sequential(
                nn.Conv2d(3, 8, 3),
                nn.ReLU(),
                nn.Conv2d(8, 4, 1),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            ),
            "auto",
        ),  # network in network
        (Returning(lambda z: 30 * torch.tanh(z / 30)), "auto"),  # bounded, but not to [-1, 1]
        (Returning(lambda z: z * z.sigmoid()), "auto"),
        (Returning(lambda z: (z.softmax(1) + 1e-9).log()), "auto"),
        (Returning(lambda z: torch.stack([z.log_softmax(1), (2 * z).log_softmax(1)]).mean(0)), "auto"),
        (Returning(lambda z: z[:, :1] + torch.tensor([0.0, -1.0])), "sigmoid"),
        (Returning(torch.tanh), "sigmoid"),
        (Returning(lambda z: nn.functional.softplus(z) + 1), "softmax"),
        (Returning(lambda z: z.softmax(1)), "probabilities"),
        (Returning(torch.sigmoid), "probabilities"),
        (Returning(torch.sigmoid, 1), "probabilities"),
    ],
)
def test_what_fits_is_taken(model: nn.Module, kind: str) -> None:
    assert found(model, kind) == ("softmax" if kind == "auto" else kind)


def test_auto_finds_the_layer_if_the_largest_logit_is_a_constant() -> None:
    model = Returning(lambda z: torch.cat([torch.zeros_like(z), -z.abs() - 1], 1), 1)
    automatic, named = (
        camatlas.explain(model, images(0), targets=[1] * 3, layer=layer) for layer in ("auto", "net.head.1")
    )
    assert torch.equal(automatic.maps["gradcam"], named.maps["gradcam"])


@pytest.mark.parametrize("bias", [-5.0, 5.0])
def test_auto_finds_the_layer_of_a_single_logit_of_either_sign(bias: float) -> None:
    model = ToyNet(0, classes=1)
    nn.init.constant_(model.linear.bias, bias)
    automatic = camatlas.explain(model, images(0), outputs="binary")
    named = camatlas.explain(model, images(0), outputs="binary", layer="head.1")
    assert torch.equal(automatic.maps["gradcam"], named.maps["gradcam"])
    assert bool(automatic.maps["gradcam"].any())


class Frozen(ToyNet):
    @torch.inference_mode()
    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return super().forward(pixels_BCHW)


@pytest.mark.parametrize("layer", ["features.3", "auto"])
def test_a_forward_pass_in_inference_mode_is_refused(layer: str) -> None:
    with pytest.raises(ConfigError, match=r"take torch\.inference_mode off the model's forward"):
        camatlas.explain(Frozen(), images(0), layer=layer)
