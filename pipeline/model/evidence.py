"""Evidence: activations, logits and gradients of one forward pass, from which CAM methods compute their maps.

An `Observation` is the forward pass itself, with one row per image. `Evidence` is what methods receive, with one row
per (image, target). The targets of an image share its forward pass. Each further gradient costs one backward pass
through the head, which is the part of the model from the first captured layer to the logits.

Rows of the same image are always adjacent. The rank of a row is its index among the rows of its image.

Legend: I images, B rows (image, target), C colours, (H, W) pixels, K channels, (u, v) grid, N classes, T targets of one
image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pipeline.model.attention_evidence import AttentionEvidence
from pipeline.model.batching import for_autograd
from pipeline.model.head import Head, Readout
from pipeline.model.layout import View
from pipeline.model.outputs import Outputs
from pipeline.model.rows import Rows
from pipeline.model.transfers import sent

__all__ = ["Evidence", "Observation", "Readout"]


@dataclass(frozen=True)
class Evidence:
    """Results of one forward pass and one backward pass through the head, with one row per (image, target).

    Attributes:
        pixels_BCHW: the normalised input.
        layers: names of the captured layers, shallow to deep; the last one is the target layer.
        acts: output of each captured layer, (B, K, u, v), float32.
        grads: gradient of the score (by default the target logit) with respect to `acts`; empty without gradients.
        logits_BN: logits, float32.
        targets_B: the target class of each row.
        images_B: index of each row's image in the batch, in increasing order.
        keys: the image key of each row, which seeds random methods.
        raw: output of the target layer for each row, in the layer's own memory layout.
        view: the layout of `raw`.
        head: differentiates other scores; None without gradients.
        outputs: which confidences belong to the logits.
        attention: the attention between the tokens; None unless a method asked for it.
    """

    pixels_BCHW: Tensor
    layers: tuple[str, ...]
    acts: Mapping[str, Tensor]
    grads: Mapping[str, Tensor]
    logits_BN: Tensor
    targets_B: Tensor
    images_B: Tensor
    keys: tuple[str, ...]
    raw: Tensor
    view: View
    head: Head | None
    outputs: Outputs
    attention: AttentionEvidence | None = None

    @property
    def layer(self) -> str:
        """Name of the target layer."""
        return self.layers[-1]

    @property
    def acts_BKuv(self) -> Tensor:
        """Activations of the target layer."""
        return self.acts[self.layer]

    @property
    def grads_BKuv(self) -> Tensor:
        """Gradients of the score with respect to the target layer's activations."""
        return self.grads[self.layer]

    @property
    def target_logits_B(self) -> Tensor:
        """Logit of the target class of each row."""
        return self.outputs.target_logits(self.logits_BN, self.targets_B)

    @property
    def target_confidences_B(self) -> Tensor:
        """Confidence of the target class of each row; NaN where the outputs have none."""
        return self.outputs.target_confidences(self.logits_BN, self.targets_B)

    def gradients(self, readout: Readout) -> dict[str, Tensor]:
        """Differentiate another score of the logits with respect to every captured layer: {layer: (B, K, u, v)}."""
        return self._head().gradients(self.rows, self.targets_B, readout)

    def curvature(self, readout: Readout) -> tuple[Tensor, Tensor]:
        """Return a score's gradient at the target layer and the product of its Hessian there and the activations."""
        return self._head().curvature(self.layer, self.rows, self.targets_B, readout)

    def tokens(self) -> AttentionEvidence:
        """Return the attention between the tokens."""
        if self.attention is None:
            raise ValueError("no attention was recorded; the method must declare attention=True in its `needs`")
        return self.attention

    def readouts(self) -> Tensor:
        """Return the positive gradient of each layer's own score with respect to its attention, (B, L, T)."""
        return self.tokens().readouts(self.rows, self.targets_B, self.outputs.target_logits)

    @cached_property
    def rows(self) -> Rows:
        """What the host knows of the rows; it waits for the device only if the evidence was made without."""
        return Rows.of(self.images_B, self.targets_B)

    def first_rows(self) -> Tensor:
        """Return the index of the first row of each image, (I,)."""
        return self._first_I

    def places(self) -> Tensor:
        """Return the index of each row's image among the distinct images, (B,)."""
        return self._places_B

    def ranks(self) -> Tensor:
        """Return the index of each row among the rows of its image, (B,)."""
        return self._ranks_B

    def all_targets(self) -> Tensor:
        """Return all targets of each row's image in the order of its rows, (B, T), padded with the first one."""
        return self._sent(self.rows.all_targets_BT)

    def select(self, rows: Tensor | slice) -> "Evidence":
        """Keep the given rows; the host need not wait if they are a slice, or a tensor of the host."""
        kept_R = torch.arange(len(self.keys))[rows.cpu() if isinstance(rows, Tensor) else rows]
        kept = self._sent(kept_R)
        selected = replace(
            self,
            pixels_BCHW=self.pixels_BCHW[kept],
            acts={layer: acts[kept] for layer, acts in self.acts.items()},
            grads={layer: grads[kept] for layer, grads in self.grads.items()},
            logits_BN=self.logits_BN[kept],
            targets_B=self.targets_B[kept],
            images_B=self.images_B[kept],
            keys=tuple(self.keys[row] for row in kept_R.tolist()),
            raw=self.raw[kept],
            attention=self.attention and self.attention.select(kept),
        )
        return _with_rows(selected, self.rows.select(kept_R))

    @cached_property
    def _first_I(self) -> Tensor:
        return self._sent(self.rows.first_I)

    @cached_property
    def _places_B(self) -> Tensor:
        return self._sent(self.rows.places_B)

    @cached_property
    def _ranks_B(self) -> Tensor:
        return self._sent(self.rows.ranks_B)

    def _sent(self, index: Tensor) -> Tensor:
        """Send indices of the host to the device of the rows; they are kept, so autograd must accept them."""
        with torch.inference_mode(False):
            return sent(for_autograd(index), self.images_B.device)

    def _head(self) -> Head:
        if self.head is None:
            raise ValueError("gradients were not captured; the method must declare gradients=True in its `needs`")
        return self.head


@dataclass(frozen=True)
class Observation:
    """One forward pass over images, independent of the target classes; as `Evidence`, but with one row per image."""

    pixels_ICHW: Tensor
    layers: tuple[str, ...]
    acts: Mapping[str, Tensor]
    logits_IN: Tensor
    keys: tuple[str, ...]
    raw: Tensor
    view: View
    head: Head | None
    outputs: Outputs
    attention: AttentionEvidence | None = None

    def evidence(self, targets_I: Tensor | None = None) -> Evidence:
        """Return the evidence for one target class of each image, (I,); None means the predicted class."""
        targets_I = self.outputs.predicted(self.logits_IN) if targets_I is None else targets_I
        return self.evidence_of(torch.arange(len(self.keys)), targets_I)

    def evidence_of(self, images_B: Tensor, targets_B: Tensor, readout: Readout | None = None) -> Evidence:
        """Return the evidence for (image, target) pairs.

        Args:
            images_B: image index of each pair, in increasing order: pairs of one image are adjacent.
            targets_B: target class of each pair. The host waits for indices that are on a device.
            readout: the score whose gradients are computed, if the pass kept its graph; None: the target logit.

        Raises:
            ValueError: a target is not a class of the model.
        """
        classes, device, rows = self.logits_IN.shape[1], self.logits_IN.device, Rows.of(images_B, targets_B)
        if bool(((rows.targets_B < 0) | (rows.targets_B >= classes)).any()):
            raise ValueError(f"targets must be class indices from 0 to {classes - 1}")
        images_B, targets_B = sent(rows.images_B, device), sent(rows.targets_B, device)
        readout = readout or self.outputs.target_logits
        attention = self.attention and self.attention.select(images_B)
        if self.head is None:
            grads = dict[str, Tensor]()
        elif attention is not None and attention.is_differentiated:
            grads, products = self.head.with_attention(rows, targets_B, readout)
            attention = replace(attention, products=products)
        else:
            grads = self.head.gradients(rows, targets_B, readout)
        evidence = Evidence(
            self.pixels_ICHW[images_B],
            self.layers,
            {layer: acts[images_B] for layer, acts in self.acts.items()},
            grads,
            self.logits_IN[images_B],
            targets_B,
            images_B,
            tuple(self.keys[image] for image in rows.images_B.tolist()),
            self.raw[images_B],
            self.view,
            self.head,
            self.outputs,
            attention,
        )
        return _with_rows(evidence, rows)


def _with_rows(evidence: Evidence, rows: Rows) -> Evidence:
    """Tell evidence what the host knows of its rows; a changed copy (`dataclasses.replace`) does not keep it."""
    vars(evidence)["rows"] = rows
    return evidence
