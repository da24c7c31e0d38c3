"""Methods that attribute the logit to pixels, for comparison with the CAM methods.

Their maps are stored at a grid set by the parameter `grid`: each cell holds the mean over its pixels. Legend: B images,
C colours, (H, W) pixels, (u, v) grid; S target logit.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from pipeline.cams.base import STRICT, Cost, Draws, Needs, NetShape, Paper
from pipeline.cams.grids import Grid, pooled
from pipeline.cams.versions import Rule, noisy_copies, path_points
from pipeline.maps.heatmaps import min_max, upsample
from pipeline.model.baselines import Reference
from pipeline.model.biases import effective_bias
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

Colours = Literal["sum", "abs_sum"]
_TAPPED_AT_ONCE = 8
"""Number of images whose gradients at every layer are in memory at once."""


@dataclass(frozen=True, config=STRICT)
class IntegratedGradients:
    """Integrated Gradients: the pixel gradient averaged along the path from a baseline, times the change of the pixel.

    M = sum_c (x - x')_c mean_n dS(x_n)/dx_c,   x_n = x' + t_n (x - x')

    x is the image (H x W pixels, colours c), x' the baseline, S the target logit, t_n a path point in [0, 1]. Complete:
    with colours = sum, the mean of M times H W is S(x) - S(x') up to the error of the sum. Signed.

    Parameters:
        steps: number of path points; trapezoid takes one more.
        rule: positions t_n of the path points, as in integrated_gradcam; midpoint is the most accurate.
        baseline: x': black, mean (the mean colour), blur, or, from Python, a tensor that holds a normalised image.
        colours: how colours are combined: sum, or abs_sum, the sum of magnitudes.
        grid: cells along each side of the stored map.
    """

    steps: Annotated[int, Field(ge=1)] = 50
    rule: Rule = "midpoint"
    baseline: Reference = "black"
    colours: Colours = "sum"
    grid: Grid = 56

    name: ClassVar[str] = "integrated_gradients"
    needs: ClassVar[Needs] = Needs(activations=False)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Sundararajan, Taly, Yan", "Axiomatic Attribution for Deep Networks", "ICML", 2017, "arXiv 1703.01365",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), signed with colours = sum."""
        pixels_BCHW = evidence.pixels_BCHW
        start_BCHW = probe.baseline_pixels(self.baseline, pixels_BCHW)
        points = path_points(self.steps, self.rule)
        copies = (start_BCHW + t * (pixels_BCHW - start_BCHW) for t, _ in points)
        total_BCHW = torch.zeros_like(pixels_BCHW)
        for (_, weight), grads_BCHW in zip(points, _gradients(evidence, probe, copies), strict=True):
            total_BCHW = total_BCHW + weight * grads_BCHW
        return pooled(_over_colours((pixels_BCHW - start_BCHW) * total_BCHW / self.steps, self.colours), self.grid)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one forward and one full backward pass per path point."""
        points = len(path_points(self.steps, self.rule))
        return Cost(forwards=points, backwards=points)


@dataclass(frozen=True, config=STRICT)
class SmoothGrad(Draws):
    """SmoothGrad: the pixel gradient averaged over noisy copies of the image.

    M = sum_c | mean_n dS(x_n)/dx_c |,   x_n = x + sigma (max x - min x) e_n,   e_n standard normal

    x is the image with colours c, S the target logit. The noise is drawn from (run seed, image key, method).

    Parameters:
        samples: number of noisy copies.
        sigma: standard deviation of the noise, as a fraction of the image's range max x - min x.
        colours: how colours are combined: abs_sum, the sum of magnitudes (as above), or sum, which gives a signed map.
        grid: cells along each side of the stored map.
    """

    samples: Annotated[int, Field(ge=1)] = 25
    sigma: Annotated[float, Field(ge=0)] = 0.15
    colours: Colours = "abs_sum"
    grid: Grid = 56

    name: ClassVar[str] = "smoothgrad"
    needs: ClassVar[Needs] = Needs(activations=False)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Smilkov, Thorat, Kim, Viegas, Wattenberg", "SmoothGrad: removing noise by adding noise",
        "arXiv", 2017, "arXiv 1706.03825",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0 with colours = abs_sum."""
        local_B = evidence.places()
        noisy = noisy_copies(evidence, probe.seed, self.name, self.sigma, self.samples)
        total_BCHW = torch.zeros_like(evidence.pixels_BCHW)
        for grads_BCHW in _gradients(evidence, probe, (copy_ICHW[local_B] for copy_ICHW in noisy)):
            total_BCHW = total_BCHW + grads_BCHW
        return pooled(_over_colours(total_BCHW / self.samples, self.colours), self.grid)

    @property
    def draws(self) -> bool:
        """Whether it draws numbers: if there is noise."""
        return self.sigma > 0

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one forward and one full backward pass per noisy copy."""
        return Cost(forwards=self.samples, backwards=self.samples)


@dataclass(frozen=True, config=STRICT)
class FullGrad:
    """FullGrad: the contributions of the image and of every bias in the network to the target logit.

    M = sum_c psi( |x_c dS/dx_c| ) + sum_l sum_k psi( |b^l_k dS/dz^l_k| )

    x_c is colour c of the image, S the target logit. z^l is the output of a convolution or batch norm l, b^l its bias
    (batch norm: beta - gamma mean / sqrt(var + eps)), k its channel. psi scales a map to [0, 1] and upsamples it to the
    image. Biases of linear layers and layer norms are left out; in transformers and ConvNeXt these are the majority.

    Parameters:
        grid: cells along each side of the stored map.
    """

    grid: Grid = 56

    name: ClassVar[str] = "fullgrad"
    needs: ClassVar[Needs] = Needs(activations=False)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Srinivas, Fleuret", "Full-Gradient Representation for Neural Network Visualization",
        "NeurIPS", 2019, "arXiv 1905.00780",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        biases = biases_of(probe.model)
        starts = range(0, len(evidence.keys), _TAPPED_AT_ONCE)
        parts = [self._maps(evidence.select(slice(i, i + _TAPPED_AT_ONCE)), probe, biases) for i in starts]
        return pooled(torch.cat(parts), self.grid)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one forward and one full backward pass."""
        return Cost(forwards=1, backwards=1)

    def _maps(self, evidence: Evidence, probe: Probe, biases: dict[str, Tensor]) -> Tensor:
        """Sum the contributions of the pixels and of all biases, (B, H, W)."""
        pixels_BCHW = evidence.pixels_BCHW
        taps = {name: probe.model.get_submodule(name) for name in biases}
        grads_BCHW, at_outputs = probe.backward(pixels_BCHW, evidence.targets_B, taps=taps)
        total_BHW = min_max((pixels_BCHW * grads_BCHW).abs()).sum(1)
        for name, grads_BKuv in at_outputs.items():
            if grads_BKuv.ndim == 4:
                part_Buv = min_max((biases[name].view(1, -1, 1, 1) * grads_BKuv).abs()).sum(1)
                total_BHW = total_BHW + upsample(part_Buv[:, None], (pixels_BCHW.shape[2], pixels_BCHW.shape[3]))[:, 0]
        return total_BHW


def biases_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the effective bias (K,) of each convolution and batch norm that has one, by module name."""
    biases = {name: effective_bias(module) for name, module in model.named_modules()}
    return {name: bias_K for name, bias_K in biases.items() if bias_K is not None}


def _over_colours(maps_BCHW: Tensor, colours: Colours) -> Tensor:
    return maps_BCHW.abs().sum(1) if colours == "abs_sum" else maps_BCHW.sum(1)


def _gradients(evidence: Evidence, probe: Probe, copies: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the gradients of the target logits at the pixels of each changed copy."""
    for copy_BCHW in copies:
        yield probe.backward(copy_BCHW, evidence.targets_B)[0]
