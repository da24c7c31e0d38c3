"""The CAM methods. This is their registry, written by hand: what stands here exists."""

from collections.abc import Iterable

from pipeline.cams.base import CamMethod, Cost, LayerShape, Needs
from pipeline.cams.gradient import GradCam, GradCamPlusPlus
from pipeline.cams.path import IntegratedGradCam
from pipeline.cams.score import IsCam, ScoreCam
from pipeline.registry import Spec, build_all

__all__ = ["METHODS", "CamMethod", "Cost", "LayerShape", "Needs", "build_methods"]

METHODS: dict[str, type[CamMethod]] = {
    GradCam.name: GradCam,
    GradCamPlusPlus.name: GradCamPlusPlus,
    IntegratedGradCam.name: IntegratedGradCam,
    ScoreCam.name: ScoreCam,
    IsCam.name: IsCam,
}


def build_methods(specs: Iterable[Spec]) -> dict[str, CamMethod]:
    """Build the methods of a run, keyed by their name in it.

    Raises:
        ConfigError: every mistake in the list, at once.
    """
    return build_all(specs, METHODS, "explain.methods")
