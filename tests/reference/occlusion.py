"""Reference implementation of occlusion_agreement: window by window, pixel by pixel, in double precision."""

from reference.base import target_output
from reference.metrics import impute
from torch import Tensor, nn


def windows(height: int, width: int, cells: int) -> list[list[tuple[int, int]]]:
    """Return the pixels of every window, two cells wide around the centre of its cell."""

    def span(cell: int, length: int) -> range:
        start, stop = round((cell - 0.5) * length / cells), round((cell + 1.5) * length / cells)
        inside = range(max(0, start), min(length, stop))
        return inside or range(min(max(0, start), length - 1), min(max(0, start), length - 1) + 1)

    return [
        [(i, j) for i in span(row, height) for j in span(column, width)]
        for row in range(cells)
        for column in range(cells)
    ]


def average_ranks(values: list[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def spearman(one: list[float], other: list[float]) -> float:
    first, second = average_ranks(one), average_ranks(other)
    middle = (len(one) + 1) / 2
    shared = sum((a - middle) * (b - middle) for a, b in zip(first, second, strict=True))
    spreads = [sum((a - middle) ** 2 for a in ranks) for ranks in (first, second)]
    return shared / (spreads[0] * spreads[1]) ** 0.5 if min(spreads) > 0 else 0.0


def occlusion_agreement(
    model: nn.Module, image_CHW: Tensor, target: int, heatmap_HW: Tensor, *, cells: int = 8, logit: bool = True
) -> float:
    clean = target_output(model, image_CHW, target, logit=logit)
    losses, energies = [], []
    for window in windows(*heatmap_HW.shape, cells):
        painted_CHW = impute(image_CHW, set(window))
        losses.append(clean - target_output(model, painted_CHW, target, logit=logit))
        energies.append(sum(float(heatmap_HW[place]) for place in window) / len(window))
    positive = [max(0.0, loss) for loss in losses]
    overlap = sum(
        min(energy / sum(energies), loss / sum(positive)) for energy, loss in zip(energies, positive, strict=True)
    )
    return (overlap + spearman([round(energy, 7) for energy in energies], losses)) / 2
