"""Evidence: activations, logits and gradients of one forward pass, from which CAM methods compute their maps.

An `Observation` is the forward pass itself, with one row per image. `Evidence` is what methods receive, with one row
per (image, target). The targets of an image share its forward pass. Each further gradient costs one backward pass
through the head, which is the part of the model from the first captured layer to the logits.

Rows of the same image are always adjacent. The rank of a row is its index among the rows of its image.

Legend: I images, B rows (image, target), R some rows of one rank, C colours, (H, W) pixels, K channels, (u, v) grid,
N classes, T targets of one image, P rows of a pass.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.errors import LayerError
from pipeline.model.counts import Counts
from pipeline.model.layout import View
from pipeline.model.outputs import Outputs

Readout = Callable[[Tensor, Tensor], Tensor]
"""A differentiable function from logits (R, N) and targets (R,) to one score per row, (R,)."""


@dataclass(frozen=True)
class Segment:
    """One differentiable forward pass over some of the images.

    Attributes:
        first, count: index of the first image, and number of images; rows after `count` are padding.
        logits_PN: logits, connected to `recorded` by the autograd graph.
        recorded: raw outputs of the captured layers, by layer name.
    """

    first: int
    count: int
    logits_PN: Tensor
    recorded: Mapping[str, Tensor]


class Head:
    """The part of the model from the captured layers to the logits; differentiates scores any number of times."""

    def __init__(self, segments: Sequence[Segment], views: Mapping[str, View], counts: Counts) -> None:
        self._segments = segments
        self._views = views
        self._counts = counts

    def gradients(self, images_B: Tensor, targets_B: Tensor, readout: Readout) -> dict[str, Tensor]:
        """Return the gradient of each row's score with respect to each layer: {layer: (B, K, u, v)}, float32."""

        def differentiate(segment: Segment, scores_R: Tensor) -> dict[str, Tensor]:
            raw = _grad(scores_R.sum(), segment.recorded)
            for layer, grads in raw.items():
                _check_patches(layer, self._views[layer], grads)
            return {layer: self._views[layer].grid(grads) for layer, grads in raw.items()}

        self._counts.backwards += len(images_B)
        return self._by_row(images_B, targets_B, readout, differentiate)

    def curvature(self, layer: str, images_B: Tensor, targets_B: Tensor, readout: Readout) -> tuple[Tensor, Tensor]:
        """Return each row's gradient g and product H A of its Hessian and the activations A, both (B, K, u, v)."""
        view = self._views[layer]

        def differentiate(segment: Segment, scores_R: Tensor) -> dict[str, Tensor]:
            acts = segment.recorded[layer]
            (grads,) = torch.autograd.grad(scores_R.sum(), acts, create_graph=True)
            return {"gradient": view.grid(grads.detach()), "product": view.grid(_hessian_product(grads, acts))}

        self._counts.backwards += 2 * len(images_B)
        results = self._by_row(images_B, targets_B, readout, differentiate)
        return results["gradient"], results["product"]

    def _by_row(
        self,
        images_B: Tensor,
        targets_B: Tensor,
        readout: Readout,
        differentiate: Callable[[Segment, Tensor], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Differentiate rank by rank and segment by segment, and return the results in the order of the rows.

        A backward pass sums over its rows, so that it may hold only one row of each image.
        """
        done, parts = list[Tensor](), list[dict[str, Tensor]]()
        with torch.enable_grad():
            for rows_R, segment in itertools.product(ranks(images_B), self._segments):
                local_R = images_B[rows_R] - segment.first
                inside_R = (local_R >= 0) & (local_R < segment.count)
                local_R, rows_R = local_R[inside_R], rows_R[inside_R]  # noqa: PLW2901 - those of this segment
                if len(rows_R):
                    results = differentiate(segment, readout(segment.logits_PN[local_R], targets_B[rows_R]))
                    parts.append({name: grads[local_R].float() for name, grads in results.items()})
                    done.append(rows_R)
        order_B = torch.cat(done).argsort()
        return {name: torch.cat([part[name] for part in parts])[order_B] for name in parts[0]}


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
        return self._head().gradients(self.images_B, self.targets_B, readout)

    def curvature(self, readout: Readout) -> tuple[Tensor, Tensor]:
        """Return a score's gradient at the target layer and the product of its Hessian there and the activations."""
        return self._head().curvature(self.layer, self.images_B, self.targets_B, readout)

    def first_rows(self) -> Tensor:
        """Return the index of the first row of each image, (I,)."""
        return torch.cat([self.images_B.new_ones(1), self.images_B.diff()]).nonzero()[:, 0]

    def places(self) -> Tensor:
        """Return the index of each row's image among the distinct images, (B,)."""
        return torch.searchsorted(self.images_B[self.first_rows()], self.images_B)

    def ranks(self) -> Tensor:
        """Return the index of each row among the rows of its image, (B,)."""
        return torch.arange(len(self.keys), device=self.images_B.device) - self.first_rows()[self.places()]

    def all_targets(self) -> Tensor:
        """Return all targets of each row's image in the order of its rows, (B, T), padded with the first one."""
        places_B, ranks_B, first_I = self.places(), self.ranks(), self.first_rows()
        targets_IT = self.targets_B[first_I][:, None].repeat(1, int(ranks_B.max()) + 1)
        targets_IT[places_B, ranks_B] = self.targets_B
        return targets_IT[places_B]

    def select(self, rows: Tensor | slice) -> "Evidence":
        """Keep the given rows."""
        kept = torch.arange(len(self.keys), device=self.images_B.device)[rows]
        return replace(
            self,
            pixels_BCHW=self.pixels_BCHW[kept],
            acts={layer: acts[kept] for layer, acts in self.acts.items()},
            grads={layer: grads[kept] for layer, grads in self.grads.items()},
            logits_BN=self.logits_BN[kept],
            targets_B=self.targets_B[kept],
            images_B=self.images_B[kept],
            keys=tuple(self.keys[row] for row in kept.tolist()),
            raw=self.raw[kept],
        )

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

    def evidence(self, targets_I: Tensor | None = None) -> Evidence:
        """Return the evidence for one target class of each image, (I,); None means the predicted class."""
        targets_I = (
            self.outputs.predicted(self.logits_IN) if targets_I is None else targets_I.to(self.logits_IN.device).long()
        )
        return self.evidence_of(torch.arange(len(self.keys), device=targets_I.device), targets_I)

    def evidence_of(self, images_B: Tensor, targets_B: Tensor, readout: Readout | None = None) -> Evidence:
        """Return the evidence for (image, target) pairs.

        Args:
            images_B: image index of each pair, in increasing order: pairs of one image are adjacent.
            targets_B: target class of each pair.
            readout: the score whose gradients are computed, if the pass kept its graph; None: the target logit.

        Raises:
            ValueError: a target is not a class of the model.
        """
        classes = self.logits_IN.shape[1]
        if bool(((targets_B < 0) | (targets_B >= classes)).any()):
            raise ValueError(f"targets must be class indices from 0 to {classes - 1}")
        readout = readout or self.outputs.target_logits
        grads = {} if self.head is None else self.head.gradients(images_B, targets_B, readout)
        return Evidence(
            self.pixels_ICHW[images_B],
            self.layers,
            {layer: acts[images_B] for layer, acts in self.acts.items()},
            grads,
            self.logits_IN[images_B],
            targets_B,
            images_B,
            tuple(self.keys[image] for image in images_B.tolist()),
            self.raw[images_B],
            self.view,
            self.head,
            self.outputs,
        )


def ranks(images_B: Tensor) -> Iterator[Tensor]:
    """Yield the rows with the first target of each image, then those with the second, and so on, (R,) each."""
    rank_B = torch.arange(len(images_B), device=images_B.device) - torch.searchsorted(images_B, images_B)
    for rank in range(int(rank_B.max()) + 1 if len(rank_B) else 0):
        yield (rank_B == rank).nonzero()[:, 0]


def _grad(score: Tensor, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not score.requires_grad:
        raise _no_influence(next(iter(recorded)))
    grads = torch.autograd.grad(score, list(recorded.values()), retain_graph=True, allow_unused=True)
    for name, grad in zip(recorded, grads, strict=True):
        if grad is None:
            raise _no_influence(name)
    return dict(zip(recorded, grads, strict=True))


def _check_patches(layer: str, view: View, grads: Tensor) -> None:
    """Raise LayerError for a token layer after the last attention, where the patch tokens have no gradients."""
    if bool(grads.any()) and not bool(view.grid(grads).any()):
        raise LayerError(
            f"after layer '{layer}' only the class token reaches the logits, so the patches have no gradients; choose "
            "a layer before the last attention, or auto"
        )


def _no_influence(layer: str) -> LayerError:
    return LayerError(f"layer '{layer}' has no influence on the logits; choose a layer between input and logits")


def _hessian_product(grads: Tensor, acts: Tensor) -> Tensor:
    """Multiply the Hessian by the activations; zero if the gradient does not depend on them."""
    product = None
    if grads.requires_grad:
        (product,) = torch.autograd.grad((grads * acts.detach()).sum(), acts, retain_graph=True, allow_unused=True)
    return torch.zeros_like(acts) if product is None else product
