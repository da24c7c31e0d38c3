"""Methods that follow a path from a baseline image to the image.

Legend: B images, T path points in one pass, C colours, (H, W) pixels, K channels, (u, v) grid.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, LayerShape, Needs, Paper, weighted_sum
from pipeline.model.baselines import Baseline
from pipeline.model.probe import Evidence, Probe

Rule = Literal["right", "left", "midpoint", "trapezoid"]


@dataclass(frozen=True, config=STRICT)
class IntegratedGradCam:
    """Integrated Grad-CAM: Grad-CAM accumulated along the straight line from a baseline x' to the image x.

    M = sum_t q_t ReLU( sum_k a_k(t) D_k(t) ),   t = 1/m, 2/m, ..., 1
    a_k(t) = mean_ij dS(x_t)/dA^k_ij,   D_k(t) = A_k(x_t) - A_k(x'),   x_t = x' + t (x - x')

    A is the target layer, S the target logit. The ReLU stands inside the sum, as in the authors' diagram, so the
    map is >= 0 and need not add up to S(x) - S(x'). Where A(x) = A(x') all along the path the map is zero.

    Parameters:
        steps: number m of path points.
        rule: points and weights of the sum: right (1/m .. 1), left (0 .. (m-1)/m), midpoint ((i - 1/2)/m), all
            with q = 1; trapezoid (0 .. 1, the two ends with q = 1/2).
        baseline: x': black, mean (the mean colour) or blur.
        subtract_baseline_features: use D_k(t); False uses A_k(x_t) alone.

    The preset official_code is the authors' released notebook, which differs from their diagram: left sum, no
    baseline features subtracted.
    """

    steps: Annotated[int, Field(ge=1)] = 50
    rule: Rule = "right"
    baseline: Baseline = "black"
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
        """Compute the maps (B, u, v), >= 0; unscaled, so they grow with the number of steps."""
        if self.subtract_baseline_features:
            start_BKuv = probe.baseline_acts(self.baseline, evidence.pixels_BCHW)
        else:
            start_BKuv = torch.zeros_like(evidence.acts_BKuv)
        total_Buv = torch.zeros_like(evidence.acts_BKuv[:, 0])
        for weight, point in self._points(evidence, probe):
            total_Buv = total_Buv + weight * weighted_sum(point.grads_BKuv.mean((2, 3)), point.acts_BKuv - start_BKuv)
        return total_Buv

    def cost(self, shape: LayerShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """One forward and head backward per path point; the image itself (t = 1) is the shared evidence."""
        extra = len([t for t, _ in path_points(self.steps, self.rule) if t != 1])
        return Cost(forwards=extra, backwards=extra)

    def _points(self, evidence: Evidence, probe: Probe) -> Iterator[tuple[float, Evidence]]:
        """Evidence at every path point, in order of t; several points share a pass when the batch is small."""
        points = path_points(self.steps, self.rule)
        inner = [point for point in points if point[0] != 1]
        start_BCHW = probe.baseline_pixels(self.baseline, evidence.pixels_BCHW)
        together = max(1, probe.batcher.size // len(evidence.pixels_BCHW))
        for first in range(0, len(inner), together):
            group = inner[first : first + together]
            captured = _capture_group(evidence, probe, start_BCHW, [t for t, _ in group])
            yield from zip((weight for _, weight in group), captured, strict=True)
        yield from ((weight, evidence) for t, weight in points if t == 1)


def path_points(steps: int, rule: Rule) -> list[tuple[float, float]]:
    """Positions t in [0, 1] and weights of the sum along the path, in order of t."""
    if rule == "trapezoid":
        return [(i / steps, 0.5 if i in (0, steps) else 1.0) for i in range(steps + 1)]
    shift = {"right": 1.0, "left": 0.0, "midpoint": 0.5}[rule]
    return [((i + shift) / steps, 1.0) for i in range(steps)]


def _capture_group(evidence: Evidence, probe: Probe, start_BCHW: Tensor, positions: list[float]) -> Iterator[Evidence]:
    """Capture the images at several positions in one go, position by position."""
    count = len(evidence.pixels_BCHW)
    at_TBCHW = [start_BCHW + t * (evidence.pixels_BCHW - start_BCHW) for t in positions]
    captured = probe.capture(torch.cat(at_TBCHW), evidence.targets_B.repeat(len(positions)), gradients=True)
    return (captured.select(slice(i * count, (i + 1) * count)) for i in range(len(positions)))
