"""Methods that integrate along the straight path from a baseline image to the image.

Legend: B images, T path points in one pass, C colours, (H, W) pixels, K channels, (u, v) grid.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, Paper, weighted_sum
from pipeline.cams.versions import Rule, images_of, path_points, versions
from pipeline.model.baselines import Reference
from pipeline.model.evidence import Evidence, Readout
from pipeline.model.probe import Probe


@dataclass(frozen=True, config=STRICT)
class IntegratedGradCam:
    """Integrated Grad-CAM: Grad-CAM accumulated along the straight line from a baseline x' to the image x.

    M = sum_t q_t ReLU( sum_k a_k(t) D_k(t) ),   t = 1/m, 2/m, ..., 1
    a_k(t) = mean_ij dS(x_t)/dA^k_ij,   D_k(t) = A_k(x_t) - A_k(x'),   x_t = x' + t (x - x')

    A_k is the activation map of channel k at the target layer, S the target logit, q_t the weight of a path point. The
    ReLU is inside the sum, as in the authors' diagram, so the map is >= 0 and need not sum to S(x) - S(x'). If the
    activations do not change along the path, the map is zero.

    Parameters:
        steps: number m of path points; trapezoid takes one more.
        rule: points and weights of the sum: right (1/m .. 1), left (0 .. (m-1)/m), midpoint ((i - 1/2)/m), all
            with q = 1; trapezoid (0 .. 1, the two ends with q = 1/2).
        baseline: x': black, mean (the mean colour), blur, or, from Python, a tensor that holds a normalised image.
        subtract_baseline_features: use D_k(t); False uses A_k(x_t) alone.

    The preset official_code follows the authors' released notebook, which differs from their diagram: left sum, no
    baseline features subtracted.
    """

    steps: Annotated[int, Field(ge=1)] = 50
    rule: Rule = "right"
    baseline: Reference = "black"
    subtract_baseline_features: bool = True

    name: ClassVar[str] = "integrated_gradcam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "official_code": {"rule": "left", "subtract_baseline_features": False}
    }
    paper: ClassVar[Paper] = Paper(
        "Sattarzadeh, Sudhakar, Plataniotis, Jang, Jeong, Kim",
        "Integrated Grad-CAM: Sensitivity-Aware Visual Explanation of Deep Convolutional Networks via Integrated "
        "Gradient-Based Scoring",
        "ICASSP", 2021, "doi 10.1109/ICASSP39728.2021.9415064",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0; the sum is not divided by the number of steps."""
        start_BKuv = torch.zeros_like(evidence.acts_BKuv[:1])
        if self.subtract_baseline_features:
            start_BKuv = probe.baseline_acts(self.baseline, evidence.pixels_BCHW)
        total_Buv = torch.zeros_like(evidence.acts_BKuv[:, 0])
        points = path_points(self.steps, self.rule)
        for (_, weight), point in zip(points, along_path(evidence, probe, self.baseline, points), strict=True):
            total_Buv = total_Buv + weight * weighted_sum(point.grads_BKuv.mean((2, 3)), point.acts_BKuv - start_BKuv)
        return total_Buv

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one forward and one head backward pass per path point; t = 1, the image, is the shared evidence."""
        extra = len([t for t, _ in path_points(self.steps, self.rule) if t != 1])
        return Cost(forwards=extra, backwards=extra)


@dataclass(frozen=True, config=STRICT)
class RsiGradCam:
    """RSI-Grad-CAM: Grad-CAM with the gradient integrated over the change of the activations along the path.

    M = ReLU( mean_k W_k A_k(1) ),   W_k = mean_ij sum_n 1/2 (r(g_n-1) + r(g_n)) (A_k(t_n) - A_k(t_n-1))

    A_k(t) is the activation map of channel k at the path point x' + t (x - x') from the baseline x' to the image x.
    t_n = n / m, n = 0 .. m, and the sum runs over n = 1 .. m; g_n = dP/dA at t_n; r = ReLU; P is the target's softmax
    probability. Without r and the mean, the sum over k, i and j is P(x) - P(x') up to the error of the trapezoid rule.

    Parameters:
        steps: number m of intervals.
        baseline: x': black, mean (the mean colour), blur, or, from Python, a tensor that holds a normalised image. The
            paper leaves it to the user.
        score: P, the output that is differentiated: probability (authors) or logit.
    """

    steps: Annotated[int, Field(ge=1)] = 50
    baseline: Reference = "black"
    score: Literal["probability", "logit"] = "probability"

    name: ClassVar[str] = "rsi_gradcam"
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Lucas, Lerma, Furst, Raicu", "RSI-Grad-CAM: Visual Explanations from Deep Networks via Riemann-Stieltjes "
        "Integrated Gradient-based Localization",
        "arXiv", 2022, "arXiv 2205.10900",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        weights_BK = self.riemann_stieltjes(evidence, probe, rectify=True).mean((2, 3))
        return weighted_sum(weights_BK, evidence.acts_BKuv) / weights_BK.shape[1]

    @property
    def needs(self) -> Needs:
        """Return the needs: confidences if the score is a probability."""
        return Needs(gradients=True, confidences=self.score == "probability")

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count the passes of all path points; the last one needs no forward pass, and no backward pass for a logit."""
        return Cost(forwards=self.steps, backwards=self.steps + (self.score == "probability"))

    def riemann_stieltjes(self, evidence: Evidence, probe: Probe, *, rectify: bool) -> Tensor:
        """Integrate the gradient over the change of the activations along the path, (B, K, u, v)."""
        readout = evidence.outputs.target_confidences if self.score == "probability" else None
        points = path_points(self.steps, "trapezoid")
        total_BKuv = torch.zeros_like(evidence.acts_BKuv)
        previous: tuple[Tensor, Tensor] | None = None
        for point in along_path(evidence, probe, self.baseline, points, readout):
            grads_BKuv = point.grads_BKuv.relu() if rectify else point.grads_BKuv
            if previous is not None:
                total_BKuv = total_BKuv + 0.5 * (previous[0] + grads_BKuv) * (point.acts_BKuv - previous[1])
            previous = grads_BKuv, point.acts_BKuv
        return total_BKuv


def along_path(
    evidence: Evidence,
    probe: Probe,
    baseline: Reference,
    points: list[tuple[float, float]],
    readout: Readout | None = None,
) -> Iterator[Evidence]:
    """Yield the evidence at each point of the path from the baseline, in order; t = 1 is the evidence itself."""
    pixels_ICHW = images_of(evidence)
    start_ICHW = probe.baseline_pixels(baseline, pixels_ICHW)
    inner = (start_ICHW + t * (pixels_ICHW - start_ICHW) for t, _ in points if t != 1)
    yield from versions(evidence, probe, inner, readout)
    if points[-1][0] == 1:
        yield evidence if readout is None else replace(evidence, grads=evidence.gradients(readout))
