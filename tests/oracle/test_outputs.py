"""Every kind of output agrees with a literal implementation that uses the right link between logits and confidences.

The references know softmax networks only. So each network is rebuilt for them: the confidence sigmoid(s) of a class
with logit s is the softmax of [0, s], and probabilities p are the softmax of log p.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from nets import ToyNet, images
from oracle.cases import CASES, SEED
from oracle.test_metrics import REFERENCES, Row
from oracle.test_metrics import SEED as METRICS_SEED
from reference import base
from torch import Tensor, nn
from torch.nn import functional

import camatlas
from pipeline.model.outputs import OutputKind

LAYER = "net.features.3"
METHODS = (
    "gradcam",
    "gradcam_pp",
    "scorecam",
    "iscam",
    "group_cam",
    "rise",
    "recipro_cam",
    "shapley_cam",
    "rsi_gradcam",
)
METRICS = ("average_drop", "increase", "average_gain", "insertion", "deletion", "road", "infidelity")
BY_LOGIT = ("gradcam", "gradcam_pp", "scorecam logit", "ablation_cam")


class Wrapped(nn.Module):
    """A network whose outputs are given to a function."""

    def __init__(self, net: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.change(self.net(pixels_BCHW))


@dataclass(frozen=True)
class Kind:
    """A kind of output.

    Attributes:
        outputs: its name.
        classes: outputs of the network.
        change: what the network returns of its last layer.
        loss: by which it is trained, of returned values and targets in [0, 1].
        rebuilt: the logits of a softmax network in which `target(c)` has the logit and confidence of class c.
        targets: the classes that are explained.
    """

    outputs: OutputKind
    classes: int
    change: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    rebuilt: Callable[[Tensor, int], Tensor]
    targets: tuple[int, ...]
    target: Callable[[int], int] = lambda _: 1


def pair(logit_B: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(logit_B), logit_B], 1)


KINDS = {
    "binary": Kind(
        "binary", 1, lambda z: z, lambda z, y: functional.binary_cross_entropy_with_logits(z, y),
        lambda z, c: pair(z[:, 0] if c else -z[:, 0]), (0, 1),
    ),
    "binary, flat": Kind(
        "binary", 1, lambda z: z[:, 0], lambda z, y: functional.binary_cross_entropy_with_logits(z, y[:, 0]),
        lambda z, c: pair(z[:, 0] if c else -z[:, 0]), (1,),
    ),
    "three labels": Kind(
        "sigmoid", 3, lambda z: z, lambda z, y: functional.binary_cross_entropy_with_logits(z, y),
        lambda z, c: pair(z[:, c]), (0, 2),
    ),
    "softmax inside": Kind(
        "probabilities", 3, lambda z: z.softmax(1), lambda p, y: functional.nll_loss(p.log(), y.argmax(1)),
        lambda z, _: z.log_softmax(1), (0, 1), target=lambda c: c,
    ),
    "sigmoid inside": Kind(
        "probabilities", 3, torch.sigmoid, functional.binary_cross_entropy,
        lambda z, c: torch.stack([functional.logsigmoid(-z[:, c]), functional.logsigmoid(z[:, c])], 1), (1,),
    ),
}  # fmt: skip


def trained(kind: Kind) -> Wrapped:
    """Train a small network for a few steps, so that its outputs say something about the images."""
    model = Wrapped(ToyNet(3, classes=kind.classes), kind.change)
    pixels_BCHW = images(5, count=32)
    brightness_B3 = pixels_BCHW.mean((2, 3))
    targets_BN = (brightness_B3[:, : kind.classes] > brightness_B3[:, : kind.classes].median(0).values).float()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(12):
        optimizer.zero_grad()
        kind.loss(model(pixels_BCHW), targets_BN).backward()
        optimizer.step()
    return model.eval()


def rebuilt(kind: Kind, model: Wrapped, target: int) -> Wrapped:
    """Build the softmax network, in double precision, that the references are given."""
    return Wrapped(copy.deepcopy(model.net).double(), lambda z_BN: kind.rebuilt(z_BN, target))


@pytest.mark.parametrize("name", KINDS)
def test_maps_agree_with_their_references(name: str) -> None:
    kind = KINDS[name]
    model, pixels_BCHW = trained(kind), images(0, count=2)
    for method in METHODS:
        case = CASES[method]
        for target in kind.targets:
            explanations = camatlas.explain(
                model, pixels_BCHW, methods=[case.spec], layer=LAYER, targets=[target] * 2, seed=SEED,
                outputs=kind.outputs,
            )  # fmt: skip
            (maps_Buv,) = explanations.maps.values()
            precise = rebuilt(kind, model, target)
            for map_uv, image_CHW in zip(maps_Buv, pixels_BCHW.double(), strict=True):
                layers = [precise.get_submodule(LAYER)]
                expected_uv = case.reference(precise, layers, image_CHW, kind.target(target))
                scale = max(
                    float(expected_uv.abs().max()), case.floor, 5e-3
                )  # as single precision resolves confidences
                assert float((map_uv.double() - expected_uv).abs().max()) <= 1e-5 * scale, (method, target)


@pytest.mark.parametrize("name", KINDS)
def test_metrics_agree_with_their_references(name: str) -> None:
    kind = KINDS[name]
    model, pixels_BCHW, target = trained(kind), images(1, count=2), kind.targets[-1]
    explanations = camatlas.explain(
        model, pixels_BCHW, layer=LAYER, targets=[target] * 2, seed=METRICS_SEED, outputs=kind.outputs
    )
    values = camatlas.evaluate(model, pixels_BCHW, explanations, metrics=METRICS)
    precise = rebuilt(kind, model, target)
    for b, image_CHW in enumerate(pixels_BCHW.double()):
        heatmap_HW = explanations.heatmap("gradcam")[b].double()
        row = Row(precise, image_CHW, kind.target(target), heatmap_HW, [], lambda _: torch.empty(0))
        for metric in METRICS:
            expected = REFERENCES[metric](row)
            assert isinstance(expected, float)
            assert float(values[metric]["gradcam"][b]) == pytest.approx(expected, rel=1e-5, abs=1e-5), metric


def test_a_binary_model_is_the_same_network_with_the_logits_0_and_z() -> None:
    model = trained(KINDS["binary"])
    same = Wrapped(model.net, lambda z_B1: torch.cat([torch.zeros_like(z_B1), z_B1], 1))
    pixels_BCHW = images(2, count=4)
    methods = ["gradcam", "scorecam", "rise", "group_cam"]
    binary, softmax = (
        camatlas.explain(each, pixels_BCHW, methods=methods, layer=LAYER, targets=[1] * 4, outputs=kind, seed=SEED)
        for each, kind in ((model, "binary"), (same, "softmax"))
    )
    assert torch.equal(binary.logits, softmax.logits)
    for method in methods:
        torch.testing.assert_close(binary.maps[method], softmax.maps[method])
    for metric in METRICS:
        ours, theirs = (
            camatlas.evaluate(each.probe.model, pixels_BCHW, each, metrics=[metric])[metric]
            for each in (binary, softmax)
        )
        for method in methods:
            torch.testing.assert_close(ours[method], theirs[method], atol=1e-6, rtol=1e-5)


def test_the_map_of_class_0_of_a_binary_model_is_that_of_the_negative_logit() -> None:
    model = trained(KINDS["binary"])
    negative = Wrapped(model.net, torch.neg)
    pixels_BCHW = images(2, count=4)
    zero = camatlas.explain(model, pixels_BCHW, layer=LAYER, targets=[0] * 4, outputs="binary")
    one = camatlas.explain(negative, pixels_BCHW, layer=LAYER, targets=[1] * 4, outputs="binary")
    assert not zero.degenerate["gradcam"].all()
    torch.testing.assert_close(zero.maps["gradcam"], one.maps["gradcam"])


def test_a_regression_is_explained_by_its_output() -> None:
    torch.manual_seed(0)
    model = Wrapped(ToyNet(3, classes=1), lambda z: 100 + 20 * z)
    pixels_BCHW = images(0, count=2)
    for method in BY_LOGIT:
        explanations = camatlas.explain(
            model, pixels_BCHW, methods=[CASES[method].spec], layer=LAYER, outputs="raw", seed=SEED
        )
        precise = copy.deepcopy(model).double()
        for map_uv, image_CHW in zip(next(iter(explanations.maps.values())), pixels_BCHW.double(), strict=True):
            expected_uv = CASES[method].reference(precise, [precise.get_submodule(LAYER)], image_CHW, 0)
            scale = max(float(expected_uv.abs().max()), 1.0)
            assert float((map_uv.double() - expected_uv).abs().max()) <= 1e-5 * scale, method
    assert explanations.evidence.target_confidences_B.isnan().all()


@pytest.mark.parametrize("name", ["binary", "three labels", "softmax inside"])
def test_the_shuffled_control_is_worse_where_a_confidence_exists(name: str) -> None:
    kind = KINDS[name]
    model, pixels_BCHW = trained(kind), images(7, count=24)
    explanations = camatlas.explain(
        model, pixels_BCHW, methods=["scorecam", "shuffled_gradcam"], layer=LAYER, targets=[list(kind.targets)] * 24,
        outputs=kind.outputs, keys=[f"image {i}" for i in range(24)],
    )  # fmt: skip
    drops = camatlas.evaluate(model, pixels_BCHW, explanations, metrics=["average_drop"])["average_drop"]
    assert float(drops["scorecam"].mean()) < float(drops["shuffled_gradcam"].mean())


def test_confidences_of_the_reference_are_those_of_the_kind() -> None:
    """The rebuilt networks say what the models say, so that the comparisons above compare the right numbers."""
    for kind in KINDS.values():
        model, image_CHW = trained(kind), images(0, count=1)[0]
        for target in kind.targets:
            found = camatlas.explain(model, image_CHW[None], layer=LAYER, targets=[target], outputs=kind.outputs)
            expected = base.target_output(rebuilt(kind, model, target), image_CHW.double(), kind.target(target))
            assert float(found.evidence.target_confidences_B) == pytest.approx(expected, abs=1e-6)
