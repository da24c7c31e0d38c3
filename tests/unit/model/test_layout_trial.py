"""The layout of a layer is found by changing the image: right, or refused with a sentence, never read wrong."""

from collections.abc import Callable, Mapping

import pytest
import torch
from nets import ToyNet, images
from torch import Tensor, nn

import pipeline
from pipeline.errors import ConfigError, LayerError
from pipeline.model.layout_choice import FoundLayouts, Layout, find_views, stated_layout, trusted_views
from pipeline.model.layout_trial import PLACES, Trial, patched_images
from pipeline.model.outputs import Outputs
from pipeline.model.probe import Probe

Transform = Callable[[Tensor], object]


class Step(nn.Module):
    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, acts: Tensor) -> object:
        return self.transform(acts)


class Net(nn.Module):
    """Two convolutions to a grid of an eighth of the image, a step under test, and logits that depend on all of it."""

    def __init__(self, transform: Transform, channels: int = 6) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, channels, 3, 2, 1))
        self.step = Step(transform)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        out = self.step(self.features(pixels_BCHW))
        flat = out.reshape(len(pixels_BCHW), -1) if isinstance(out, Tensor) else pixels_BCHW.flatten(1)
        return torch.stack([flat.sum(1), flat.square().sum(1)], 1)


def tokens(prefix: int) -> Transform:
    def transform(acts: Tensor) -> Tensor:
        patches = acts.flatten(2).transpose(1, 2)
        return torch.cat([patches[:, :1] * 0.3 + acts.mean((2, 3))[:, None]] * prefix + [patches], 1)

    return transform


def windows(acts: Tensor) -> Tensor:
    cut = acts.unfold(2, 4, 4).unfold(3, 4, 4)
    return cut.permute(0, 2, 3, 4, 5, 1).reshape(-1, 16, acts.shape[1])


def windows_in_a_row(acts: Tensor) -> Tensor:
    return windows(acts).reshape(len(acts), -1, acts.shape[1])


def serpentine(acts: Tensor) -> Tensor:
    acts = acts.clone()
    acts[:, :, 1::2] = acts[:, :, 1::2].flip(3)
    return acts.flatten(2).transpose(1, 2)


def shuffled(acts: Tensor) -> Tensor:
    patches = acts.flatten(2).transpose(1, 2)
    return patches[:, torch.randperm(patches.shape[1], generator=torch.Generator().manual_seed(0))]


def mixed(acts: Tensor) -> Tensor:
    return acts.mean((2, 3), keepdim=True) * torch.linspace(1, 2, acts[0, 0].numel()).view_as(acts[:1, :1])


@pytest.mark.parametrize(
    ("transform", "size", "expected"),
    [
        (lambda acts: acts, (64, 64), "channels_first 8 x 8"),
        (lambda acts: acts, (32, 96), "channels_first 4 x 12"),
        (lambda acts: acts, (8, 16), "channels_first 1 x 2"),
        (lambda acts: acts.permute(0, 2, 3, 1), (64, 64), "channels_last 8 x 8"),
        (lambda acts: acts.permute(0, 2, 3, 1), (96, 32), "channels_last 12 x 4"),
        (tokens(0), (64, 64), "tokens 8 x 8"),
        (tokens(1), (64, 64), "tokens 8 x 8 after 1 tokens"),
        (tokens(5), (64, 64), "tokens 8 x 8 after 5 tokens"),
        (tokens(17), (64, 96), "tokens 8 x 12 after 17 tokens"),
    ],
)
def test_the_layout_that_follows_the_patch_is_taken(transform: Transform, size: tuple[int, int], expected: str) -> None:
    assert found(Net(transform), size) == expected


@pytest.mark.parametrize("channels", [4, 8, 16])
def test_as_many_channels_as_rows_or_columns_do_not_matter(channels: int) -> None:
    assert found(Net(lambda acts: acts, channels), (64, 128)) == "channels_first 8 x 16"
    assert found(Net(lambda acts: acts.permute(0, 2, 3, 1), channels), (64, 128)) == "channels_last 8 x 16"


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (windows, "gives 24 rows for 6 images"),
        (lambda acts: acts.flatten(2).permute(2, 0, 1), "gives 64 rows for 6 images"),  # tokens first
        (windows_in_a_row, "follows it in no layout"),
        (serpentine, "follows it in no layout"),
        (shuffled, "follows it in no layout"),
        (mixed, "follows it in no layout"),
        (lambda acts: acts.transpose(2, 3), "follows it in no layout"),
        (lambda acts: acts.flip(3), "follows it in no layout"),
        (lambda acts: acts.flip(2), "follows it in no layout"),
        (lambda acts: acts.roll((4, 4), (2, 3)), "follows it in no layout"),
        (lambda acts: acts * 0, "is the same for all images"),
        (lambda acts: acts.mean((2, 3), keepdim=True), "grid of one cell"),
        (lambda acts: acts.mean((2, 3)), "neither activation maps"),
        (lambda acts: acts.flatten(2)[:, :, :50].transpose(1, 2), "layout"),
        (lambda acts: [acts], "outputs list, not one tensor"),
        (lambda acts: (acts, acts), "outputs tuple, not one tensor"),
        (lambda acts: (acts.shape, acts), "outputs tuple, not one tensor"),
    ],
)
def test_other_outputs_are_refused(transform: Transform, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        found(Net(transform), (64, 64))


@pytest.mark.parametrize(
    ("transform", "layout"),
    [
        (lambda acts: acts, "channels_first"),
        (lambda acts: acts.permute(0, 2, 3, 1), "channels_last"),
        (tokens(1), {"tokens": {"prefix": 1, "grid": [8, 8]}}),
        (mixed, "channels_first"),  # the trial cannot tell
    ],
)
def test_a_stated_layout_is_taken_if_nothing_contradicts_it(transform: Transform, layout: Layout) -> None:
    assert found(Net(transform), (64, 64), layout).startswith(layout if isinstance(layout, str) else "tokens")


@pytest.mark.parametrize(
    ("transform", "layout", "words"),
    [
        (lambda acts: acts, "channels_last", "follows it as channels_first 8 x 8, not as channels_last 6 x 8"),
        (lambda acts: acts.permute(0, 2, 3, 1), "channels_first", "as channels_last 8 x 8, not as channels_first"),
        (tokens(1), {"tokens": {"prefix": 16, "grid": [7, 7]}}, "as tokens 8 x 8 after 1 tokens, not as tokens 7 x 7"),
        (tokens(1), {"tokens": {"prefix": 1, "grid": [4, 16]}}, "not as tokens 4 x 16"),
        (tokens(1), {"tokens": {"prefix": 0, "grid": [8, 8]}}, "which is not tokens 8 x 8"),
        (tokens(1), "channels_first", "which is not channels_first"),
        (windows_in_a_row, {"tokens": {"grid": [8, 8]}}, "changes in other cells"),
        (shuffled, {"tokens": {"grid": [8, 8]}}, "changes in other cells"),
        (lambda acts: acts.flip(3), "channels_first", "changes in other cells"),
        (windows, "channels_first", "gives 24 rows"),
        (lambda acts: acts.mean((2, 3), keepdim=True), "channels_first", "at least two cells"),
    ],
)
def test_a_stated_layout_that_the_trial_contradicts_is_refused(
    transform: Transform, layout: Layout, words: str
) -> None:
    with pytest.raises(LayerError, match=words):
        found(Net(transform), (64, 64), layout)


@pytest.mark.parametrize("layout", ["channels_frist", {"tokens": {"prefix": 1}}, {"grid": [1, 2]}, 3, None])
def test_what_is_no_layout_is_refused(layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"model\.layout.*is not a layout"):
        stated_layout(layout)


def test_a_function_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(ConfigError, match="no_such_module"):
        stated_layout("no_such_module:layout")


def in_windows(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Read windows of 4 x 4 that follow each other, on a grid of 8 x 8."""
    assert isinstance(model, nn.Module)
    places = windows_in_a_row(torch.arange(64.0).reshape(1, 1, 8, 8))[0, :, 0].long()

    def to_maps(raw: Tensor) -> Tensor:
        return raw[:, places.argsort()].transpose(1, 2).reshape(len(raw), -1, 8, 8)

    return to_maps, lambda maps, _like: maps.flatten(2).transpose(1, 2)[:, places]


def test_a_function_reads_what_no_layout_fits_like_the_maps_before() -> None:
    model, pixels_BCHW = Net(windows_in_a_row), images(1, 2, 64)
    read = pipeline.explain(model, pixels_BCHW, methods=["gradcam", "recipro_cam"], layer="step", layout=in_windows)
    plain = pipeline.explain(model, pixels_BCHW, methods=["gradcam", "recipro_cam"], layer="features")
    for method in read.maps:
        torch.testing.assert_close(read.maps[method], plain.maps[method], rtol=1e-4, atol=1e-5)


def test_a_function_that_reads_a_layer_wrong_is_refused() -> None:
    with pytest.raises(LayerError, match="changes in other cells"):
        found(Net(shuffled), (64, 64), in_windows)
    with pytest.raises(LayerError, match="as tokens 8 x 8, not as"):
        found(Net(tokens(0)), (64, 64), in_windows)


def test_found_layouts_need_no_trial_again() -> None:
    trial = Trial(Net(windows_in_a_row), Outputs("raw"), (3, 64, 64))
    probe = Probe(trial.model, "step", layout=in_windows, outputs=Outputs("raw"))
    probe.capture(images(1, 2, 64), gradients=False)
    layouts = probe.layouts(images(1, 1, 64))
    assert layouts == FoundLayouts((3, 64, 64), {"step": in_windows})
    runs = []
    handle = trial.model.register_forward_hook(lambda *_: runs.append(1))
    assert str(trusted_views(trial, layouts, ["step"])["step"]).endswith("in_windows 8 x 8")
    handle.remove()
    assert runs == [1], "one pass for the shape that the function reads"
    again = Probe(trial.model, "features", layout=FoundLayouts((3, 64, 64), {"features": view_of("features")}))
    assert again.capture(images(1, 2, 64), gradients=False).view == view_of("features")


def test_a_patch_lies_in_each_corner_and_the_centre() -> None:
    pixels_SCHW = patched_images((3, 30, 60), 0, torch.device("cpu"))
    changed = [(image != pixels_SCHW[0]).any(0).nonzero() for image in pixels_SCHW[1:]]
    for places_N2, (down, right) in zip(changed, PLACES, strict=True):
        assert places_N2.amin(0).tolist() == [down * 20, right * 40]
        assert (places_N2.amax(0) - places_N2.amin(0)).tolist() == [9, 19]


def test_a_network_that_answers_more_weakly_than_float32_resolves_is_tried_in_float64() -> None:
    faint = Net(lambda acts: 1 + 1e-12 * acts if acts.dtype == torch.float64 else acts * 0 + 1)
    assert found(faint, (64, 64)) == "channels_first 8 x 8"


def test_the_trial_leaves_the_model_and_chance_alone() -> None:
    model = ToyNet(0)
    model.train()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        found(model, (32, 32), layer="features.3")
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def view_of(layer: str) -> object:
    return views(Net(lambda acts: acts), (64, 64), layer, {})[layer]


def views(model: nn.Module, size: tuple[int, int], layer: str, stated: Mapping[str, object]) -> dict[str, object]:
    return find_views(Trial(model, Outputs("raw"), (3, *size)), [layer], stated)  # type: ignore[arg-type, return-value]


def found(model: nn.Module, size: tuple[int, int], layout: Layout = "auto", layer: str = "step") -> str:
    checked = stated_layout(layout)
    return str(views(model, size, layer, {} if checked is None else {layer: checked})[layer])
