"""Integrative CAM: Grad-CAM++ for any smooth function of the logit, with a bias term, combined over all stages.

Legend: B rows, L stages, K channels, (u, v) grid, Z = u v cells, J classes, N all classes; A activations, S target
logit, g = dS/dA, p softmax probabilities, mm min-max normalisation to [0, 1], Up bilinear upsampling to the finest
grid.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, Paper
from pipeline.cams.grids import at_finest
from pipeline.maps.heatmaps import min_max
from pipeline.model.biases import effective_bias
from pipeline.model.evidence import Evidence, Readout
from pipeline.model.layer_names import module_of
from pipeline.model.probe import Probe

Smooth = Callable[[Tensor], Tensor]
Named = Literal["exp", "square", "softplus", "sigmoid", "identity", "softmax", "log_softmax"]
_FUNCTIONS: dict[str, Smooth] = {
    "exp": torch.exp,
    "square": torch.square,
    "softplus": lambda score: torch.logaddexp(score, torch.zeros_like(score)),
    "sigmoid": torch.sigmoid,
    "identity": lambda score: score,
}
_SMALLEST = 1e-8
_LARGEST_EXPONENT = 600.0
"""Keeps e to this power, times any float32, within the range of double precision."""


@dataclass(frozen=True, config=STRICT | ConfigDict(arbitrary_types_allowed=True))
class IntegrativeCam:
    """Integrative CAM (interpretation): maps of all stages from a generalised Grad-CAM++, fused by their importance.

    M = sum_l a_l sqrt( Up(N_l) N_L ),   N_l = mm(ReLU(P_l)),   L the deepest stage                 (fusion = guided)
    M = sum_l a_l Up(N_l)                                                                           (fusion = sum)
    P_l = sum_k 2 alpha^k_ij g^k_ij A^k_ij + R_l / Z   for l < L                                    (maps = mixed)
    P_L = sum_k w_k A_k,   w_k = mean_ij 2 alpha^k_ij g^k_ij
    P_l = sum_k 2 alpha^k_ij g^k_ij A^k_ij + R_l / Z   for all l                                    (maps = elementwise)
    P_l = sum_k w_k A_k + R_l / Z,   w_k = sum_ij alpha^k_ij ReLU(Y1^k_ij)                          (maps = channels)
    alpha = Y2 / (2 Y2 + Y3 sum_ab A^k_ab),   Yn the n-th derivative of Y = f(S) by A^k_ij
          = 1 / (2 + (f3 / f2) g sum_ab A^k_ab)   for S piecewise linear in A;   fn the n-th derivative of f at S
    R_l = S - sum g A, the contribution of all biases after the layer
    a_l = s_l / sum s,   s_l = max(0, sum g A), what the activations of the layer contribute to the logit
                         or rms(g) rms(A); both are invariant to rescaling between neighbouring layers

    l are the stages: the last layer of each resolution. A_k is the activation map of channel k, of Z cells; S is the
    target logit, g = dS/dA; mm is min-max normalisation to [0, 1]; Up is bilinear upsampling to the finest grid.

    The abstract gives the generalised alpha, the bias term and layer weights from gradients and activations. The
    formulas of the bias, of the layer weights and of the combination are this project's reading, chosen among others on
    scenes with exact values and on photographs (docs/readings.md). At the deepest stage one weight per channel is
    steadier; at shallow ones the gradient differs from place to place. With f = square, alpha is 1/2, an elementwise
    P_l sums to S exactly, and P_L is Grad-CAM's. Signed maps leave out the factor f1(S), which is common to all
    positions and would turn the map over where it is negative; alpha there takes |g|, so that it depends on how
    strongly a position acts and not on the direction. The geometric mean with the deepest stage keeps what a shallow
    one marks only as far as the deepest one agrees.

    The preset first_reading is this project's earlier reading: f = exp, channels, sum, rms(g) rms(A). With it, one
    layer and no bias, this is Grad-CAM++ after mm; with channels and f = square, Grad-CAM with rectified gradients. If
    f2 = f3 = 0 (identity, any linear f), alpha = 1 / Z. If no kept layer contributes, all kept ones have the same
    weight. With channels, alpha is 0 where Y1 <= 0; it is 0 where the denominator divided by Y2 is below 1e-8.
    Denominators near zero make the weights inaccurate: with signed activations (MobileNetV2) and f = exp, float32
    rounding changes maps visibly.

    Parameters:
        f: square, exp, softplus, sigmoid or identity of S; softmax or log_softmax, which depend on all logits and take
            the gradients of `top_classes` of them; or, from Python, any smooth function of a tensor.
        maps: mixed, elementwise or channels, as above.
        fusion: guided or sum, as above.
        bias: residual (as above), none, or fullgrad, which adds sum_k |g_k b_k| with the bias b of the layer's last
            convolution or batch norm.
        layer_score: contribution, max(0, sum g A); product, rms(g) rms(A); or uniform.
        redundancy: drop a layer if the similarity 1 - mean |difference| of its map to that of a kept deeper layer is
            above this value; None keeps all layers.
        top_classes: number of classes whose gradients softmax and log_softmax use, the target first, then the most
            probable; fewer than all classes is an approximation.
    """

    f: Named | Smooth = "square"
    maps: Literal["mixed", "elementwise", "channels"] = "mixed"
    fusion: Literal["guided", "sum"] = "guided"
    bias: Literal["residual", "none", "fullgrad"] = "residual"
    layer_score: Literal["contribution", "product", "uniform"] = "contribution"
    redundancy: Annotated[float, Field(ge=0, le=1)] | None = None
    top_classes: Annotated[int, Field(ge=2)] = 10

    name: ClassVar[str] = "integrative_cam"
    interpretation: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "first_reading": {"f": "exp", "maps": "channels", "fusion": "sum", "layer_score": "product"}
    }
    paper: ClassVar[Paper] = Paper(
        "Singh, Chaudhuri, Singh, Chattopadhyay",
        "Integrative CAM: Adaptive Layer Fusion for Comprehensive Interpretation of CNNs",
        "arXiv", 2024, "arXiv 2412.01354",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), in [0, 1]."""
        slopes = self._slopes(evidence)
        maps = [self._layer_map(evidence, probe, layer, *slopes[layer]) for layer in evidence.layers]
        maps_BLuv = at_finest([min_max(map_Buv.relu()).float() for map_Buv in maps])
        scores_BL = torch.stack([self._layer_score(evidence, layer) for layer in evidence.layers], 1)
        kept_BL = torch.ones_like(scores_BL)
        if self.redundancy is not None:
            kept_BL = _distinct(min_max(maps_BLuv), self.redundancy).to(scores_BL)
        shares_BL = _shares(scores_BL, kept_BL)
        if self.fusion == "guided":
            maps_BLuv = (maps_BLuv * maps_BLuv[:, -1:]).sqrt()
        return (shares_BL[:, :, None, None] * maps_BLuv).sum(1).float()

    @property
    def needs(self) -> Needs:
        """Return the needs: one true class if f is a softmax."""
        return Needs(gradients=True, stages=True, one_true_class=self.f in ("softmax", "log_softmax"))

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one head backward pass per further class for softmax and log_softmax; none for the other functions."""
        return Cost(backwards=self.top_classes - 1 if self.f in ("softmax", "log_softmax") else 0)

    def _slopes(self, evidence: Evidence) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute Y1 and Y3 / Y2 (NaN where both are 0) at each position of each layer, (B, K, u, v) double."""
        if self.f == "softmax" or self.f == "log_softmax":
            return _softmax_slopes(evidence, self.top_classes, log=self.f == "log_softmax")
        function = _FUNCTIONS[self.f] if isinstance(self.f, str) else self.f
        scores_B = evidence.target_logits_B.double()
        if self.f == "exp":
            scores_B = scores_B.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
        first_B, second_B, third_B = derivatives_of(function, scores_B)
        ratio_B = torch.where(second_B == 0, torch.inf, third_B / torch.where(second_B == 0, 1.0, second_B))
        ratio_B = torch.where((second_B == 0) & (third_B == 0), torch.nan, ratio_B)
        if self.maps != "channels":  # the factor f1(S), common to all positions, is left out
            first_B = torch.ones_like(first_B)
        columns = first_B.view(-1, 1, 1, 1), ratio_B.view(-1, 1, 1, 1)
        return {layer: (columns[0] * grads, columns[1] * grads) for layer, grads in evidence.grads.items()}

    def _layer_map(self, evidence: Evidence, probe: Probe, layer: str, first: Tensor, ratio: Tensor) -> Tensor:
        """Compute P_l, (B, u, v) double."""
        acts_BKuv = evidence.acts[layer].double()
        if self.maps == "channels":
            weights_BK11 = (_alpha(first, ratio, acts_BKuv) * first.relu()).sum((2, 3), keepdim=True)
            return (weights_BK11 * acts_BKuv).sum(1) + self._bias(evidence, probe, layer)
        slopes_BKuv = 2 * _alpha(first.abs(), ratio * first.sign(), acts_BKuv) * first
        if self.maps == "mixed" and layer == evidence.layers[-1]:
            return (slopes_BKuv.mean((2, 3), keepdim=True) * acts_BKuv).sum(1)
        return (slopes_BKuv * acts_BKuv).sum(1) + self._bias(evidence, probe, layer)

    def _bias(self, evidence: Evidence, probe: Probe, layer: str) -> Tensor:
        """Compute the bias term of a layer's map, broadcastable to (B, u, v)."""
        grads_BKuv = evidence.grads[layer].double()
        if self.bias == "residual":
            explained_B = (grads_BKuv * evidence.acts[layer]).sum((1, 2, 3))
            return ((evidence.target_logits_B - explained_B) / grads_BKuv[0, 0].numel()).view(-1, 1, 1)
        if self.bias == "fullgrad":
            return (_own_bias(probe.model.get_submodule(module_of(layer)), grads_BKuv) * grads_BKuv).abs().sum(1)
        return grads_BKuv.new_zeros(1, 1, 1)

    def _layer_score(self, evidence: Evidence, layer: str) -> Tensor:
        if self.layer_score == "uniform":
            return torch.ones_like(evidence.target_logits_B, dtype=torch.float64)
        if self.layer_score == "contribution":
            return (evidence.grads[layer].double() * evidence.acts[layer]).sum((1, 2, 3)).relu()
        return _rms(evidence.grads[layer]) * _rms(evidence.acts[layer])


def _alpha(first_BKuv: Tensor, ratio_BKuv: Tensor, acts_BKuv: Tensor) -> Tensor:
    """Compute alpha from Y1 and Y3 / Y2, (B, K, u, v); 0 where Y1 <= 0."""
    denominator_BKuv = 2 + ratio_BKuv * acts_BKuv.sum((2, 3), keepdim=True)
    usable_BKuv = (first_BKuv > 0) & (denominator_BKuv > _SMALLEST)  # False for NaN
    alpha_BKuv = torch.where(usable_BKuv, 1 / torch.where(usable_BKuv, denominator_BKuv, 1.0), 0.0)
    return torch.where(ratio_BKuv.isnan(), 1 / acts_BKuv[0, 0].numel(), alpha_BKuv)  # f is linear


def _shares(scores_BL: Tensor, kept_BL: Tensor) -> Tensor:
    """Divide the scores of the kept layers (1, the others 0) by their sum; equal shares if every score is 0."""
    scores_BL = scores_BL * kept_BL
    total_B1 = scores_BL.sum(1, keepdim=True)
    return torch.where(total_B1 > 0, scores_BL / total_B1.clamp_min(1e-30), kept_BL / kept_BL.sum(1, keepdim=True))


def derivatives_of(function: Smooth, at_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the first, second and third derivative of a scalar function at each of B points."""
    with torch.enable_grad():
        point_B = at_B.detach().clone().requires_grad_()
        value_B, orders = function(point_B), []
        for _ in range(3):
            slope_B = torch.zeros_like(point_B)
            if value_B.requires_grad:
                (slope_B,) = torch.autograd.grad(value_B.sum(), point_B, create_graph=True, materialize_grads=True)
            orders.append(slope_B.detach())
            value_B = slope_B
    return orders[0], orders[1], orders[2]


def _softmax_slopes(evidence: Evidence, top: int, *, log: bool) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute Y1 and Y3 / Y2 of p_c or log p_c from the gradients of the target and the most probable other classes.

    With d = g_c - m the target's gradient minus the mean under p, V and k the second and third central moments:
    p_c: Y1 = p_c d, Y2 = p_c (d^2 - V), Y3 = p_c (d^3 - 3 d V - k);   log p_c: Y1 = d, Y2 = -V, Y3 = -k.
    """
    classes = min(top, evidence.logits_BN.shape[1])
    order_BJ = _target_first(evidence.logits_BN, evidence.targets_B)[:, :classes]
    shares_BJ = evidence.logits_BN.double().gather(1, order_BJ).softmax(1)
    moments = {layer: [torch.zeros_like(grads, dtype=torch.float64)] * 3 for layer, grads in evidence.grads.items()}
    for j in range(classes):
        grads = evidence.grads if j == 0 else evidence.gradients(_nth_class(j))
        share_B111 = shares_BJ[:, j].view(-1, 1, 1, 1)
        for layer, sums in moments.items():
            moments[layer] = [m + share_B111 * grads[layer].double() ** n for n, m in enumerate(sums, 1)]
    slopes = {}
    for layer, (mean, second, third) in moments.items():
        spread = second - mean**2
        skew = third - 3 * mean * second + 2 * mean**3
        away = evidence.grads[layer].double() - mean
        numerator, denominator = (skew, spread) if log else (away**3 - 3 * away * spread - skew, away**2 - spread)
        factor = 1.0 if log else evidence.target_confidences_B.double().view(-1, 1, 1, 1)
        slopes[layer] = (factor * away, torch.where(denominator == 0, torch.nan, numerator / denominator))
    return slopes


def _target_first(logits_RN: Tensor, targets_R: Tensor) -> Tensor:
    """Order the classes for the derivatives: the target, then the others from most to least probable."""
    lifted_RN = logits_RN.detach().scatter(1, targets_R[:, None], torch.inf)
    return lifted_RN.argsort(dim=1, descending=True, stable=True)


def _nth_class(n: int) -> Readout:
    return lambda logits_RN, targets_R: logits_RN.gather(1, _target_first(logits_RN, targets_R)[:, n : n + 1])[:, 0]


def _own_bias(module: nn.Module, grads_BKuv: Tensor) -> Tensor:
    """Return the bias of the layer's last convolution or batch norm with K channels, (1, K, 1, 1); zero if none."""
    biases = [effective_bias(inner) for inner in module.modules()]
    fitting = [bias_K for bias_K in biases if bias_K is not None and len(bias_K) == grads_BKuv.shape[1]]
    bias_K = fitting[-1].to(grads_BKuv) if fitting else grads_BKuv.new_zeros(grads_BKuv.shape[1])
    return bias_K.view(1, -1, 1, 1)


def _rms(values_BKuv: Tensor) -> Tensor:
    return values_BKuv.double().square().mean((1, 2, 3)).sqrt()


def _distinct(maps_BLuv: Tensor, similarity: float) -> Tensor:
    """Mark the layers to keep with 1, from deep to shallow, and those similar to a kept one with 0, (B, L)."""
    rows, layers = maps_BLuv.shape[:2]
    keep_BL = maps_BLuv.new_zeros(rows, layers)
    for layer in reversed(range(layers)):
        similarity_BL = 1 - (maps_BLuv - maps_BLuv[:, layer : layer + 1]).abs().mean((2, 3))
        keep_BL[:, layer] = ((similarity_BL > similarity) & (keep_BL > 0)).any(1).logical_not().float()
    return keep_BL
