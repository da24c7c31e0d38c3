"""Checks the arguments of `explain` and `evaluate`: each mistake is a ValueError with one sentence."""

from collections.abc import Sequence

from torch import Tensor


def check_normalisation(pixels_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ValueError unless there are a mean and a positive std for each colour."""
    colours = pixels_BCHW.shape[1]
    if len(mean) != colours or len(std) != colours or min(std) <= 0:
        raise ValueError(f"mean and std must have {colours} numbers each, one per colour, and std must be positive")


def check_inputs(pixels_BCHW: Tensor, targets: Tensor | None) -> None:
    """Raise ValueError unless pixels are a batch, and targets fit it."""
    if pixels_BCHW.ndim != 4 or not len(pixels_BCHW):
        shape = tuple(pixels_BCHW.shape)
        raise ValueError(f"pixels must be a float tensor (B, C, H, W) with B > 0, not {pixels_BCHW.dtype} {shape}")
    if targets is None:
        return
    if targets.shape[:1] != pixels_BCHW.shape[:1] or targets.ndim > 2 or not targets.numel():
        count = len(pixels_BCHW)
        raise ValueError(f"{count} images need targets of shape ({count},) or ({count}, T), not {tuple(targets.shape)}")
