"""Differentiates scores of the logits with respect to what one forward pass captured, any number of times.

Each further gradient costs one backward pass through the head, which is the part of the model from the first captured
layer to the logits. A backward pass sums over its rows, so that it may hold only one row of each image: rows are
differentiated rank by rank, where the rank of a row is its index among the rows of its image.

Legend: B rows (image, target), R some rows of one rank, K channels, (u, v) grid, N classes, P rows of a pass, T tokens,
L layers.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import LayerError
from pipeline.model.attention import NO_RECORD, AttentionRecord
from pipeline.model.counts import Counts
from pipeline.model.layout import View
from pipeline.model.rows import Rows
from pipeline.model.transfers import sent

Readout = Callable[[Tensor, Tensor], Tensor]
"""A differentiable function from logits (R, N) and targets (R,) to one score per row, (R,)."""


@dataclass(frozen=True)
class Segment:
    """One differentiable forward pass over some of the images.

    Attributes:
        first, count: index of the first image, and number of images; rows after `count` are padding.
        logits_PN: logits, connected to `recorded` by the autograd graph.
        recorded: raw outputs of the captured layers, by layer name.
        attention: what was recorded of the attention.
        read: returns the logits that the model reads from tokens (P, T, K) instead of those of its last block.
    """

    first: int
    count: int
    logits_PN: Tensor
    recorded: Mapping[str, Tensor]
    attention: AttentionRecord = NO_RECORD
    read: Callable[[Tensor], Tensor] | None = None

    def trimmed(self, rows: Tensor) -> Tensor:
        """Return a tensor (P, ...) of the pass without the padding and the autograd graph."""
        return rows.detach()[: self.count]


class Head:
    """The part of the model from the captured layers to the logits; differentiates scores any number of times."""

    def __init__(
        self, segments: Sequence[Segment], views: Mapping[str, View], counts: Counts, reached: set[str]
    ) -> None:
        self._segments = segments
        self._views = views
        self._counts = counts
        self._reached = reached

    def gradients(self, rows: Rows, targets_B: Tensor, readout: Readout) -> dict[str, Tensor]:
        """Return the gradient of each row's score with respect to each layer: {layer: (B, K, u, v)}, float32."""

        def differentiate(segment: Segment, scores_R: Tensor) -> dict[str, Tensor]:
            return self._of_layers(_grad(scores_R.sum(), segment.recorded))

        self._counts.backwards += len(rows.images_B)
        return self._by_row(rows, targets_B, readout, differentiate)

    def with_attention(
        self, rows: Rows, targets_B: Tensor, readout: Readout
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Return the gradients of the layers, and of each attention mean_h ReLU(gradient * weights), (B, T, T).

        Both come from the same backward pass.
        """

        def differentiate(segment: Segment, scores_R: Tensor) -> dict[str, Tensor]:
            calls = {_attention(number): call for number, call in enumerate(segment.attention.calls)}
            outputs = {name: call.output for name, call in calls.items()}
            raw = _grad(scores_R.sum(), {**segment.recorded, **outputs}, optional=calls)
            products = {name: call.product(raw.pop(name)) for name, call in calls.items()}
            return self._of_layers(raw) | products

        self._counts.backwards += len(rows.images_B)
        results = self._by_row(rows, targets_B, readout, differentiate)
        layers = range(len(self._segments[0].attention.calls))
        return {name: results[name] for name in self._views}, tuple(results[_attention(layer)] for layer in layers)

    def curvature(self, layer: str, rows: Rows, targets_B: Tensor, readout: Readout) -> tuple[Tensor, Tensor]:
        """Return each row's gradient g and product H A of its Hessian and the activations A, both (B, K, u, v)."""
        view = self._views[layer]

        def differentiate(segment: Segment, scores_R: Tensor) -> dict[str, Tensor]:
            acts = segment.recorded[layer]
            (grads,) = torch.autograd.grad(scores_R.sum(), acts, create_graph=True)
            return {"gradient": view.grid(grads.detach()), "product": view.grid(_hessian_product(grads, acts))}

        self._counts.backwards += 2 * len(rows.images_B)
        results = self._by_row(rows, targets_B, readout, differentiate)
        return results["gradient"], results["product"]

    def _by_row(
        self,
        rows: Rows,
        targets_B: Tensor,
        readout: Readout,
        differentiate: Callable[[Segment, Tensor], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Differentiate the scores (R,) of rows of one rank in each segment."""

        def of_rows(segment: Segment, local_R: Tensor, rows_R: Tensor) -> dict[str, Tensor]:
            return differentiate(segment, readout(segment.logits_PN[local_R], targets_B[rows_R]))

        return by_row(self._segments, rows, of_rows)

    def _of_layers(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert gradients of layers to their grids."""
        maps = {layer: self._views[layer].grid(grads) for layer, grads in raw.items()}
        for layer, grads in raw.items():
            self._check_patches(layer, grads, maps[layer])
        return maps

    def _check_patches(self, layer: str, grads: Tensor, maps_PKuv: Tensor) -> None:
        """Raise LayerError for a token layer after the last attention, where the patch tokens have no gradients.

        A layer is checked until its patches were seen to have gradients, since the host waits for the answer; one
        whose maps hold all of its numbers needs no check.
        """
        if layer in self._reached or maps_PKuv.numel() == grads.numel():
            return
        if bool(maps_PKuv.any()):
            self._reached.add(layer)
        elif bool(grads.any()):
            raise LayerError(
                f"after layer '{layer}' only the class token reaches the logits, so the patches have no gradients; "
                "choose a layer before the last attention, or auto"
            )


def by_row(
    segments: Sequence[Segment],
    rows: Rows,
    differentiate: Callable[[Segment, Tensor, Tensor], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Differentiate rank by rank and segment by segment, and return the results in the order of the rows.

    Args:
        segments: the passes over the images.
        rows: the image of each row.
        differentiate: receives a segment, the indices in it of some of its images (R,), and their rows (R,), one for
            each image; returns tensors (P, ...).
    """
    done, parts = list[Tensor](), list[dict[str, Tensor]]()
    device = segments[0].logits_PN.device
    with torch.enable_grad():
        for rows_R, segment in itertools.product(rows.by_rank(), segments):
            local_R = rows.images_B[rows_R] - segment.first
            inside_R = (local_R >= 0) & (local_R < segment.count)
            local_R, rows_R = local_R[inside_R], rows_R[inside_R]  # noqa: PLW2901 - those of this segment
            if len(rows_R):
                there_R = sent(local_R, device)
                results = differentiate(segment, there_R, sent(rows_R, device))
                parts.append({name: grads[there_R].float() for name, grads in results.items()})
                done.append(rows_R)
    order_B = sent(torch.cat(done).argsort(), device)
    return {name: torch.cat([part[name] for part in parts])[order_B] for name in parts[0]}


def _grad(score: Tensor, recorded: Mapping[str, Tensor], optional: Collection[str] = ()) -> dict[str, Tensor]:
    """Differentiate a score with respect to tensors, of which the optional ones may have no influence."""
    if not score.requires_grad:
        raise _no_influence(next(iter(recorded)))
    grads = torch.autograd.grad(score, list(recorded.values()), retain_graph=True, allow_unused=True)
    for name, grad in zip(recorded, grads, strict=True):
        if grad is None and name not in optional:
            raise _no_influence(name)
    named = zip(recorded.items(), grads, strict=True)
    return {name: torch.zeros_like(tensor) if grad is None else grad for (name, tensor), grad in named}


def _attention(layer: int) -> str:
    """Name the attention of a layer beside names of modules, which have no spaces."""
    return f"attention {layer}"


def _no_influence(layer: str) -> LayerError:
    return LayerError(
        f"layer '{layer}' has no influence on the logits; choose a layer between input and logits, or if it is one, "
        "let the model keep its gradients (no detach, no reentrant checkpointing)"
    )


def _hessian_product(grads: Tensor, acts: Tensor) -> Tensor:
    """Multiply the Hessian by the activations; zero if the gradient does not depend on them."""
    product = None
    if grads.requires_grad:
        (product,) = torch.autograd.grad((grads * acts.detach()).sum(), acts, retain_graph=True, allow_unused=True)
    return torch.zeros_like(acts) if product is None else product
