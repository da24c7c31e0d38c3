"""Reference implementations of the metrics of parts, written from their definitions with plain loops.

A map, or a mask of parts, is a list of rows. `values` are those of parts 1, 2, ...
"""

import math
from collections.abc import Callable

Map = list[list[float]]
Index = list[list[int]]


def region(index: Index, reach: int) -> Index:
    """Return the part that each pixel belongs to: the nearest within reach, of equally near ones the first."""
    own = [(i, j, part) for i, line in enumerate(index) for j, part in enumerate(line) if part]
    found = []
    for i in range(len(index)):
        line = []
        for j in range(len(index[0])):
            near = [((i - k) ** 2 + (j - m) ** 2, part) for k, m, part in own]
            within = [one for one in near if one[0] <= reach**2]
            line.append(min(within)[1] if within else 0)
        found.append(line)
    return found


def pixels_of(saliency: Map, regions: Index, part: int) -> list[float]:
    return [saliency[i][j] for i in range(len(regions)) for j in range(len(regions[0])) if regions[i][j] == part]


def mean_of(saliency: Map, regions: Index, part: int) -> float:
    inside = pixels_of(saliency, regions, part)
    return math.fsum(inside) / len(inside)


def mass(saliency: Map, index: Index, values: list[float], reach: int = 4) -> float:
    """Compare the shares of the map's sum on the parts with the shares of the positive values."""
    positive = [max(value, 0.0) for value in values]
    if not sum(positive):
        return math.nan
    total = math.fsum(value for line in saliency for value in line)
    if not total:
        return 0.0
    regions = region(index, reach)
    shared = 0.0
    for part, value in enumerate(positive, 1):
        shared += min(math.fsum(pixels_of(saliency, regions, part)) / total, value / sum(positive))
    return shared


def ranks(numbers: list[float]) -> list[float]:
    """Rank numbers from 1; equal ones get the mean of their ranks."""
    ordered = sorted(numbers)
    return [sum(k + 1 for k, other in enumerate(ordered) if other == one) / ordered.count(one) for one in numbers]


def rank(saliency: Map, index: Index, values: list[float], reach: int = 4) -> float:
    """Correlate the ranks of mean saliency and value, of the background and the parts."""
    regions = region(index, reach)
    of_values = ranks([0.0, *values])
    if len(set(of_values)) == 1 or not pixels_of(saliency, regions, 0):
        return math.nan
    of_means = ranks([mean_of(saliency, regions, part) for part in range(len(values) + 1)])
    if len(set(of_means)) == 1:
        return 0.0
    middle = sum(of_values) / len(of_values)
    shared = sum((a - middle) * (b - middle) for a, b in zip(of_means, of_values, strict=True))
    spread = sum((a - middle) ** 2 for a in of_means) * sum((b - middle) ** 2 for b in of_values)
    return shared / math.sqrt(spread)


def sign(raw: Map, index: Index, values: list[float], reach: int = 4, threshold: float = 0.05) -> float:
    """Count the parts with a large value on which the mean of the raw map has its sign."""
    if not any(value < 0 for line in raw for value in line):
        return math.nan
    regions = region(index, reach)
    largest = max(abs(value) for value in values)
    hits = []
    for part, value in enumerate(values, 1):
        if abs(value) > threshold * largest:
            mean = mean_of(raw, regions, part)
            hits.append((mean > 0 and value > 0) or (mean < 0 and value < 0))
    return sum(hits) / len(hits) if hits else math.nan


REFERENCES: dict[str, Callable[..., float]] = {"mass": mass, "rank": rank, "sign": sign}
