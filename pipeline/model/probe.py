"""Probe: one model with its target layer; every pass that a method asks for is run, bounded and counted here.

All passes but whole backwards run on the engine's fast copy. The trunk (input to the first captured layer) runs without
autograd; the hook on that layer detaches its output, makes it a leaf and switches autograd on, so that only the head
(from there to the logits) is differentiated. The model is left exactly as it was found.

Legend: I images, B rows (image, target), P changed activations of one image, C colours, (H, W) pixels, K channels,
(u, v) grid, N classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from pipeline.errors import LayerError
from pipeline.model.baselines import Normalisation, Reference, baseline_pixels
from pipeline.model.batching import Batcher, fastest_size, is_out_of_memory
from pipeline.model.counts import Counts
from pipeline.model.engine import Engine, Exact, Precision, check_parameters
from pipeline.model.evidence import Evidence, Head, Observation, Readout, Segment, target_logit
from pipeline.model.layers import checked_stages, find_stages, gives_channels_last, resolve_layer
from pipeline.model.layout import GridView, view_of
from pipeline.model.recording import recording, replacing, watching
from pipeline.model.scorer import Scorer

DEFAULT_BATCH = 32


class Probe:
    """One model with its target layer, on one device at one precision.

    Args:
        model: any classifier that maps (B, C, H, W) to logits (B, N); never changed.
        layer: name of a module, the module itself, or "auto" for the last stage of a known family.
        stages: layers for the methods that fuse several, shallow to deep, the target layer last; None finds the last
            layer of each resolution.
        precision: "fp32", or "bf16" for autocast; results are float32 either way, and so are passes over stages.
        batch: most images in one pass; halved when memory runs out.
        batch_multiple: passes are filled up to a multiple of this many images; see `Batcher`.
        normalisation: what made the inputs; the baselines `black` and `blur` need it.
        seed, compiled: of methods that draw random numbers; whether masked passes are compiled, up to a minute's work.

    Raises:
        LayerError: the layer is unknown, not unique in a forward pass, or not spatial.
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
    ) -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}")
        check_parameters(model)
        self.model = model
        self.layer, _ = resolve_layer(model, layer)
        self._stages = None if stages is None else checked_stages(model, stages, self.layer)
        self.precision: Precision = precision
        self.batcher = Batcher(batch, batch_multiple)
        self.normalisation = normalisation or Normalisation()
        self.seed = seed
        self.counts = Counts()
        self._engine = Engine(model, precision, (self.layer, *(self._stages or ())), compiled=compiled)
        self._exact = Exact(model)
        self.scorer = Scorer(self._engine.masked, self.counts, self.normalisation, Batcher(batch, batch_multiple))
        self._baseline_acts: dict[tuple[Any, ...], Tensor] = {}
        self._cut = True

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def renew(self) -> None:
        """Look at the model again, whose parameters may have been changed."""
        self._engine.renew()
        self._baseline_acts.clear()

    def choose_batch(self, size: tuple[int, int]) -> None:
        """Find by a short trial how many images (3, H, W) of this size one pass should hold."""

        def run(count: int) -> object:
            with torch.no_grad():
                return float(self._engine.logits(torch.zeros(count, 3, *size, device=self.device)).sum())  # waits

        sizes = (self.batcher.multiple * 2**n for n in range(8))
        self.batcher.size = self.scorer.batcher.size = fastest_size(run, sizes)

    def stages(self, pixels_BCHW: Tensor) -> tuple[str, ...]:
        """Layers for the methods that fuse several; see the class."""
        if self._stages is None:
            with torch.no_grad():
                one_BCHW = pixels_BCHW[:1].to(self.device, torch.float32)
                self._stages = find_stages(self.model, self.layer, one_BCHW, self._engine.plain)
            self._engine.keep(self._stages)
        return self._stages

    def observe(
        self, pixels_ICHW: Tensor, *, gradients: bool, stages: bool = False, keys: Sequence[str] | None = None
    ) -> Observation:
        """Run the model once and keep what the captured layers did.

        Args:
            pixels_ICHW: normalised images.
            gradients: also keep the head's graph, for backward passes.
            stages: capture every stage, not the target layer alone.
            keys: names of the images; seeds come from them.
        """
        if keys is not None and len(keys) != len(pixels_ICHW):
            raise ValueError(f"{len(pixels_ICHW)} images need as many keys, not {len(keys)}")
        layers = self.stages(pixels_ICHW) if stages else (self.layer,)
        passes = self.batcher.run(
            len(pixels_ICHW), lambda rows: self._observe(pixels_ICHW[rows], rows.start, layers, gradients)
        )
        segments, pixels, logits = (list(parts) for parts in zip(*passes, strict=True))
        views = self._views(segments[0], layers, pixels_ICHW)
        raw = {name: torch.cat([_real(segment.recorded[name], segment) for segment in segments]) for name in layers}
        return Observation(
            pixels_ICHW=torch.cat(pixels),
            layers=layers,
            acts={name: views[name].grid(raw[name]).float() for name in layers},
            logits_IN=torch.cat(logits),
            keys=("",) * len(pixels_ICHW) if keys is None else tuple(keys),
            raw=raw[self.layer],
            view=views[self.layer],
            head=Head(segments, views, self.counts) if gradients else None,
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
        """Run the model once and ask about one class of each image; None asks about the predicted class."""
        with torch.inference_mode(False):
            targets_B = None if targets_B is None else _normal(targets_B)
            return self.observe(pixels_BCHW, gradients=gradients, stages=stages, keys=keys).evidence(targets_B)

    def head(self, evidence: Evidence, row: int, changes: int, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits (changes, N) of one image with changed activations of the target layer.

        The trunk runs on that one image and only the head on each change, so that a skip connection around the layer
        carries what it really carries. A model that cannot do so runs whole for each change.

        Args:
            evidence: holds the image.
            row: which of its rows.
            changes: how many.
            change: gives the changed activations (P, K, u, v) for indices (P,).
        """
        pixels_1CHW = evidence.pixels_BCHW[row : row + 1]
        index = torch.arange(changes, device=pixels_1CHW.device)

        def one_pass(rows: slice) -> Tensor:
            changed = evidence.view.raw(change(self.batcher.fill(index[rows])), evidence.raw[row : row + 1])
            logits_PN = self._through(changed, pixels_1CHW)[: len(index[rows])]
            self.counts.head_passes += len(logits_PN)
            return logits_PN

        with torch.no_grad():
            return torch.cat(self.batcher.run(changes, one_pass))

    def linear_head(self, evidence: Evidence) -> Tensor | None:
        """Class weights (N, K), where the head is global average pooling and one linear layer; None elsewhere."""
        pooled_BK = evidence.acts_BKuv.mean((2, 3))
        tolerance = 1e-3 if self.precision == "fp32" else 5e-2
        scale = float(evidence.logits_BN.abs().max())
        for module in self.model.modules():
            if isinstance(module, nn.Linear) and module.weight.shape == (
                evidence.logits_BN.shape[1],
                pooled_BK.shape[1],
            ):
                weights_NK = module.weight.detach().float()
                logits_BN = pooled_BK @ weights_NK.T + (0 if module.bias is None else module.bias.detach().float())
                if float((logits_BN - evidence.logits_BN).abs().max()) <= tolerance * max(scale, 1e-6):
                    return weights_NK
        return None

    def backward(
        self,
        pixels_BCHW: Tensor,
        targets_B: Tensor,
        readout: Readout = target_logit,
        taps: Mapping[str, nn.Module] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Differentiate a score by the pixels (B, C, H, W) and by the outputs of modules, through the whole model."""
        found = self.batcher.run(
            len(pixels_BCHW), lambda rows: self._backward(pixels_BCHW[rows], targets_B[rows], readout, taps or {})
        )
        names = found[0][1]
        return torch.cat([grads for grads, _ in found]), {
            name: torch.cat([outputs[name] for _, outputs in found]) for name in names
        }

    def baseline_acts(self, kind: Reference, pixels_BCHW: Tensor) -> Tensor:
        """Activations (1 or B, K, u, v) of the baseline images; those that all images share run once."""
        if isinstance(kind, Tensor):
            return self.capture(self.baseline_pixels(kind, pixels_BCHW[:1]), gradients=False).acts_BKuv
        if kind == "blur":
            return self.capture(self.baseline_pixels(kind, pixels_BCHW), gradients=False).acts_BKuv
        key = (kind, tuple(pixels_BCHW.shape[1:]))
        if key not in self._baseline_acts:
            one = self.baseline_pixels(kind, pixels_BCHW[:1])
            self._baseline_acts[key] = self.capture(one, gradients=False).acts_BKuv
        return self._baseline_acts[key]

    def baseline_pixels(self, kind: Reference, pixels_BCHW: Tensor) -> Tensor:
        """Baseline images in the shape of the given ones."""
        return baseline_pixels(kind, pixels_BCHW, self.normalisation)

    def _observe(
        self, pixels_PCHW: Tensor, first: int, layers: tuple[str, ...], gradients: bool
    ) -> tuple[Segment, Tensor, Tensor]:
        count = len(pixels_PCHW)
        recorded: dict[str, Tensor] = {}
        # Derivatives through whole networks do not outlive bf16.
        engine = self._exact if len(layers) > 1 and self.precision == "bf16" else self._engine
        modules = {name: engine.layer(name) for name in layers}
        with torch.inference_mode(False):
            filled_PCHW = _normal(self.batcher.fill_images(pixels_PCHW.to(self.device, torch.float32)))
            with recording(modules, recorded, gradients=gradients):
                logits_PN = engine.logits(filled_PCHW, differentiable=gradients)
        for name in layers:
            if name not in recorded:
                raise LayerError(f"layer '{name}' does not run in a forward pass; choose another")
        if tuple(recorded) != layers:
            raise LayerError(f"stages stand in the order in which they run: {', '.join(recorded)}")
        self.counts.forwards += count
        segment = Segment(first, count, logits_PN, recorded)
        if engine is not self._engine:  # masked passes are compared with what this engine says, whatever its precision
            self.counts.forwards += count
            with torch.no_grad():
                logits_PN = self._engine.logits(filled_PCHW)
        return segment, filled_PCHW[:count], _real(logits_PN, segment)

    def _backward(
        self, pixels_PCHW: Tensor, targets_P: Tensor, readout: Readout, taps: Mapping[str, nn.Module]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(pixels_PCHW)
        outputs: dict[str, Tensor] = {}
        with torch.inference_mode(False), torch.enable_grad():
            inputs_PCHW = self.batcher.fill_images(_normal(pixels_PCHW)).detach().requires_grad_()
            with watching(taps, outputs):
                logits_PN = self._engine.plain(inputs_PCHW, differentiable=True)
            score = readout(logits_PN[:count], _normal(targets_P)).sum()
            grads_PCHW, *by_output = torch.autograd.grad(score, [inputs_PCHW, *outputs.values()], allow_unused=True)
        self.counts.forwards += count
        self.counts.backwards += count
        found = zip(outputs, by_output, strict=True)
        return grads_PCHW[:count].float(), {name: grad[:count].float() for name, grad in found if grad is not None}

    def _through(self, changed: Tensor, pixels_1CHW: Tensor) -> Tensor:
        """Run the head on changed outputs of the target layer."""
        layer = self._engine.layer(self.layer)
        if self._cut:
            try:
                with replacing(layer, lambda _: changed):
                    logits_PN = self._engine.logits(pixels_1CHW)
                if len(logits_PN) == len(changed):
                    return logits_PN
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
            self._cut = False  # something behind the layer holds on to the number of images
        with replacing(layer, lambda _: changed):
            return self._engine.logits(pixels_1CHW.expand(len(changed), -1, -1, -1))

    def _views(self, segment: Segment, layers: tuple[str, ...], pixels_BCHW: Tensor) -> dict[str, GridView]:
        size = (pixels_BCHW.shape[2], pixels_BCHW.shape[3])
        return {
            name: view_of(segment.recorded[name], name, size, channels_last=gives_channels_last(self.model, name))
            for name in layers
        }


def _real(tensor: Tensor, segment: Segment) -> Tensor:
    """Drop the filling, and the graph."""
    return tensor.detach()[: segment.count]


def _normal(tensor: Tensor) -> Tensor:
    """Copy a tensor made in inference mode, which autograd would refuse."""
    return tensor.clone() if tensor.is_inference() else tensor
