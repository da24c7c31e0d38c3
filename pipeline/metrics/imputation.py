"""Noisy linear imputation without the noise: removed pixels become the weighted mean of their eight neighbours.

Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution Methods
(ICML 2022, arXiv 2202.00449), appendix. Direct neighbours weigh 1/6, diagonal ones 1/12; at borders the weights of the
neighbours that exist are scaled up to one. The sparse system of each image is solved by conjugate gradients with one
multigrid V-cycle as preconditioner, all images and colours at once, without building a matrix.

Legend: P images, C colours, (H, W) pixels; in the solver J = P or 1 and single-channel fields (C, J, H, W) or (1, J, H,
W).
"""

import torch
from torch import Tensor
from torch.nn import functional

MOST_ITERATIONS = 40
TOLERANCE = 3e-4
"""The preconditioned residual estimates the error, in the units of the pixels; iterating stops when it is below."""

_TOGETHER = 8
_COARSEST = 8
_COARSEST_SWEEPS = 4


def imputed(pixels_PCHW: Tensor, missing_PHW: Tensor) -> Tensor:
    """Replace missing pixels by the solution of x_i = sum_j w_ij x_j / sum_j w_ij, j the neighbours of i.

    On a CPU only a few images are solved together, so that their fields stay in the cache. No image's result depends on
    those beside it.

    Args:
        pixels_PCHW: images, float32; what is missing in them is not read.
        missing_PHW: True where a pixel is to be replaced; at least one pixel of an image must be there.

    Raises:
        ValueError: an image has no pixel left.
    """
    if bool(missing_PHW.flatten(1).all(1).any()):
        raise ValueError("nothing is left of an image to guess the missing pixels from")
    together = len(pixels_PCHW) if pixels_PCHW.device.type != "cpu" else _TOGETHER
    pieces = zip(torch.split(pixels_PCHW, together), torch.split(missing_PHW, together), strict=True)
    return torch.cat([_solved(*piece) for piece in pieces])


def _solved(pixels_PCHW: Tensor, missing_PHW: Tensor) -> Tensor:
    missing_P1HW = missing_PHW[:, None].to(pixels_PCHW)
    guess_PCHW = _first_guess(pixels_PCHW * (1 - missing_P1HW), 1 - missing_P1HW)
    grids = _grids(missing_P1HW)
    residual = -missing_P1HW * grids[0].applied(guess_PCHW)
    better = _v_cycle(grids, residual)
    direction, product = better, _dots(residual, better)
    going_P111 = torch.ones_like(missing_P1HW[:, :, :1, :1])
    for _ in range(MOST_ITERATIONS):
        going_P111 = going_P111 * (better.abs().amax((1, 2, 3), keepdim=True) >= TOLERANCE)
        if not going_P111.any():
            break
        applied = grids[0].applied(direction).mul_(missing_P1HW)
        length = going_P111 * product / _dots(direction, applied).clamp_min(_TINY)
        guess_PCHW.addcmul_(length, direction)
        residual.addcmul_(length, applied, value=-1)
        better = torch.where(going_P111 > 0, _v_cycle(grids, residual), better)
        before, product = product, _dots(residual, better)
        direction = torch.addcmul(better, product / before.clamp_min(_TINY), direction)
    return torch.where(missing_PHW[:, None], guess_PCHW + better, pixels_PCHW)


_TINY = 1e-30


class _Grid:
    """The system on one grid: `weight` u - neighbours(u) on the cells that are unknown, nothing elsewhere.

    Attributes:
        unknown: 1 where a cell is unknown.
        weight: sum of the weights of the neighbours that exist.
        spread: 1 over what enlarging makes of a field of ones, which is less than one at the border.
    """

    def __init__(self, unknown: Tensor) -> None:
        self.unknown = unknown
        height, width = unknown.shape[-2:]
        self.weight = _neighbours(unknown.new_ones(1, 1, height, width))
        self.step = unknown / self.weight
        coarse = unknown.new_ones(1, 1, -(-height // 2), -(-width // 2))
        self.spread = unknown / _enlarged(coarse, (height, width))

    def applied(self, field: Tensor) -> Tensor:
        """The system times a field; what stands in known cells is left for the caller to mask."""
        return (self.weight * field).sub_(_neighbours(field))

    def smoothed(self, field: Tensor, residual: Tensor) -> Tensor:
        """One sweep of Jacobi; of the rough part it leaves a third."""
        return self.applied(field).neg_().add_(residual).mul_(self.step).add_(field)


def _grids(unknown: Tensor) -> list[_Grid]:
    """The system from fine to coarse; a coarse cell is unknown when all of its four cells are."""
    grids = [_Grid(unknown)]
    while min(unknown.shape[-2:]) > _COARSEST and bool(unknown.any()):
        height, width = unknown.shape[-2:]
        whole = functional.pad(unknown, (0, width % 2, 0, height % 2), mode="replicate")
        unknown = -functional.max_pool2d(-whole, 2)
        grids.append(_Grid(unknown))
    return grids


def _v_cycle(grids: list[_Grid], residual: Tensor) -> Tensor:
    """Solve roughly for a residual: smooth, correct from the coarser grid, smooth."""
    fine = grids[0]
    field = fine.step * residual
    if len(grids) == 1:
        for _ in range(_COARSEST_SWEEPS):
            field = fine.smoothed(field, residual)
        return field
    left = fine.applied(field).neg_().add_(residual).mul_(fine.spread)
    coarse = _v_cycle(grids[1:], grids[1].unknown * _gathered(left))
    field.addcmul_(fine.spread, _enlarged(coarse, (residual.shape[-2], residual.shape[-1])))
    return fine.smoothed(field, residual)


def _first_guess(pixels: Tensor, known: Tensor) -> Tensor:
    """Fill what is missing from means of ever larger blocks."""
    if min(known.shape[-2:]) == 1 or bool(known.all()):
        total = known.sum((2, 3), keepdim=True).clamp_min(1)
        return torch.where(known > 0, pixels, (pixels * known).sum((2, 3), keepdim=True) / total)
    share = functional.avg_pool2d(_even(known), 2)
    means = functional.avg_pool2d(_even(pixels * known), 2) / share.clamp_min(1e-6)
    coarse = _first_guess(means, (share > 0).to(known))
    height, width = known.shape[-2:]
    near = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    return torch.where(known > 0, pixels, near)


def _neighbours(field: Tensor) -> Tensor:
    """Weighted sum of the eight neighbours; those outside the image count nothing."""
    around = functional.pad(field, (1, 1, 1, 1))
    column = (around[..., :-2, :] + around[..., 2:, :]).add_(around[..., 1:-1, :], alpha=2)
    return (column[..., :-2] + column[..., 2:]).add_(column[..., 1:-1], alpha=2).sub_(field, alpha=4).div_(12)


def _enlarged(field: Tensor, size: tuple[int, int]) -> Tensor:
    """Double a field linearly, nothing outside: (1/4, 3/4, 3/4, 1/4) along each side."""
    for axis in (-2, -1):
        low = 0.75 * field + 0.25 * _shifted(field, axis, 1)
        high = 0.75 * field + 0.25 * _shifted(field, axis, -1)
        shape = [side * 2 if i == field.ndim + axis else side for i, side in enumerate(field.shape)]
        field = torch.stack([low, high], 4 if axis == -1 else 3).reshape(shape)
    return field[..., : size[0], : size[1]]


def _gathered(field: Tensor) -> Tensor:
    """The adjoint of `_enlarged`."""
    field = _even(field)
    for axis in (-2, -1):
        low, high = (field[..., end::2] if axis == -1 else field[..., end::2, :] for end in (0, 1))
        field = 0.75 * (low + high) + 0.25 * (_shifted(low, axis, -1) + _shifted(high, axis, 1))
    return field


def _shifted(field: Tensor, axis: int, by: int) -> Tensor:
    """Move a field one cell up or down an axis; what comes in is zero."""
    size = field.shape[axis]
    padded = functional.pad(field, (0, 0, 1, 1) if axis == -2 else (1, 1, 0, 0))
    return padded.narrow(axis, 1 - by, size)


def _even(field: Tensor) -> Tensor:
    """Append a row and a column of zeros where the number is odd."""
    return functional.pad(field, (0, field.shape[-1] % 2, 0, field.shape[-2] % 2))


def _dots(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((2, 3), keepdim=True)
