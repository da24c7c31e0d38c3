"""Runs, batches and counts every pass that methods need, on one model with its target layer.

Passes run on the engine's fast copy, unless they need every module of the model (backward passes to the pixels) or
float32 (stages at bf16). The trunk (from the input to the first captured layer) runs without autograd. A hook on that
layer makes its output a leaf and switches autograd on, so that only the head (from there to the logits) is
differentiated. The model is left unchanged.

Legend: I images, B rows (image, target), P rows per pass, C colours, (H, W) pixels, (u, v) grid, K channels, N classes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import LayerError
from pipeline.model.attention import NO_ATTENTION, AttentionWanted
from pipeline.model.attention_pass import gathered, reader, recording_attention
from pipeline.model.attention_trial import TokenAttention
from pipeline.model.baselines import PER_IMAGE, Normalisation, Reference, baseline_pixels
from pipeline.model.batching import DEFAULT_BATCH, Batcher, fastest_size, for_autograd
from pipeline.model.captured import CapturedLayers
from pipeline.model.counts import Counts
from pipeline.model.cut import Cut
from pipeline.model.engine import Engine, Exact, Precision, check_parameters
from pipeline.model.evidence import Evidence, Observation, Readout
from pipeline.model.head import Head, Segment
from pipeline.model.layout_choice import FoundLayouts, Layout
from pipeline.model.layout_trial import shape_of
from pipeline.model.linear_head import linear_head
from pipeline.model.outputs import SOFTMAX, Outputs
from pipeline.model.pixel_gradients import pixel_gradients
from pipeline.model.recording import recording
from pipeline.model.scorer import Scorer


class Probe:
    """One model with its target layer, on one device at one precision.

    Args:
        model: any classifier that maps (B, C, H, W) to logits (B, N); never changed.
        layer: `layer4`, `relu#2` (its second call), `bn1:input` (what goes in), a module, or "auto" for the last one
            at the deepest resolution.
        stages: layers for methods that combine several, ending with `layer`; None: the last layer of each resolution.
        precision: "bf16" for autocast, except in passes that capture several stages; else see `arithmetic.multiplying`.
        batch: most images in one pass; halved when memory runs out.
        batch_multiple: passes are padded to a multiple of this many images; see `Batcher`.
        normalisation, seed: mean and std of the inputs, for the baseline `black`; seed of methods that draw numbers.
        compiled: whether to compile masked passes, which takes up to a minute.
        outputs: how the model's return value becomes logits and confidences.
        layout: how the target layer's output is read; "auto" finds out by a trial, which found layouts need not.

    Raises:
        LayerError: a layer given as a module is not part of the model, or the model's parameters are not float32.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module = "auto",
        *,
        stages: Sequence[str] | None = None,
        precision: Precision = "fp32",
        batch: int = DEFAULT_BATCH,
        batch_multiple: int = 1,
        normalisation: Normalisation | None = None,
        seed: int = 0,
        compiled: bool = False,
        outputs: Outputs = SOFTMAX,
        layout: Layout | FoundLayouts = "auto",
    ) -> None:
        check_parameters(model, precision)
        self.model = model
        self._captured = CapturedLayers(model, layer, stages, layout, outputs)
        self.precision: Precision = precision
        self.batcher, masked = Batcher(batch, batch_multiple), Batcher(batch, batch_multiple)
        self.normalisation = normalisation or Normalisation()
        self.seed = seed
        self.counts = Counts()
        self.outputs = outputs
        self._engine = Engine(model, precision, self._captured.known, compiled=compiled, outputs=outputs)
        self._exact = Exact(model, outputs)
        self.scorer = Scorer(self._engine.masked, self.counts, self.normalisation, masked, outputs)
        self._baseline_acts: dict[tuple[Any, ...], Tensor] = {}
        self._cut, self._tail = Cut(), Cut()
        self._reached = set[str]()

    @property
    def layer(self) -> str:
        """Name of the target layer; for "auto", it is known after the first pass."""
        return self._captured.target

    @property
    def known_stages(self) -> tuple[str, ...] | None:
        """The layers for methods that combine several; None as long as they were neither given nor needed."""
        return self._captured.stages

    def layouts(self, pixels_BCHW: Tensor) -> FoundLayouts:
        """Return the layouts found so far for images of this size, for other processes."""
        return self._captured.layouts(shape_of(pixels_BCHW))

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def trouble(self) -> str:
        """Why masked passes run uncompiled although they should not; empty if they do not."""
        return self._engine.trouble

    def renew(self) -> None:
        """Use the model's current parameters; call it after changing them."""
        self._engine.renew()
        self._baseline_acts.clear()

    def choose_batch(self, shape: tuple[int, int, int]) -> None:
        """Choose the fastest number of images of a shape (C, H, W) per pass by timing a few passes."""

        def run(count: int) -> object:
            with torch.no_grad():
                return float(self._engine.logits(torch.zeros(count, *shape, device=self.device)).sum())  # syncs

        self.batcher.size = fastest_size(run, (self.batcher.multiple * 2**n for n in range(8)))
        self.scorer.batcher.size = self.batcher.size

    def stages(self, pixels_BCHW: Tensor) -> tuple[str, ...]:
        """Return the layers for methods that combine several, shallow to deep; found once if not given."""
        return self._layers(pixels_BCHW, stages=True)

    def _layers(self, pixels_BCHW: Tensor, *, stages: bool) -> tuple[str, ...]:
        names = self._captured.names(shape_of(pixels_BCHW), stages=stages)
        self._engine.keep(names)
        return names

    def resolve(self, pixels_BCHW: Tensor) -> tuple[str, ...]:
        """Find the target layer if it is not known, and return notes on it; raises LayerError if it cannot serve."""
        self._captured.views(self._layers(pixels_BCHW, stages=False), shape_of(pixels_BCHW))
        return self._captured.notes

    def attention(self, pixels_BCHW: Tensor) -> TokenAttention:
        """Return what the model's attention means, found out once; raises LayerError if there is none to be read."""
        self.resolve(pixels_BCHW)
        return self._captured.attention(shape_of(pixels_BCHW))

    def observe(
        self,
        pixels_ICHW: Tensor,
        *,
        gradients: bool,
        stages: bool = False,
        keys: Sequence[str] | None = None,
        attention: AttentionWanted = NO_ATTENTION,
    ) -> Observation:
        """Run the model once and capture the outputs of the target layer, or of all stages.

        Args:
            pixels_ICHW: normalised images.
            gradients: also keep the head's autograd graph, for backward passes.
            stages: capture all stages, not only the target layer.
            keys: one key per image, which seeds random methods; None leaves them empty.
            attention: what is recorded of the attention of every layer.

        Raises:
            LayerError: a captured layer does not run, runs more than once, or outputs no activation maps; or there is
                no attention that can be read.
        """
        if keys is not None and len(keys) != len(pixels_ICHW):
            raise ValueError(f"{len(pixels_ICHW)} images need {len(pixels_ICHW)} keys, not {len(keys)}")
        layers = self._layers(pixels_ICHW, stages=stages)
        known = self.attention(pixels_ICHW) if attention.weights else None
        one_pass = partial(self._observe, layers=layers, gradients=gradients, wanted=attention, known=known)
        passes = self.batcher.run(len(pixels_ICHW), lambda rows: one_pass(pixels_ICHW[rows], rows.start))
        segments, pixels, logits = (list(parts) for parts in zip(*passes, strict=True))
        views = self._captured.views(layers, shape_of(pixels_ICHW))
        raw = {name: torch.cat([segment.trimmed(segment.recorded[name]) for segment in segments]) for name in layers}
        return Observation(
            pixels_ICHW=torch.cat(pixels),
            layers=layers,
            acts={name: views[name].grid(raw[name]).float() for name in layers},
            logits_IN=torch.cat(logits),
            keys=("",) * len(pixels_ICHW) if keys is None else tuple(keys),
            raw=raw[self.layer],
            view=views[self.layer],
            head=Head(segments, views, self.counts, self._reached) if gradients else None,
            outputs=self.outputs,
            attention=gathered(segments, known, attention, self.counts),
        )

    def capture(
        self,
        pixels_BCHW: Tensor,
        targets_B: Tensor | None = None,
        *,
        gradients: bool,
        stages: bool = False,
        keys: Sequence[str] | None = None,
    ) -> Evidence:
        """Run the model once and return the evidence for one target class per image; None means the predicted class."""
        with torch.inference_mode(False):
            targets_B = None if targets_B is None else for_autograd(targets_B)
            return self.observe(pixels_BCHW, gradients=gradients, stages=stages, keys=keys).evidence(targets_B)

    def head(self, evidence: Evidence, row: int, changes: int, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits (changes, N) of one image for several versions of its target layer's activations.

        The trunk runs once on the image, and the head once per version, see `Cut`.

        Args:
            evidence: the evidence that contains the image.
            row: index of a row of the image.
            changes: number of versions.
            change: returns the activations (P, K, u, v) of the versions with the given indices (P,).
        """
        pixels_1CHW = evidence.pixels_BCHW[row : row + 1]
        index = torch.arange(changes, device=pixels_1CHW.device)

        def one_pass(rows: slice) -> Tensor:
            changed = evidence.view.raw(change(self.batcher.pad(index[rows])), evidence.raw[row : row + 1])
            logits_PN = self._cut.logits(self._engine, self.layer, changed, pixels_1CHW)[: len(index[rows])]
            self.counts.head_passes += len(logits_PN)
            return logits_PN

        with torch.no_grad():
            return torch.cat(self.batcher.run(changes, one_pass))

    def linear_head(self, evidence: Evidence) -> Tensor | None:
        """Return the class weights (N, K) if average pooling and one linear layer reproduce the logits, else None."""
        return linear_head(self.model, evidence, 1e-3 if self.precision == "fp32" else 5e-2)

    def backward(
        self,
        pixels_BCHW: Tensor,
        targets_B: Tensor,
        readout: Readout | None = None,
        taps: Mapping[str, nn.Module] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a score's gradients with respect to the pixels (B, C, H, W), and to the outputs of `taps` it uses.

        The score is the target logit if `readout` is None.
        """
        score, tools = readout or self.outputs.target_logits, (self._engine, self.batcher, self.counts, self.outputs)
        run = partial(pixel_gradients, *tools, readout=score, taps=taps or {})
        passes = self.batcher.run(len(pixels_BCHW), lambda rows: run(pixels_BCHW[rows], targets_B[rows]))
        names = passes[0][1]
        return torch.cat([grads for grads, _ in passes]), {
            name: torch.cat([outputs[name] for _, outputs in passes]) for name in names
        }

    def baseline_acts(self, kind: Reference, pixels_BCHW: Tensor) -> Tensor:
        """Return the activations of the baselines: (B, K, u, v) for blurs, else (1, K, u, v), cached by name."""
        is_given = isinstance(kind, Tensor)
        if is_given or kind in PER_IMAGE:
            starts = self.baseline_pixels(kind, pixels_BCHW[:1] if is_given else pixels_BCHW)
            return self.capture(starts, gradients=False).acts_BKuv
        key = (kind, tuple(pixels_BCHW.shape[1:]))
        if key not in self._baseline_acts:
            one = self.baseline_pixels(kind, pixels_BCHW[:1])
            self._baseline_acts[key] = self.capture(one, gradients=False).acts_BKuv
        return self._baseline_acts[key].clone()  # what a plug-in does to it must not reach others

    def baseline_pixels(self, kind: Reference, pixels_BCHW: Tensor) -> Tensor:
        """Return the baseline of each image, (B, C, H, W)."""
        return baseline_pixels(kind, pixels_BCHW, self.normalisation)

    def _observe(
        self,
        pixels_PCHW: Tensor,
        first: int,
        *,
        layers: tuple[str, ...],
        gradients: bool,
        wanted: AttentionWanted,
        known: TokenAttention | None,
    ) -> tuple[Segment, Tensor, Tensor]:
        count, recorded = len(pixels_PCHW), dict[str, Tensor]()
        is_deep = len(layers) > 1 or wanted.is_differentiated  # bf16 is too coarse for gradients through many layers
        engine = self._exact if is_deep and self.precision == "bf16" else self._engine
        gradients = gradients or wanted.is_differentiated
        modules = {name: engine.layer(name) for name in layers}
        with torch.inference_mode(False):
            padded_PCHW = for_autograd(self.batcher.pad_images(pixels_PCHW.to(self.device, torch.float32)))
            with (
                recording(modules, recorded, gradients=gradients),
                recording_attention(engine, known, wanted, len(padded_PCHW)) as attention,
            ):
                logits_PN = engine.logits(padded_PCHW, differentiable=gradients)
                logits_PN = self.outputs.connected(logits_PN, recorded.values())
        if tuple(recorded) != layers:
            raise LayerError(f"stages must be in the order in which they run: {', '.join(recorded)}")
        self.counts.forwards += count
        read = reader(self._tail, engine, known, padded_PCHW[:1])
        segment = Segment(first, count, logits_PN, recorded, attention, read)
        if engine is not self._engine:  # the clean logits must have the precision of the masked passes
            self.counts.forwards += count
            with torch.no_grad():
                logits_PN = self._engine.logits(padded_PCHW)
        return segment, padded_PCHW[:count], segment.trimmed(logits_PN)
