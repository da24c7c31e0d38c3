"""Logits and confidences of every kind of output, and outputs that are refused before the work."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from nets import ToyNet, images
from torch import Tensor, nn

import camatlas
from pipeline.errors import ConfigError
from pipeline.model.outputs import OUTPUT_KINDS, OutputKind, Outputs
from pipeline.model.outputs_trial import find_outputs

ROOT = Path(__file__).resolve().parents[3]
PARTS_PN = torch.arange(18.0).view(6, 3).sin()
Z_BN = torch.tensor([[2.0, -1.0, 0.5], [-30.0, 30.0, 0.0]])


class Returning(nn.Module):
    """A small network whose logits are given to a function before they are returned."""

    def __init__(self, change: Callable[[Tensor], Any], classes: int = 4) -> None:
        super().__init__()
        self.net = ToyNet(0, classes=classes)
        self.change = change

    def forward(self, pixels_BCHW: Tensor) -> object:
        return self.change(self.net(pixels_BCHW))


def cosines(z_BN: Tensor) -> Tensor:
    weights_NK = nn.Parameter(Z_BN)
    return nn.functional.linear(nn.functional.normalize(z_BN), nn.functional.normalize(weights_NK))


def then(activation: nn.Module, classes: int, bias: float = 0.0) -> nn.Module:
    """Return a network whose last layer is linear, with a bias, behind an activation."""
    last = nn.Linear(4, classes)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(ToyNet(0), activation, last)


def squares(z_BN: Tensor) -> Tensor:
    return z_BN * z_BN


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


def found(model: nn.Module, kind: str = "auto", key: str | int | None = None) -> OutputKind:
    random_BCHW = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return find_outputs(model, random_BCHW, kind, key)[0].kind  # type: ignore[arg-type]


def refusal(model: nn.Module, kind: str = "auto", key: str | int | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        found(model, kind, key)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "expected_BN"),
    [
        ("softmax", Z_BN.softmax(1)),
        ("sigmoid", Z_BN.sigmoid()),
        ("raw", torch.full_like(Z_BN, torch.nan)),
    ],
)
def test_confidences_belong_to_the_kind(kind: OutputKind, expected_BN: Tensor) -> None:
    outputs = Outputs(kind)
    assert torch.equal(outputs.logits(Z_BN), Z_BN)
    torch.testing.assert_close(outputs.confidences(Z_BN), expected_BN, equal_nan=True)
    torch.testing.assert_close(outputs.log_confidences(Z_BN).exp(), expected_BN, equal_nan=True)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_logit_becomes_two_classes(shape: tuple[int, ...]) -> None:
    z_B = torch.tensor([3.0, -2.0, 0.0])
    outputs = Outputs("binary")
    logits_BN = outputs.logits(z_B.view(shape))
    assert torch.equal(logits_BN, torch.stack([torch.zeros(3), z_B], 1))
    torch.testing.assert_close(outputs.confidences(logits_BN), torch.stack([1 - z_B.sigmoid(), z_B.sigmoid()], 1))
    assert outputs.predicted(logits_BN).tolist() == [1, 0, 0]
    for target, sign in ((0, -1), (1, 1)):
        assert torch.equal(outputs.target_logits(logits_BN, torch.full((3,), target)), sign * z_B)


def test_probabilities_are_read_as_they_are() -> None:
    p_BN = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.2, 0.7]])
    outputs = Outputs("probabilities")
    torch.testing.assert_close(outputs.confidences(outputs.logits(p_BN)), p_BN)
    assert outputs.logits(p_BN).isfinite().all()
    single_BN = outputs.confidences(outputs.logits(p_BN[:, :1]))
    torch.testing.assert_close(single_BN, torch.tensor([[0.3, 0.7], [0.9, 0.1]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda z: {"logits": z, "features": z[:, :2]},
        lambda z: {"out": z},
        lambda z: OrderedDict(output=z, hidden=z),
        lambda z: (z, z[:, :2, None]),
        lambda z: [z],
        lambda z: Answer(z, z),
        lambda z: (z, {"state": 1}),
    ],
)
def test_logits_are_found_in_what_a_model_returns(change: Callable[[Tensor], Any]) -> None:
    plain = ToyNet(0)
    explanations = camatlas.explain(Returning(change), images(0), layer="net.features.3")
    assert torch.equal(explanations.logits, camatlas.explain(plain, images(0), layer="features.3").logits)


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        (lambda z: z, None, ()),
        (lambda z: {"a": z, "b": z}, "b", ()),
        (
            lambda z: {"logits": z, "features": z[:, :2]},
            None,
            ("the model returns dict (logits: (3, 4), features: (3, 2)); 'logits' is read as its outputs "
             "(model.output_key)",),
        ),
        (lambda z: [z, None], None,
         ("the model returns list (0: (3, 4), 1: NoneType); 0 is read as its outputs (model.output_key)",)),
        (lambda z: (None, z), None,
         ("the model returns tuple (0: NoneType, 1: (3, 4)); 1 is read as its outputs (model.output_key)",)),
    ],
)  # fmt: skip
def test_the_part_that_is_read_is_said(change: Callable[[Tensor], Any], key: str | None, said: tuple[str, ...]) -> None:
    assert find_outputs(Returning(change), images(0), "auto", key)[1] == said


@pytest.mark.parametrize(
    ("change", "key", "sentence"),
    [
        (lambda z: (z, z + 1), None, "model.output_key: the model returns tuple (0: (4, 4), 1: (4, 4)), in which"),
        (lambda z: (z[:, :2], z), None, "model.output_key: the model returns tuple (0: (4, 2), 1: (4, 4)), in which"),
        (lambda z: {"a": z, "b": z}, None, "(set it to one of 'a', 'b')"),
        (lambda z: {"logits": z, "out": z}, None, "(set it to one of 'logits', 'out')"),
        (lambda z: Pair(z, z), None, "set it to one of"),
        (lambda z: {"logits": z}, "logit", "without 'logit' (one of 'logits')"),
        (lambda z: None, None, "the model returns NoneType"),
        (lambda z: [], None, "the model returns list"),
        (
            lambda z: z[:, :, None, None],
            None,
            "the model must return logits (B, N), one row per image, but it returns a",
        ),
        (lambda z: z[:2], None, "the model returns 2 rows for 4 images"),
    ],
)
def test_what_cannot_be_told_is_refused(change: Callable[[Tensor], Any], key: str | None, sentence: str) -> None:
    assert sentence in refusal(Returning(change), "auto", key)


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


def test_raw_outputs_are_refused_where_a_confidence_is_read() -> None:
    model = ToyNet(0)
    wanted = ["gradcam", "scorecam", {"scorecam": {"score": "logit", "as": "by_logit"}}, "rise", "recipro_cam"]
    with pytest.raises(
        ConfigError,
        match="'scorecam', 'rise', 'recipro_cam' need confidences, which raw outputs",
    ):
        camatlas.explain(model, images(0), methods=wanted, layer="features.3", outputs="raw")
    explanations = camatlas.explain(
        model, images(0), methods=wanted[:1] + wanted[2:3], layer="features.3", outputs="raw"
    )
    with pytest.raises(ConfigError, match="'average_drop', 'deletion' need confidences, which raw outputs do not have"):
        camatlas.evaluate(model, images(0), explanations, metrics=["average_drop", "deletion", "sparsity"])
    values = camatlas.evaluate(model, images(0), explanations, metrics=[{"deletion": {"score": "logit"}}, "sparsity"])
    assert all(found_B.isfinite().all() for by in values.values() for found_B in by.values())


def test_a_softmax_over_classes_is_refused_for_independent_labels() -> None:
    with pytest.raises(
        ConfigError, match="'integrative_cam' compute a softmax over the classes, which outputs: sigmoid"
    ):
        camatlas.explain(
            ToyNet(0), images(0), methods=[{"integrative_cam": {"f": "softmax"}}], layer="features.3", outputs="sigmoid"
        )


def test_no_other_file_turns_logits_into_confidences() -> None:
    """Softmaxes over channels may stay; those over classes stand in one file."""
    allowed = {
        "pipeline/model/outputs.py": 99,
        "pipeline/cams/integrative.py": 1,  # the derivatives of a softmax, its own function f
        "pipeline/cams/increment.py": 1,  # over channels
        "pipeline/cams/region.py": 1,  # over channels
        "pipeline/cams/score.py": 1,  # over channels
    }
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        calls = sum(text.count(call) for call in (".softmax(", ".sigmoid(", ".log_softmax(", "logsigmoid("))
        assert calls <= allowed.get(path.relative_to(ROOT).as_posix(), 0), path


def test_every_kind_is_tested() -> None:
    assert OUTPUT_KINDS == ("softmax", "sigmoid", "binary", "probabilities", "raw")
