"""Registry of the CAM methods, written by hand: a method exists for users once it is listed here."""

from collections.abc import Iterable, Mapping

from pipeline.cams.activation import Cam, EigenCam, EigenGradCam, Fem, KpcaCam
from pipeline.cams.attention import AttentionGradient, AttentionRollout, LeGrad, RawAttention
from pipeline.cams.base import Adapter, CamMethod, Cost, LayerShape, Needs, NetShape
from pipeline.cams.captum import Captum
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
from pipeline.cams.stored import Stored
from pipeline.errors import ConfigError, Mistakes
from pipeline.settings.registry import Spec, build_all

__all__ = [
    "ADAPTERS", "METHODS", "METHOD_PLUGINS", "Adapter", "BaseMethod", "CamMethod", "Cost", "LayerShape", "Needs",
    "NetShape", "build_methods", "redrawable",
]  # fmt: skip

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
_ATTENTION: tuple[type[CamMethod], ...] = (RawAttention, AttentionRollout, AttentionGradient, LeGrad)
_CONTROLS: tuple[type[CamMethod], ...] = (ShuffledGradCam,)

METHODS: dict[str, type[CamMethod]] = {
    kind.name: kind
    for kind in (*_PAPERS, *_GRADIENTS, *_ACTIVATIONS, *_PERTURBATIONS, *_PIXELS, *_ATTENTION, *_CONTROLS)
}
CONTROLS = frozenset(kind.name for kind in _CONTROLS)
"""Methods whose maps carry no information: baselines for metrics, and no explanations."""

ADAPTERS: dict[str, type[CamMethod]] = {Captum.name: Captum, Stored.name: Stored}
"""Methods of others, apart from the published CAM methods: computed by another library, or stored."""


def redrawable(methods: Mapping[str, CamMethod]) -> dict[str, CamMethod]:
    """Return the methods that can draw the maps of changed images or weights: all but stored maps.

    Raises:
        ConfigError: there is none.
    """
    drawn = {label: method for label, method in methods.items() if not isinstance(method, Adapter) or method.redraws}
    if not drawn:
        raise ConfigError.one("explain.methods", "stored maps cannot be drawn again", "choose a run with other methods")
    return drawn


def build_methods(specs: Iterable[Spec]) -> dict[str, CamMethod]:
    """Build the methods of a run, keyed by their name in the run.

    Raises:
        ConfigError: the list has mistakes; all of them are reported at once.
    """
    methods = build_all(specs, METHODS | ADAPTERS, "explain.methods", METHOD_PLUGINS)
    mistakes = Mistakes()
    for method in methods.values():
        if isinstance(method, Adapter):
            with mistakes.collecting():
                method.opened()
    mistakes.raise_if_any()
    return methods
