"""Segmentation: one output per class and pixel.

Legend: B images, N classes, (H, W) pixels of the model's output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.outputs import OutputKey, described, picked
from pipeline.model.tasks.base import Task


@dataclass(frozen=True)
class Segmentation(Task):
    """The logit of a class is its mean logit over the pixels that the model gives to it.

    Formula:
        M_c = {(i, j): argmax_n z_nij = c}, the pixels of class c;
        z_c = mean of z_cij over M_c, and over all pixels if M_c is empty.
        With one channel, M = {(i, j): z_ij > 0}: the same as for the two channels [0, z].

    Symbols:
        z_nij: logit of class n at pixel (i, j); M_c: a set of pixels, constant under differentiation.

    Interpretation: the softmax over the reduced logits z is a confidence of the whole image, which the model was not
    trained to give: a class that has a single pixel may win.

    Shapes: returned (B, N, H, W), or a dict with it as `out` or `logits`; outputs (B, N).

    Source: Vinogradova, Dibrov, Myers, "Towards Interpretable Semantic Segmentation via Gradient-weighted Class
    Activation Mapping" (AAAI 2020), equation 2, sums a class's logits over a set of pixels; the mean does not grow with
    the object.
    """

    name = "segmentation"
    kinds = ("softmax", "sigmoid", "binary", "raw")
    is_guessed = True

    def outputs(self, returned: object, key: OutputKey | None) -> Tensor:
        """Return the mean logit of each class over its pixels, (B, N).

        Raises:
            ConfigError: the model did not return (B, N, H, W).
        """
        logits_BNHW = self.observed(returned, key).float()
        own_BNHW = _own_pixels(logits_BNHW.detach())
        pixels_BN = own_BNHW.sum((2, 3))
        over_own_BN = (logits_BNHW * own_BNHW).sum((2, 3)) / pixels_BN.clamp_min(1)
        return torch.where(pixels_BN > 0, over_own_BN, logits_BNHW.mean((2, 3)))

    def observed(self, returned: object, key: OutputKey | None) -> Tensor:
        """Return the logits of the pixels, (B, N, H, W)."""
        logits_BNHW = picked(returned, key)
        if isinstance(logits_BNHW, Tensor) and logits_BNHW.ndim == 4 and logits_BNHW.is_floating_point():
            return logits_BNHW
        raise ConfigError.one(
            "model.task",
            f"segmentation needs logits (B, N, H, W) of every pixel, but the model returns {described(logits_BNHW)}",
            "set model.output_key, or explain the model before its argmax",
        )


def _own_pixels(logits_BNHW: Tensor) -> Tensor:
    """Mark the pixels of each class, (B, N, H, W) bool."""
    if logits_BNHW.shape[1] == 1:
        return logits_BNHW > 0
    classes_N11 = torch.arange(logits_BNHW.shape[1], device=logits_BNHW.device)[:, None, None]
    return logits_BNHW.argmax(1, keepdim=True) == classes_N11
