"""Attributions of captum as methods, at the resolution of pixels, of cells or of the target layer.

Legend: B rows (image, target), C colours, (H, W) pixels, K channels, (u, v) grid of the map.
"""

import re
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from torch import Tensor

from pipeline.cams.base import STRICT, Adapter, Cost, Draws, Needs, NetShape, Paper
from pipeline.cams.captum.asking import ASKING
from pipeline.cams.captum.hooking import HOOKING
from pipeline.cams.captum.job import Job
from pipeline.cams.captum.library import captum_attr, captum_version, quietly
from pipeline.cams.captum.needs import incomplete, problem_of
from pipeline.cams.captum.table import OF_CELLS, OF_LAYER, TAKES, cost
from pipeline.cams.grids import Grid, pooled
from pipeline.errors import CamatlasError, first_line, nearest
from pipeline.model.baselines import Reference
from pipeline.model.batching import is_out_of_memory
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

_Count = Annotated[int, Field(ge=1)]
_ROUTES = ASKING | HOOKING
_ON_TRIAL = {"samples": 8, "steps": 1, "cells": 2}
"""Most of each parameter in the trial on one image."""


@dataclass(frozen=True, config=ConfigDict(**STRICT, validate_default=True))
class Captum(Adapter, Draws):
    """An attribution of captum, computed by captum.

    M = sum_c R_c   or, with colours = abs_sum,   M = sum_c |R_c|

    R is what captum's algorithm gives for the target logit, in float32: at the pixels, colour by colour (Saliency to
    LRP), or at the channels of the target layer (LayerConductance, summed). Where it masks all colours together, R is
    the same for each of them, and M = R: at the pixels (Occlusion), or for all pixels of a cell of a square grid
    (FeatureAblation to KernelShap). The mean over the pixels of each cell of `grid` is stored.

    | algorithm | parameters, with their defaults |
    |---|---|
    | Saliency, InputXGradient, GuidedBackprop, Deconvolution, GuidedGradCam, LRP | colours, grid 56 |
    | DeepLift | baseline, colours, grid |
    | IntegratedGradients | steps 50, baseline, colours, grid |
    | GradientShap, DeepLiftShap | samples 20, 10, sigma 0.15, baseline, colours, grid |
    | LayerConductance | steps 20, baseline |
    | Occlusion | window 32, stride 16, baseline, grid |
    | FeatureAblation | cells 7, baseline |
    | ShapleyValueSampling, KernelShap | samples 25, 500, cells 7, baseline |
    | Lime | samples 500, alpha 0.01, cells 7, baseline |

    Signed, except for Saliency (colours = abs_sum). Random numbers are drawn from (run seed, image key, algorithm).
    Algorithms that hook modules run on a private copy, in which every call has a module of its own; a model that they
    do not suit is refused. Name in the run: captum_ and the algorithm, such as captum_occlusion.

    Parameters:
        algorithm: the class in captum.attr.
        baseline: what replaces pixels, or where paths begin: black, mean, blur, rise_blur, or, from Python, a tensor.
        cells: cells along each side of the grid whose cells are masked together; also the size of the map.
        window: side of the occluded square in pixels.
        stride: pixels from one window to the next.
        samples: permutations, masked images, points on paths, or baselines.
        steps: points on the path from the baseline.
        sigma: noise that makes a distribution of the baseline, as a fraction of the image's range max x - min x.
        alpha: strength of Lime's Lasso.
        colours: how colours are combined: sum, or abs_sum, the sum of magnitudes.
        grid: cells along each side of the stored map; at most the pixels of the image.
    """

    algorithm: str
    baseline: Reference | None = None
    cells: _Count | None = None
    window: _Count | None = None
    stride: _Count | None = None
    samples: _Count | None = None
    steps: _Count | None = None
    sigma: Annotated[float, Field(ge=0)] | None = None
    alpha: Annotated[float, Field(gt=0)] | None = None
    colours: Literal["sum", "abs_sum"] | None = None
    grid: Grid | None = None

    name: ClassVar[str] = "captum"
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Kokhlikyan and others", "Captum: A unified and generic model interpretability library for PyTorch",
        "arXiv", 2020, "arXiv 2009.07896",
    )  # fmt: skip

    @field_validator("algorithm")
    @classmethod
    def _known(cls, algorithm: str) -> str:
        if algorithm not in TAKES:
            message = f"unknown algorithm ({nearest(algorithm, TAKES)})".replace("{", "{{").replace("}", "}}")
            raise PydanticCustomError("algorithm", message)
        return algorithm

    @field_validator(
        "baseline", "cells", "window", "stride", "samples", "steps", "sigma", "alpha", "colours", "grid", mode="before"
    )
    @classmethod
    def _taken(cls, value: object, info: ValidationInfo) -> object:
        """Fill in the default of the algorithm, and refuse a parameter that it does not take."""
        taken = TAKES.get(str(info.data.get("algorithm")))
        if taken is None:  # the algorithm itself is wrong
            return value
        if value is None:
            return taken.get(str(info.field_name))
        if info.field_name not in taken:
            raise PydanticCustomError(
                "no_effect", f"has no effect on {info.data['algorithm']}, which takes {', '.join(taken)}"
            )
        return value

    @property
    def options(self) -> dict[str, Any]:
        """The parameters that the algorithm takes."""
        return {name: getattr(self, name) for name in TAKES[self.algorithm]}

    @property
    def label(self) -> str:
        """Name of the method in a run that gives it none."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.algorithm)
        return f"captum_{words.lower()}"

    def identity(self) -> dict[str, Any]:
        """Return what determines the maps: the algorithm, its parameters and the version of captum."""
        return {"name": self.name, "algorithm": self.algorithm, **self.options, "version": captum_version()}

    @property
    def draws(self) -> bool:
        """Whether baselines are drawn here; what captum draws is not of this project."""
        return self.sigma is not None and self.sigma > 0

    def opened(self) -> None:
        """Check that captum is installed."""
        captum_version()

    @property
    def needs(self) -> Needs:
        """Return what the algorithm requires: the target layer, or images only."""
        return Needs(activations=self.algorithm in OF_LAYER)

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v)."""
        return self._map(self._job(evidence, probe), self._attributions(self._job(evidence, probe)))

    def cost(self, net: NetShape) -> Cost:
        """Count the passes of the algorithm."""
        return cost(self.algorithm, self.options, net)

    def problem(self, evidence: Evidence, probe: Probe) -> str:
        """Say why the algorithm does not suit the model; it is tried on the given image, with few samples and steps."""
        if found := problem_of(self._job(evidence, probe)):
            return found
        job = self._trial(self._job(evidence, probe))
        try:
            maps_BCHW = self._attributions(job)
        except CamatlasError:
            raise
        except Exception as error:  # captum raises many types
            if is_out_of_memory(error):
                raise
            return f"captum raised {first_line(error)} on a trial image"
        return incomplete(job, maps_BCHW) if job.algorithm == "DeepLift" else ""

    def _trial(self, job: Job) -> Job:
        """Return a job with few passes; DeepLift in place of DeepLiftShap, which is its mean over baselines."""
        window = max(int(self.window or 1), min(job.pixels_BCHW.shape[-2:]) // 2)
        few = {name: min(most, self.options[name]) for name, most in _ON_TRIAL.items() if name in self.options}
        options = self.options | few | ({"window": window, "stride": window} if self.window else {})
        return replace(job, algorithm="DeepLift" if "DeepLift" in self.algorithm else self.algorithm, options=options)

    def _job(self, evidence: Evidence, probe: Probe) -> Job:
        return Job(self.algorithm, self.options, evidence, probe)

    def _attributions(self, job: Job) -> Tensor:
        attr = captum_attr()
        if "baseline" in job.options:
            job.baselines(job.pixels_BCHW[:1])  # what it warns of would be hidden with the warnings of captum
        with quietly(), torch.enable_grad():
            return _ROUTES[job.algorithm](job, attr).detach().to(job.pixels_BCHW.device, torch.float32)

    def _map(self, job: Job, maps: Tensor) -> Tensor:
        if self.algorithm == "LayerConductance":
            return job.evidence.view.grid(maps).sum(1)
        if self.algorithm in OF_CELLS:
            assert self.cells is not None
            return _at_cells(maps[:, 0], self.cells)  # all colours of a cell are masked together
        assert self.grid is not None
        if self.algorithm == "Occlusion":
            return pooled(maps[:, 0], self.grid)
        return pooled(maps.abs().sum(1) if self.colours == "abs_sum" else maps.sum(1), self.grid)


def _at_cells(maps_BHW: Tensor, cells: int) -> Tensor:
    """Read the value of each cell at its first pixel, (B, cells, cells)."""
    down, across = ([-(-cell * side // cells) for cell in range(cells)] for side in maps_BHW.shape[1:])
    return maps_BHW[:, down][:, :, across]
