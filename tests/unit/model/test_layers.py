"""The target layer is given by name, call, input or module, or found; names in messages were tried and serve."""

import re

import pytest
import torch
from nets import StagedNet, ToyNet, images
from reference import base
from torch import Tensor, nn

import pipeline
from pipeline.errors import LayerError
from pipeline.model.engine import fast_copy
from pipeline.model.layer_names import LayerName
from pipeline.model.layers import resolve_layer
from pipeline.model.probe import Probe


@pytest.mark.parametrize(
    ("text", "module", "call", "is_input"),
    [
        ("features.3", "features.3", None, False),
        ("relu#2", "relu", 2, False),
        ("bn1:input", "bn1", None, True),
        ("layer4.1.relu#12:input", "layer4.1.relu", 12, True),
        ("relu#0", "relu#0", None, False),
        ("relu#", "relu#", None, False),
        ("relu:output", "relu:output", None, False),
    ],
)
def test_names_have_a_module_a_call_and_a_side(text: str, module: str, call: int | None, is_input: bool) -> None:
    name = LayerName.parse(text)
    assert name == LayerName(module, call, is_input)
    assert str(name) == text


def test_a_layer_by_name_or_as_a_module_is_the_same() -> None:
    model = ToyNet(0)
    assert resolve_layer(model, "features.3") == "features.3"
    assert resolve_layer(model, model.features[3]) == "features.3"
    assert resolve_layer(model, "features.3#1:input") == "features.3#1:input"


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_the_names_of_a_wrapped_model_are_those_of_the_bare_one(wrapper: str) -> None:
    assert resolve_layer(ToyNet(0), f"{wrapper}features.3:input") == "features.3:input"


@pytest.mark.parametrize("layer", ["", ":input", "featurs", "relu#0", "features.3:output"])
def test_an_unknown_name_is_refused(layer: str) -> None:
    with pytest.raises(LayerError, match="the model has no layer"):
        resolve_layer(ToyNet(0), layer)


def test_what_is_neither_a_name_nor_a_module_of_the_model_is_refused() -> None:
    with pytest.raises(LayerError, match="not a module of the model"):
        resolve_layer(ToyNet(0), nn.ReLU())
    with pytest.raises(LayerError, match="not int"):
        resolve_layer(ToyNet(0), 3)  # type: ignore[arg-type]
    with pytest.raises(LayerError, match="not a module of the model"):
        resolve_layer(model := ToyNet(0), model)


@pytest.mark.parametrize("layer", ["featurs.3", "features.33", "haed", "nothing like it", "linear"])
def test_every_layer_that_a_message_names_serves(layer: str) -> None:
    with pytest.raises(LayerError) as caught:
        pipeline.explain(ToyNet(0), images(0), layer=layer)
    named = re.search(r"layers that work: (.*)\)", str(caught.value))
    assert named is not None
    for name in named[1].split(", "):
        assert not bool(pipeline.explain(ToyNet(0), images(0), layer=name).degenerate["gradcam"].all())


class Shared(nn.Module):
    """A network that runs one activation three times, and a normalisation of its own on the way."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.one, self.two, self.three = (
                nn.Conv2d(3, 5, 3, 2, 1),
                nn.Conv2d(5, 6, 3, 1, 1),
                nn.Conv2d(6, 7, 3, 2, 1),
            )
            self.norm, self.act, self.linear = nn.BatchNorm2d(6), nn.ReLU(), nn.Linear(7, 4)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)
            nn.init.uniform_(self.norm.bias, -0.3, 0.3)
            self.norm.running_mean.uniform_(-0.3, 0.3)
        self.eval()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        one = self.act(self.one(pixels_BCHW))
        two = self.act(self.norm(self.two(one)))
        return self.linear(self.act(self.three(two)).mean((2, 3)))


class Spelt(Shared):
    """The same network in which every step is a module that runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleDict({name: nn.Identity() for name in ("one", "conv", "normed", "two", "three")})

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        one = self.steps["one"](self.act(self.one(pixels_BCHW)))
        normed = self.steps["normed"](self.norm(self.steps["conv"](self.two(one))))
        two = self.steps["two"](self.act(normed))
        return self.linear(self.steps["three"](self.act(self.three(two))).mean((2, 3)))


LAYERS = {
    "act#1": "steps.one", "act#2": "steps.two", "act#3": "steps.three", "act#2:input": "steps.normed",
    "norm:input": "steps.conv", "norm": "steps.normed", "two:input": "steps.one", "three:input": "steps.two",
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_a_call_or_an_input_is_captured_and_replaced_like_a_step_of_its_own(layer: str) -> None:
    methods = ["gradcam", "layercam", "ablation_cam", "recipro_cam", "scorecam", "integrative_cam"]
    pixels_BCHW = images(1, 3)
    named = pipeline.explain(Shared(), pixels_BCHW, methods=methods, layer=layer, stages=[layer])
    step = LAYERS[layer]
    spelt = pipeline.explain(Spelt(), pixels_BCHW, methods=methods, layer=step, stages=[step])
    assert named.probe.layer == layer
    for method in methods:
        torch.testing.assert_close(named.maps[method], spelt.maps[method], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["norm:input", "norm", "act#2:input"])
def test_a_folded_norm_does_not_change_what_is_captured(layer: str) -> None:
    model, pixels_BCHW = Shared(), images(2, 3)
    evidence = Probe(model, layer).capture(pixels_BCHW, gradients=False)
    conv_BKuv = model.two(model.act(model.one(pixels_BCHW)))
    expected_BKuv = conv_BKuv if layer == "norm:input" else model.norm(conv_BKuv)
    torch.testing.assert_close(evidence.acts_BKuv, expected_BKuv.detach(), rtol=1e-5, atol=1e-6)
    folded = [type(module) for module in fast_copy(model, "fp32", [layer]).modules() if isinstance(module, nn.Identity)]
    assert len(folded) == (0 if layer == "norm:input" else 1)


def test_the_gradient_of_a_call_is_the_ordinary_one() -> None:
    evidence = Probe(Shared(), "act#2").capture(images(3, 1), torch.tensor([2]), gradients=True)
    model = Spelt().double()
    acts, grads, _ = base.observe(model, model.steps["two"], images(3, 1)[0].double(), 2)
    torch.testing.assert_close(evidence.acts_BKuv[0].double(), acts, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(evidence.grads_BKuv[0].double(), grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("act", r"more than once.*'act#2'"),
        ("act#4", "its module runs 3 times"),
        ("two#2:input", "its module runs 1 time"),
    ],
)
def test_a_call_that_is_not_named_or_does_not_happen_is_refused(layer: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        Probe(Shared(), layer).capture(images(0), gradients=True)


def staged() -> StagedNet:
    """Return a network whose first stage has a quarter of the image's sides, the finest that is a stage."""
    net = StagedNet(0)
    net.stage1[0].stride = (4, 4)
    return net


class Wraps(nn.Module):
    """Holds a network, or a part of one with the head outside of it."""

    def __init__(self, net: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.net, self.head = net, head or nn.Identity()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.head(self.net(pixels_BCHW))


class Listed(nn.Module):
    """Stages in a list of modules, which does not run itself."""

    def __init__(self) -> None:
        super().__init__()
        net = staged()
        self.stages = nn.ModuleList([net.stage1, net.stage2])
        self.after, self.linear = net.head, net.linear

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        acts = pixels_BCHW
        for stage in self.stages:
            acts = stage(acts)
        return self.linear(self.after(acts).mean((2, 3)))


class Trunk(nn.Module):
    """Only the stages of a network."""

    def __init__(self) -> None:
        super().__init__()
        net = staged()
        self.stage1, self.stage2 = net.stage1, net.stage2

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.stage2(self.stage1(pixels_BCHW))


def with_head() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4))


@pytest.mark.parametrize(
    ("model", "layer", "stages"),
    [
        (staged(), "stage2", ("stage1", "stage2")),
        (staged(), "stage2.1:input", ("stage1", "stage2.1:input")),
        (Wraps(staged()), "net.stage2", ("net.stage1", "net.stage2")),
        (Wraps(Wraps(staged())), "net.net.stage2", ("net.net.stage1", "net.net.stage2")),
        (Listed(), "stages.1", ("stages.0", "stages.1")),
        (Listed(), "after", ("stages.0", "after")),
        (Wraps(Trunk(), with_head()), "net", ("net.stage1", "net")),
        (Wraps(Wraps(Trunk()), with_head()), "net", ("net.net.stage1", "net")),
    ],
)
def test_stages_are_found_in_wrappers_and_lists(model: nn.Module, layer: str, stages: tuple[str, ...]) -> None:
    assert Probe(model.eval(), layer).stages(images(0, 1, 32)) == stages
