"""Registry of the CAM methods, written by hand: a method exists for users once it is listed here."""

from collections.abc import Iterable

from pipeline.cams.activation import Cam, EigenCam, EigenGradCam, Fem, KpcaCam
from pipeline.cams.base import CamMethod, Cost, LayerShape, Needs, NetShape
from pipeline.cams.contrast import FinerCam, ShapleyCam
from pipeline.cams.control import ShuffledGradCam
from pipeline.cams.features import AblationCam, ReciproCam
from pipeline.cams.fusion import LayerCamFusion, RefineCam
from pipeline.cams.gradient import GradCam, GradCamPlusPlus, SmoothGradCamPlusPlus, XGradCam
from pipeline.cams.increment import IncrementCam
from pipeline.cams.integrative import IntegrativeCam
from pipeline.cams.multiscale import PolyCam, Sise
from pipeline.cams.path import IntegratedGradCam, RsiGradCam
from pipeline.cams.pixels import FullGrad, IntegratedGradients, SmoothGrad
from pipeline.cams.plugged import METHOD_PLUGINS, BaseMethod
from pipeline.cams.pointwise import ElementwiseGradCam, HiResCam, LayerCam
from pipeline.cams.region import GroupCam, OptiCam, Rise
from pipeline.cams.score import IsCam, ScoreCam, SsCam
from pipeline.settings.registry import Spec, build_all

__all__ = [
    "METHODS",
    "METHOD_PLUGINS",
    "BaseMethod",
    "CamMethod",
    "Cost",
    "LayerShape",
    "Needs",
    "NetShape",
    "build_methods",
]

_PAPERS: tuple[type[CamMethod], ...] = (IntegratedGradCam, IsCam, IncrementCam, IntegrativeCam)
_GRADIENTS: tuple[type[CamMethod], ...] = (
    GradCam, GradCamPlusPlus, SmoothGradCamPlusPlus, XGradCam, HiResCam, LayerCam, LayerCamFusion, ElementwiseGradCam,
    EigenGradCam, ShapleyCam, FinerCam, RefineCam, RsiGradCam, FullGrad,
)  # fmt: skip
_ACTIVATIONS: tuple[type[CamMethod], ...] = (Cam, EigenCam, KpcaCam, Fem)
_PERTURBATIONS: tuple[type[CamMethod], ...] = (
    ScoreCam, SsCam, AblationCam, GroupCam, ReciproCam, Rise, OptiCam, PolyCam, Sise,
)  # fmt: skip
_PIXELS: tuple[type[CamMethod], ...] = (IntegratedGradients, SmoothGrad)
_CONTROLS: tuple[type[CamMethod], ...] = (ShuffledGradCam,)

METHODS: dict[str, type[CamMethod]] = {
    kind.name: kind for kind in (*_PAPERS, *_GRADIENTS, *_ACTIVATIONS, *_PERTURBATIONS, *_PIXELS, *_CONTROLS)
}


def build_methods(specs: Iterable[Spec]) -> dict[str, CamMethod]:
    """Build the methods of a run, keyed by their name in the run.

    Raises:
        ConfigError: the list has mistakes; all of them are reported at once.
    """
    return build_all(specs, METHODS, "explain.methods", METHOD_PLUGINS)
