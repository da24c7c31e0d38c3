"""Decides which layers of a model are captured, and how their outputs are read, once for each size of images.

Legend: C colours, (H, W) pixels.
"""

from collections.abc import Sequence
from contextlib import suppress

from torch import nn

from pipeline.errors import LayerError, UnknownLayerError
from pipeline.model.attention_trial import TokenAttention, find_attention
from pipeline.model.auto_layer import auto_layer, serving_layers
from pipeline.model.frame import check_frame
from pipeline.model.layers import checked_stages, resolve_layer
from pipeline.model.layout import FunctionView, GridView, View
from pipeline.model.layout_choice import (
    FoundLayouts,
    Layout,
    LayoutFunction,
    find_views,
    stated_layout,
    trusted_views,
)
from pipeline.model.layout_trial import Shape, Trial
from pipeline.model.outputs import Outputs
from pipeline.model.registration import check_registration
from pipeline.model.stages import find_stages
from pipeline.model.trace import Calls, traced


class CapturedLayers:
    """The target layer and the stages of one model, with their layouts.

    Args:
        model: the classifier, without wrappers.
        layer: name of a layer, a module of the model, or "auto".
        stages: names of layers that end with the target layer; None: the last layer of each resolution.
        layout: how the target layer's output is read; "auto" finds out. Layouts that were found before are not tried
            again.
        outputs: how the model's return value becomes logits.

    Raises:
        LayerError: the layer is neither a name nor a module of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module,
        stages: Sequence[str] | None,
        layout: Layout | FoundLayouts,
        outputs: Outputs,
    ) -> None:
        self._model = model
        self._found = layout if isinstance(layout, FoundLayouts) else None
        self._layout = None if isinstance(layout, FoundLayouts) else stated_layout(layout)
        self._outputs = outputs
        self._trial_model = model if outputs.task is None else outputs.task.for_trials(model)
        self._wanted, self._wanted_stages = layer, stages
        self._layer: str | None = None
        self._stages: tuple[str, ...] | None = None
        self._views: dict[tuple[str, Shape], View] = {}
        self._trace: tuple[Shape, Calls] | None = None
        self._attention: dict[Shape, TokenAttention] = {}
        self.notes: tuple[str, ...] = ()
        """What the user should know of the target layer, as far as it was tried."""
        if self._found is not None and self._found.attention is not None:
            self._attention[self._found.shape] = self._found.attention
        if layer != "auto":
            with suppress(UnknownLayerError):  # raised in the first pass, with layers that were tried and serve
                self._layer = resolve_layer(model, layer)
                self._stages = None if stages is None else checked_stages(model, stages, self._layer)

    @property
    def known(self) -> tuple[str, ...]:
        """Names that are known without running the model."""
        return self._stages or (() if self._layer is None else (self._layer,))

    @property
    def stages(self) -> tuple[str, ...] | None:
        """Names of the stages; None as long as they were neither given nor looked up."""
        return self._stages

    @property
    def target(self) -> str:
        """Name of the target layer.

        Raises:
            LayerError: it is looked up in the first pass, which has not run.
        """
        if self._layer is None:
            raise LayerError(f"layer '{self._wanted}' is looked up in the first pass; run images first")
        return self._layer

    def names(self, shape: Shape, *, stages: bool) -> tuple[str, ...]:
        """Return the names of the layers to capture, the target layer last.

        Args:
            shape: colours, height and width of the images.
            stages: whether all stages are wanted, or the target layer alone.

        Raises:
            LayerError: a name is unknown, "auto" finds no layer, or the stages are not those of the target layer.
        """
        trial = Trial(self._trial_model, self._outputs, shape)
        if self._layer is None:
            self._layer = self._looked_up(trial)
        if self._stages is None and self._wanted_stages is not None:
            hint = lambda layer: self._hint(trial, layer)  # noqa: E731
            self._stages = checked_stages(self._model, self._wanted_stages, self._layer, hint)
        if not stages:
            return (self._layer,)
        if self._stages is None:
            view = self.views((self._layer,), shape)[self._layer]
            self._stages = find_stages(trial, self._layer, view, self._calls(trial))
        return self._stages

    def views(self, layers: Sequence[str], shape: Shape) -> dict[str, View]:
        """Return the layouts of layers for images of a shape (C, H, W).

        Raises:
            LayerError: the trial finds no layout of a layer, or contradicts the stated one.
        """
        missing = [layer for layer in layers if (layer, shape) not in self._views]
        if missing:
            trial = Trial(self._trial_model, self._outputs, shape)
            found = self._tried(trial, missing)
            if self._found is None and self.target in found:
                check_frame(trial.model, self._outputs, shape, found[self.target], self.target)
                self.notes = check_registration(trial, found[self.target], self.target)
            self._views |= {(layer, shape): view for layer, view in found.items()}
        return {layer: self._views[layer, shape] for layer in layers}

    def attention(self, shape: Shape) -> TokenAttention:
        """Return what the attention of the model means for images of a shape (C, H, W).

        Raises:
            LayerError: the model has no attention between the tokens of the target layer that can be read.
        """
        view = self.views((self.target,), shape)[self.target]
        if shape not in self._attention:
            self._attention[shape] = find_attention(self._model, self._outputs, shape, view)
        return self._attention[shape]

    def layouts(self, shape: Shape) -> FoundLayouts:
        """Return the layouts found so far for images of a shape (C, H, W)."""
        found = {layer: view for (layer, other), view in self._views.items() if other == shape}
        portable = {layer: self._portable(view) for layer, view in found.items()}
        return FoundLayouts(shape, portable, self._attention.get(shape))

    def _portable(self, view: View) -> GridView | LayoutFunction:
        """Return a layout without the model that a user's functions may hold."""
        if not isinstance(view, FunctionView):
            return view
        known = self._layout if self._found is None else self._found.by_layer[self.target]
        assert callable(known), "only a stated layout has functions"
        return known

    def _tried(self, trial: Trial, layers: Sequence[str]) -> dict[str, View]:
        """Return the layouts of layers that are known, and find those that are not."""
        found = dict[str, View]()
        if self._found is not None and self._found.shape == trial.shape:
            found = trusted_views(trial, self._found, layers)
        missing = [layer for layer in layers if layer not in found]
        if not missing:
            return found
        try:
            return found | find_views(trial, missing, {} if self._layout is None else {self.target: self._layout})
        except LayerError as error:
            hint = self._hint(trial, "")
            raise LayerError(f"{error} ({hint})" if hint else str(error)) from None

    def _looked_up(self, trial: Trial) -> str:
        """Return the target layer by a trial, or raise LayerError about its name."""
        if self._wanted == "auto":
            return auto_layer(trial, self._searched(trial))
        return resolve_layer(self._model, self._wanted, lambda layer: self._hint(trial, layer))

    def _searched(self, trial: Trial) -> Calls:
        """Return the calls among which "auto" chooses: all of a classifier, those that feed every box of a detector."""
        task, calls = self._outputs.task, self._calls(trial)
        within = "" if task is None else task.layers_within()
        return {name: call for name, call in calls.items() if f"{name}.".startswith(f"{within}.")} if within else calls

    def _calls(self, trial: Trial) -> Calls:
        """Return the calls of a forward pass on images of one shape, the last of which are kept."""
        if self._trace is None or self._trace[0] != trial.shape:
            self._trace = trial.shape, traced(trial)
        return self._trace[1]

    def _hint(self, trial: Trial, layer: str) -> str:
        """Name layers that were tried and serve, for a message about one that does not."""
        try:
            serving = serving_layers(trial, self._calls(trial), layer)
        except Exception:  # a model that raises has no layer that serves
            return ""
        return f"layers that work: {', '.join(serving)}" if serving else ""
