"""Linear imputation for ROAD: replaces removed pixels by the weighted mean of their eight neighbours.

Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution Methods
(ICML 2022, arXiv 2202.00449), appendix. Direct neighbours have weight 1/6, diagonal ones 1/12; at borders the weights
of the neighbours that exist are scaled to sum to one. This module adds no noise; `views.Imputed` does. The sparse
linear system of each image is solved by conjugate gradients with one multigrid V-cycle as preconditioner, for all
images and colours at once, without building a matrix.

Legend: P images, C colours, (H, W) pixels; in the solver J = P or 1 and single-channel fields (C, J, H, W) or (1, J, H,
W).
"""

import torch
from torch import Tensor
from torch.nn import functional

MOST_ITERATIONS = 40
TOLERANCE = 3e-4
"""Bound on the preconditioned residual, which estimates the error in pixel units; the iteration stops below it."""

IMAGES_ON_DEVICE = 128
"""Most images that are solved at once on a device, where more of them cost hardly more launches."""
_IMAGES_ON_CPU = 8
_UNSEEN = 10
"""Iterations on a device between two looks at whether all images are solved, for which the host waits. Solved images
do not change meanwhile; photographs take 5 to 9."""
_COARSEST = 8
_COARSEST_SWEEPS = 4


def imputed(pixels_PCHW: Tensor, missing_PHW: Tensor) -> Tensor:
    """Replace missing pixels by the solution of x_i = sum_j w_ij x_j / sum_j w_ij, j the neighbours of i.

    On a CPU, a few images are solved at a time, so that their fields stay in the cache. The result of an image does not
    depend on the other images of the batch.

    Args:
        pixels_PCHW: images, float32; missing pixels are not read.
        missing_PHW: True where a pixel is replaced; False for at least one pixel of each image.

    Raises:
        ValueError: all pixels of an image are missing.
    """
    count = _IMAGES_ON_CPU if _is_cheap_to_read(pixels_PCHW) else IMAGES_ON_DEVICE
    pieces = zip(torch.split(pixels_PCHW, count), torch.split(missing_PHW, count), strict=True)
    return torch.cat([_solved(*piece) for piece in pieces])


def _solved(pixels_PCHW: Tensor, missing_PHW: Tensor) -> Tensor:
    missing_P1HW = missing_PHW[:, None].to(pixels_PCHW)
    guess_PCHW = _first_guess(pixels_PCHW * (1 - missing_P1HW), 1 - missing_P1HW)
    grids = _grids(missing_P1HW)
    residual = -missing_P1HW * grids[0].applied(guess_PCHW)
    correction = _v_cycle(grids, residual)
    direction, product = correction, _dots(residual, correction)
    active_P111 = torch.ones_like(missing_P1HW[:, :, :1, :1])
    looks_each = 1 if _is_cheap_to_read(active_P111) else _UNSEEN
    for iteration in range(1, MOST_ITERATIONS + 1):
        active_P111 = active_P111 * (correction.abs().amax((1, 2, 3), keepdim=True) >= TOLERANCE)
        if iteration % looks_each == 0 and _is_solved(active_P111, missing_PHW):
            break
        applied = grids[0].applied(direction).mul_(missing_P1HW)
        length = active_P111 * product / _dots(direction, applied).clamp_min(_TINY)
        guess_PCHW.addcmul_(length, direction)
        residual.addcmul_(length, applied, value=-1)
        correction = torch.where(active_P111 > 0, _v_cycle(grids, residual), correction)
        previous, product = product, _dots(residual, correction)
        direction = torch.addcmul(correction, product / previous.clamp_min(_TINY), direction)
    return torch.where(missing_PHW[:, None], guess_PCHW + correction, pixels_PCHW)


_TINY = 1e-30


def _is_solved(active_P111: Tensor, missing_PHW: Tensor) -> bool:
    """Tell whether no image is active; raises ValueError if all pixels of one are missing. The host waits once."""
    is_whole, is_active = torch.stack([missing_PHW.flatten(1).all(1).any(), active_P111.any()]).tolist()
    if is_whole:
        raise ValueError("all pixels of an image are missing; imputation needs at least one known pixel per image")
    return not is_active


def _is_cheap_to_read(field: Tensor) -> bool:
    """Tell whether the host may look at numbers to save work, instead of waiting for a device."""
    return field.device.type == "cpu"


class _Grid:
    """Linear system on one grid: `weight` u - neighbours(u) on the unknown cells, zero elsewhere.

    Attributes:
        unknown: 1 where a cell is unknown, else 0.
        weight: sum of the weights of the neighbours that exist.
        step: unknown / weight, the step of a Jacobi sweep.
        spread: correction of `_upsampled` at the border: 1 over the value it gives for a field of ones.
    """

    def __init__(self, unknown: Tensor) -> None:
        self.unknown = unknown
        height, width = unknown.shape[-2:]
        self.weight = _neighbours(unknown.new_ones(1, 1, height, width))
        self.step = unknown / self.weight
        coarse = unknown.new_ones(1, 1, -(-height // 2), -(-width // 2))
        self.spread = unknown / _upsampled(coarse, (height, width))

    def applied(self, field: Tensor) -> Tensor:
        """Apply the system to a field; the caller masks the known cells."""
        return (self.weight * field).sub_(_neighbours(field))

    def smoothed(self, field: Tensor, residual: Tensor) -> Tensor:
        """Run one Jacobi sweep, which reduces high-frequency errors to a third."""
        return self.applied(field).neg_().add_(residual).mul_(self.step).add_(field)


def _grids(unknown: Tensor) -> list[_Grid]:
    """Build the systems from fine to coarse; a coarse cell is unknown if all of its four cells are."""
    grids = [_Grid(unknown)]
    while min(unknown.shape[-2:]) > _COARSEST and not (_is_cheap_to_read(unknown) and not unknown.any()):
        height, width = unknown.shape[-2:]
        whole = functional.pad(unknown, (0, width % 2, 0, height % 2), mode="replicate")
        unknown = -functional.max_pool2d(-whole, 2)
        grids.append(_Grid(unknown))
    return grids


def _v_cycle(grids: list[_Grid], residual: Tensor) -> Tensor:
    """Solve approximately for a residual: smooth, correct from the coarser grid, smooth."""
    fine = grids[0]
    field = fine.step * residual
    if len(grids) == 1:
        for _ in range(_COARSEST_SWEEPS):
            field = fine.smoothed(field, residual)
        return field
    remaining = fine.applied(field).neg_().add_(residual).mul_(fine.spread)
    coarse = _v_cycle(grids[1:], grids[1].unknown * _downsampled(remaining))
    field.addcmul_(fine.spread, _upsampled(coarse, (residual.shape[-2], residual.shape[-1])))
    return fine.smoothed(field, residual)


def _first_guess(pixels: Tensor, known: Tensor) -> Tensor:
    """Fill missing pixels from the means of increasingly large blocks."""
    if min(known.shape[-2:]) == 1 or (_is_cheap_to_read(known) and bool(known.all())):
        total = known.sum((2, 3), keepdim=True).clamp_min(1)
        return torch.where(known > 0, pixels, (pixels * known).sum((2, 3), keepdim=True) / total)
    share = functional.avg_pool2d(_even(known), 2)
    means = functional.avg_pool2d(_even(pixels * known), 2) / share.clamp_min(1e-6)
    coarse = _first_guess(means, (share > 0).to(known))
    height, width = known.shape[-2:]
    near = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    return torch.where(known > 0, pixels, near)


def _neighbours(field: Tensor) -> Tensor:
    """Sum the eight neighbours with their weights; neighbours outside the image count as zero."""
    around = functional.pad(field, (1, 1, 1, 1))
    column = (around[..., :-2, :] + around[..., 2:, :]).add_(around[..., 1:-1, :], alpha=2)
    return (column[..., :-2] + column[..., 2:]).add_(column[..., 1:-1], alpha=2).sub_(field, alpha=4).div_(12)


def _upsampled(field: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample a field by two, linearly, with zeros outside: (1/4, 3/4, 3/4, 1/4) along each side."""
    for axis in (-2, -1):
        low = 0.75 * field + 0.25 * _shifted(field, axis, 1)
        high = 0.75 * field + 0.25 * _shifted(field, axis, -1)
        shape = [side * 2 if i == field.ndim + axis else side for i, side in enumerate(field.shape)]
        field = torch.stack([low, high], 4 if axis == -1 else 3).reshape(shape)
    return field[..., : size[0], : size[1]]


def _downsampled(field: Tensor) -> Tensor:
    """Apply the adjoint of `_upsampled`."""
    field = _even(field)
    for axis in (-2, -1):
        low, high = (field[..., end::2] if axis == -1 else field[..., end::2, :] for end in (0, 1))
        field = 0.75 * (low + high) + 0.25 * (_shifted(low, axis, -1) + _shifted(high, axis, 1))
    return field


def _shifted(field: Tensor, axis: int, by: int) -> Tensor:
    """Shift a field by one cell along an axis, filling with zeros."""
    size = field.shape[axis]
    padded = functional.pad(field, (0, 0, 1, 1) if axis == -2 else (1, 1, 0, 0))
    return padded.narrow(axis, 1 - by, size)


def _even(field: Tensor) -> Tensor:
    """Pad with a row and a column of zeros where the size is odd."""
    return functional.pad(field, (0, field.shape[-1] % 2, 0, field.shape[-2] % 2))


def _dots(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((2, 3), keepdim=True)
