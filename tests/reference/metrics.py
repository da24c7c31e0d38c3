"""Reference implementations of the metrics, written from their formulas with plain loops in double precision."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from reference.base import inside, target_output
from torch import Tensor, nn

from pipeline.model import noise

Boxes = list[list[float]]
Map = list[list[float]]


def order(heatmap_HW: Tensor) -> list[tuple[int, int]]:
    """Return the pixels from the most to the least relevant; tied pixels in raster order."""
    height, width = heatmap_HW.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    return sorted(places, key=lambda place: -float(heatmap_HW[place]))


def masked_confidence(model: nn.Module, image_CHW: Tensor, target: int, heatmap_HW: Tensor, fill_CHW: Tensor) -> float:
    return target_output(model, image_CHW * heatmap_HW + fill_CHW * (1 - heatmap_HW), target)


def top_mask(heatmap_HW: Tensor, share: float) -> Tensor:
    mask_HW = torch.zeros_like(heatmap_HW)
    for place in order(heatmap_HW)[: round(share * heatmap_HW.numel())]:
        mask_HW[place] = 1
    return mask_HW


def average_gain(clean: float, masked: float) -> float:
    return 0.0 if clean == 1 else max(0.0, masked - clean) / (1 - clean)


def curve(
    model: nn.Module, image_CHW: Tensor, target: int, heatmap_HW: Tensor, fill_CHW: Tensor, *, steps: int, insert: bool,
    logit: bool = False,
) -> list[float]:  # fmt: skip
    """Return the outputs while the top pixels of one image are written into the other."""
    ranked, pixels = order(heatmap_HW), heatmap_HW.numel()
    start, other = (fill_CHW, image_CHW) if insert else (image_CHW, fill_CHW)
    scores = []
    for k in range(steps + 1):
        shown_CHW = start.clone()
        for i, j in ranked[: round(k * pixels / steps)]:
            shown_CHW[:, i, j] = other[:, i, j]
        scores.append(target_output(model, shown_CHW, target, logit=logit))
    return scores


def area(scores: list[float]) -> float:
    return sum((one + next_) / 2 for one, next_ in itertools.pairwise(scores)) / (len(scores) - 1)


def impute(image_CHW: Tensor, missing: set[tuple[int, int]]) -> Tensor:
    """Impute the removed pixels by solving their linear system with a dense matrix."""
    _, height, width = image_CHW.shape
    unknowns = sorted(missing)
    index = {place: n for n, place in enumerate(unknowns)}
    matrix, right = np.zeros((len(unknowns), len(unknowns))), np.zeros((len(unknowns), image_CHW.shape[0]))
    for n, (i, j) in enumerate(unknowns):
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                near = (i + di, j + dj)
                if (di, dj) == (0, 0) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 6 if di == 0 or dj == 0 else 1 / 12
                matrix[n, n] += weight
                if near in index:
                    matrix[n, index[near]] -= weight
                else:
                    right[n] += weight * image_CHW[:, near[0], near[1]].numpy()
    filled_CHW = image_CHW.clone()
    for (i, j), values in zip(unknowns, np.linalg.solve(matrix, right), strict=True):
        filled_CHW[:, i, j] = torch.from_numpy(values)
    return filled_CHW


def road_means(
    model: nn.Module,
    image_CHW: Tensor,
    target: int,
    heatmap_HW: Tensor,
    percentiles: list[float],
    noise_CHW: Callable[[float], Tensor],
) -> tuple[float, float]:
    """Return the mean confidence after removing the least, and the most, relevant pixels."""
    ranked = order(heatmap_HW)
    means = []
    for places in (ranked[::-1], ranked):
        scores = []
        for percent in percentiles:
            missing = set(places[: round(percent / 100 * len(ranked))])
            filled_CHW = impute(image_CHW, missing)
            for i, j in missing:
                filled_CHW[:, i, j] += noise_CHW(percent)[:, i, j]
            scores.append(target_output(model, filled_CHW, target))
        means.append(sum(scores) / len(scores))
    return means[0], means[1]


def pearson(one_HW: Tensor, other_HW: Tensor) -> float:
    one, other = one_HW.flatten().tolist(), other_HW.flatten().tolist()
    mean_one, mean_other = sum(one) / len(one), sum(other) / len(other)
    shared = sum((a - mean_one) * (b - mean_other) for a, b in zip(one, other, strict=True))
    spread = math.sqrt(sum((a - mean_one) ** 2 for a in one) * sum((b - mean_other) ** 2 for b in other))
    return math.nan if spread == 0 else shared / spread


def coherency(heatmap_HW: Tensor, masked_heatmap_HW: Tensor) -> float:
    value = pearson(heatmap_HW, masked_heatmap_HW)
    return 0.0 if math.isnan(value) else (value + 1) / 2


def harmonic(*parts: float) -> float:
    return 0.0 if min(parts) <= 0 else len(parts) / sum(1 / part for part in parts)


def perturbations(kind: str, image_CHW: Tensor, seed: int, samples: int, sigma: float, side: float) -> list[Tensor]:
    """Draw the perturbations I that camatlas draws for an image without a key; the fill is zero."""
    _, height, width = image_CHW.shape
    changes = []
    for step in range(samples):
        random = noise.Stream(seed, "", f"infidelity {step}")
        if kind == "square":
            length = round(side * min(height, width))
            top, left = random.below(height - length + 1), random.below(width - length + 1)
            change_CHW = torch.zeros_like(image_CHW)
            for i in range(top, top + length):
                for j in range(left, left + length):
                    change_CHW[:, i, j] = image_CHW[:, i, j]
        else:
            drawn_CHW = sigma * random.normal(*image_CHW.shape).double()
            change_CHW = drawn_CHW if kind == "gaussian" else image_CHW - drawn_CHW
        changes.append(change_CHW)
    return changes


def infidelity(
    model: nn.Module, image_CHW: Tensor, target: int, heatmap_HW: Tensor, changes: list[Tensor], *, scale: bool
) -> float:
    clean = target_output(model, image_CHW, target, logit=True)
    actual = [clean - target_output(model, image_CHW - change, target, logit=True) for change in changes]
    predicted = [float((change * heatmap_HW).sum()) for change in changes]
    factor = 1.0
    if scale:
        strength = sum(value**2 for value in predicted)
        factor = sum(a * b for a, b in zip(predicted, actual, strict=True)) / strength if strength else 1.0
    return sum((factor * a - b) ** 2 for a, b in zip(predicted, actual, strict=True)) / len(changes)


def max_sensitivity(heatmap_HW: Tensor, changed: list[Tensor]) -> float:
    norm = math.sqrt(sum(value**2 for value in heatmap_HW.flatten().tolist()))
    differences = [
        math.sqrt(sum(value**2 for value in (other_HW - heatmap_HW).flatten().tolist())) for other_HW in changed
    ]
    return max(differences) / (norm or 1.0)


def top_n_in_box(heatmap_HW: Tensor, boxes: Boxes) -> float:
    ranked = order(heatmap_HW)
    size = sum(inside(boxes, i, j) for i, j in ranked)
    return 0.0 if not heatmap_HW.any() else sum(inside(boxes, i, j) for i, j in ranked[:size]) / size


def miou(heatmap_HW: Tensor, boxes: Boxes, share: float) -> float:
    ranked = order(heatmap_HW)
    top = set(ranked[: round(share * len(ranked))])
    truth = {place for place in ranked if inside(boxes, *place)}
    return 0.0 if not heatmap_HW.any() else len(top & truth) / len(top | truth)


def box_iou(mask: list[list[bool]], boxes: Boxes, *, all_regions: bool) -> float:
    """Find regions by flood fill and return the best IoU of their boxes; boxes in whole pixels, ends included."""
    height, width = len(mask), len(mask[0])
    unvisited = {(i, j) for i in range(height) for j in range(width) if mask[i][j]}
    regions = []
    for i in range(height):
        for j in range(width):
            if (i, j) not in unvisited:
                continue
            unvisited.remove((i, j))
            region, front = [(i, j)], [(i, j)]
            while front:
                y, x = front.pop()
                for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                    if near in unvisited:
                        unvisited.remove(near)
                        region.append(near)
                        front.append(near)
            regions.append(region)
    if not regions:
        return 0.0
    if not all_regions:
        regions = [max(regions, key=len)]
    drawn = [_around(region) for region in regions]
    truth = [_around([(i, j) for i in range(height) for j in range(width) if inside([box], i, j)]) for box in boxes]
    return max(_iou(one, other) for one in drawn for other in truth)


def _around(region: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    rows, columns = [i for i, _ in region], [j for _, j in region]
    return min(columns), min(rows), max(columns), max(rows)


def _iou(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    cells = [{(i, j) for i in range(y0, y1 + 1) for j in range(x0, x1 + 1)} for x0, y0, x1, y1 in (one, other)]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1])


def sparsity(heatmap_HW: Tensor) -> float:
    values = sorted(heatmap_HW.flatten().tolist())
    n, total = len(values), sum(values)
    return math.nan if total == 0 else sum((2 * i - n - 1) * a for i, a in enumerate(values, 1)) / (n * total)


def entropy(heatmap_HW: Tensor) -> float:
    values = heatmap_HW.flatten().tolist()
    total = sum(values)
    return math.nan if total == 0 else -sum(a / total * math.log(a / total) for a in values if a > 0)


def energy_outside_centre(heatmap_HW: Tensor, side: float) -> float:
    height, width = heatmap_HW.shape
    rows, columns = (round(length * (1 - side) / 2) for length in (height, width))
    total = within = 0.0
    for i in range(height):
        for j in range(width):
            total += float(heatmap_HW[i, j])
            within += float(heatmap_HW[i, j]) * (rows <= i < height - rows and columns <= j < width - columns)
    return math.nan if total == 0 else 1 - within / total


def total_variation(heatmap_HW: Tensor) -> float:
    height, width = heatmap_HW.shape
    down = sum(abs(float(heatmap_HW[i + 1, j] - heatmap_HW[i, j])) for i in range(height - 1) for j in range(width))
    right = sum(abs(float(heatmap_HW[i, j + 1] - heatmap_HW[i, j])) for i in range(height) for j in range(width - 1))
    return (down + right) / (height * width)
