"""Chooses how the outputs of named layers are read: as the user states it, or by the trial; refuses what is open.

Legend: B images, K channels, (u, v) grid, (H, W) pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.errors import ConfigError, LayerError, first_line
from pipeline.model.attention_trial import TokenAttention
from pipeline.model.layer_names import module_of
from pipeline.model.layout import GridView, View, function_view, readings
from pipeline.model.layout_trial import IMAGES, Response, Runs, Shape, Trial, is_following
from pipeline.model.recording import capturing
from pipeline.settings.functions import imported
from pipeline.settings.model import ModelConfig, TokensLayout

_WHERE = "model.layout"

LayoutFunction = Callable[[nn.Module], object]
"""Receives the model and returns two functions: from a layer's output to maps (B, K, u, v), and back."""
_SHARP = 0.6
"""A cell of which the patches take this share of the energy on average, one patch each, tells clearly where it lies."""
_KNOWN = "use auto, channels_first, channels_last, tokens with their prefix and grid, or package.module:function"
StatedLayout = Literal["channels_first", "channels_last"] | TokensLayout | LayoutFunction
"""How the target layer's output is read, as the user states it."""
Layout = str | Mapping[str, object] | TokensLayout | LayoutFunction
"""What users write for it: "auto" finds out; "channels_first", "channels_last", `{"tokens": {"grid": [14, 14]}}`, a
function, or its name `package.module:function`."""


def stated_layout(layout: Layout) -> StatedLayout | None:
    """Check a layout that the user wrote, and import its function; None for "auto".

    Raises:
        ConfigError: there is no such layout, or its function cannot be imported.
    """
    if callable(layout):
        return layout
    try:
        checked = ModelConfig.model_validate({"name": "", "layout": layout}).layout
    except ValidationError:
        raise ConfigError.one(_WHERE, f"{layout!r} is not a layout", _KNOWN) from None
    if isinstance(checked, TokensLayout):
        return checked
    kinds: dict[str, StatedLayout | None] = {
        "auto": None,
        "channels_first": "channels_first",
        "channels_last": "channels_last",
    }
    return kinds[checked] if checked in kinds else imported(_WHERE, checked)


@dataclass(frozen=True)
class FoundLayouts:
    """Layouts that a trial has found or confirmed, so that other processes and changed weights need none.

    Attributes:
        shape: colours, height and width of the images, (C, H, W).
        by_layer: the layout of each layer; a function of the user's is called with the model at hand.
        attention: what the model's attention means; None if no method asked for it.
    """

    shape: Shape
    by_layer: Mapping[str, GridView | LayoutFunction]
    attention: TokenAttention | None = None


def trusted_views(trial: Trial, layouts: FoundLayouts, layers: Sequence[str]) -> dict[str, View]:
    """Return the layouts of those layers for which a trial has found them, without another trial."""
    known = {layer: layouts.by_layer[layer] for layer in layers if layer in layouts.by_layer}
    views: dict[str, View] = {layer: view for layer, view in known.items() if isinstance(view, GridView)}
    functions = {layer: view for layer, view in known.items() if not isinstance(view, GridView)}
    responses = trial.first(lambda runs: _responses(runs, list(functions))) if functions else {}
    return views | {
        layer: _stated(layer, response, trial.model, functions[layer]) for layer, response in responses.items()
    }


def find_views(trial: Trial, layers: Sequence[str], stated: Mapping[str, StatedLayout]) -> dict[str, View]:
    """Return how the outputs of layers are read.

    Args:
        trial: runs the images of the trial.
        layers: names of the layers; all of them run once and give one tensor.
        stated: the layouts that the user states, by layer; one is refused if the trial contradicts it.

    Raises:
        LayerError: a layer has no row per image, no grid of two cells or more, or no single layout in which changes
            follow the patch; or it does not have the stated layout.
    """
    responses = trial.first(lambda runs: _responses(runs, layers))
    wanted = dict[str, View]()
    for layer, response in responses.items():
        _check_shape(layer, response, trial.size, is_stated=layer in stated)
        if layer in stated:
            wanted[layer] = _stated(layer, response, trial.model, stated[layer])
    views = {layer: _decided(response, trial.size, wanted.get(layer)) for layer, response in responses.items()}
    undecided = [
        layer
        for layer, view in views.items()
        if view is None and not (layer in wanted and responses[layer].view(trial.size))  # else it is contradicted
    ]
    again = trial.second(lambda runs: _responses(runs, undecided)) if undecided else None
    responses |= again or {}
    return {
        layer: view
        or _decided(responses[layer], trial.size, wanted.get(layer))
        or _unconfirmed(layer, responses[layer], trial.size, wanted.get(layer))
        for layer, view in views.items()
    }


def _responses(runs: Runs, layers: Sequence[str]) -> dict[str, Response]:
    """Run trials and record what the layers give."""
    responses = dict[str, Response]()

    def take(layer: str, tensor: Tensor) -> Tensor:
        response = responses.setdefault(layer, Response(tuple(tensor.shape)))
        response.add(tensor)
        response.raw = tensor.detach().clone()
        return tensor

    for model, run in runs:
        with capturing({layer: model.get_submodule(module_of(layer)) for layer in layers}, take):
            run()
    return responses


def _check_shape(layer: str, response: Response, size: tuple[int, int], *, is_stated: bool) -> None:
    """Raise LayerError for an output that has no row per image, or that no layout fits."""
    shape = response.shape
    if not response.one_row_per_image:
        rows = shape[0] if shape else "no"
        raise LayerError(
            f"layer '{layer}' gives {rows} rows for {IMAGES} images, as layers inside of windows do; choose a "
            "layer that gives one row per image, such as the block around it"
        )
    if is_stated or list(readings(shape, size)):
        return
    if len(shape) == 4 and min(shape[2] * shape[3], shape[1] * shape[2]) == 1:
        raise LayerError(
            f"layer '{layer}' outputs a grid of one cell for images of {size[0]} x {size[1]}; "
            "choose an earlier layer or larger images"
        )
    raise LayerError(
        f"layer '{layer}' outputs shape {('B', *shape[1:])}, neither activation maps (B, K, u, v) nor tokens of a grid"
    )


def _decided(response: Response, size: tuple[int, int], stated: View | None) -> View | None:
    """Return the layout that the trial finds or confirms; None if it is open."""
    if stated is None:
        return response.view(size)
    return stated if is_following(response.follows(stated)) else None


def _unconfirmed(layer: str, response: Response, size: tuple[int, int], stated: View | None) -> View:
    """Return a stated layout that nothing contradicts; raise LayerError otherwise."""
    sharpness = 0.0 if stated is None else response.sharpness(stated)
    scores = response.views(size)
    following = [view for view, score in scores.items() if is_following(score)]
    changed = f"a patch was changed in turn at several places of an image, and the output of layer '{layer}'"
    if stated is None and not response.changes:
        raise LayerError(
            f"the output of layer '{layer}' is the same for all images that were tried, as in a layer whose "
            "activations are all zero; choose another layer, or state model.layout"
        )
    if stated is None:
        tried = sorted(scores.items(), key=lambda item: -item[1])[:3]
        listed = ", ".join(f"correlation {score:.2f} as {view}" for view, score in tried)
        found = "more than one layout" if following else "no layout"
        raise LayerError(
            f"{changed}, {('B', *response.shape[1:])}, follows it in {found} ({listed}); choose another layer, or "
            "state model.layout"
        )
    others = [view for view in following if view != stated]
    if others:
        raise LayerError(f"{changed} follows it as {others[0]}, not as {stated}; correct model.layout, or leave it out")
    if sharpness >= _SHARP:
        raise LayerError(
            f"{changed} changes in other cells than those at these places, read as {stated}; correct model.layout, or "
            "choose another layer"
        )
    return stated


def _stated(layer: str, response: Response, model: nn.Module, layout: StatedLayout) -> View:
    """Return the layout that the user states; raise LayerError if the output cannot have it."""
    shape, raw = response.shape, response.raw
    if callable(layout):
        name = f"{layout.__module__}:{getattr(layout, '__qualname__', type(layout).__name__)}"
        assert raw is not None, "the layer gave a tensor"
        try:
            pair = layout(model)
        except Exception as error:  # a user's function may raise anything
            raise LayerError(f"layout '{name}' raised {first_line(error)}") from error
        return function_view(name, pair, raw, layer)
    view: GridView | None = None
    if isinstance(layout, TokensLayout):
        view = GridView("tokens", *layout.tokens.grid, layout.tokens.prefix)
    elif len(shape) == 4:
        view = GridView(layout, *(shape[2:4] if layout == "channels_first" else shape[1:3]))
    if view is None or not view.fits(shape) or view.cells < 2:
        wanted = view if view is not None else layout
        raise LayerError(f"layer '{layer}' outputs {('B', *shape[1:])}, which is not {wanted} with at least two cells")
    return view
