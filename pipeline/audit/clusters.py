"""Clusters of maps: groups of the images of one class by their maps (SpRAy).

Spectral relevance analysis, Lapuschkin et al., Nature Communications 2019. Maps on a common coarse grid, of unit sum,
are clustered by the spectrum of their neighbourhood graph (10 nearest neighbours, symmetric normalised Laplacian). The
largest eigengap gives the number of clusters. Clusters are graded `seen`: they are shown, and are not findings.

Legend: B images of a class, P cells, K clusters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.checked import Checked, Verdict, not_checked
from pipeline.audit.findings import Effect
from pipeline.audit.maps import Maps
from pipeline.audit.statistics import RARE, Indices, Numbers, wilson
from pipeline.audit.values import Place, Values

MAX_CLASSES, MAX_IMAGES = 12, 500
NEIGHBOURS, MAX_CLUSTERS = 10, 8
RESAMPLES, RESAMPLED, NEAREST = 10, 0.9, 4
MAX_EIGENVALUE_RATIO = 0.2
"""An eigengap counts only when the eigenvalue below it is at most this share of the one above it. A single cluster has
gaps too, but its eigenvalues grow at most as 1 : 4 : 9, so that this share is at least 0.25."""

MIN_STABILITY = 0.5
"""Clusters with a lower stability are not interpreted."""

NAME = "Clusters of maps within a class"
SMALL_SHARE, NARROW_RATIO = 0.25, 0.7
"""A cluster is flagged when it holds less than SMALL_SHARE of the images of its class, and its width is less than
NARROW_RATIO times that of the class."""


@dataclass(frozen=True)
class Split:
    """Clusters of one class.

    Attributes:
        labels_B: cluster of each image; 0 is the largest cluster.
        embedding_BK: spectral embedding of the images.
        gap: the eigengap that determined the number of clusters.
    """

    labels_B: Indices
    embedding_BK: Numbers
    gap: float


def strategies(values: Values, maps: Maps, methods: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Cluster the mean maps of the methods for the largest classes; returns one entry per class."""
    classes, counts = np.unique(values.classes_I, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    chosen = [int(classes[i]) for i in order if counts[i] >= RARE and classes[i] >= 0][:MAX_CLASSES]
    return [entry for index in chosen if (entry := _class(values, maps, methods, index, seed)) is not None]


def check(entries: Sequence[Mapping[str, Any]]) -> Checked:
    """Return the line about clusters, whose grade stays `seen`: they are shown, and not tested."""
    if not entries:
        return not_checked("clusters", NAME, "clusters", f"no class has {RARE} images with a map that is not constant")
    several = [entry for entry in entries if len(entry["clusters"]) > 1]
    stable = [entry for entry in several if entry["stability"] >= MIN_STABILITY]
    verdict: Verdict = "found" if stable else "undecided" if several else "not found"
    effect, control = _errors_of(stable) if stable else (None, None)
    if effect is None:
        share = len(several) / len(entries)
        effect = Effect("classes whose maps form several clusters", share, None, None, len(entries))
    named = f" ({', '.join(entry['name'] for entry in several)})" if several else ""
    unstable = ", unstable in all of them" if several and not stable else ""
    return Checked(
        "clusters", NAME, verdict, "clusters", sum(entry["images"] for entry in entries), effect, control,
        "grade: seen, not tested", f"{len(several)} of {len(entries)} classes{named}{unstable}",
        "inspect the images of the clusters" if several else "",
    )  # fmt: skip


def _errors_of(entries: Sequence[Mapping[str, Any]]) -> tuple[Effect | None, Effect | None]:
    """Return the errors in the cluster that differs most from the rest of its class, and those in the rest."""
    pairs = [pair for entry in entries for place in range(len(entry["clusters"])) if (pair := _pair(entry, place))]
    return max(pairs, key=lambda pair: abs(pair[0].value - pair[1].value), default=(None, None))


def _pair(entry: Mapping[str, Any], place: int) -> tuple[Effect, Effect] | None:
    mine = entry["clusters"][place]
    others = [cluster for number, cluster in enumerate(entry["clusters"]) if number != place and cluster["judged"]]
    judged = sum(cluster["judged"] for cluster in others)
    if not mine["judged"] or not judged:
        return None
    wrong = round(sum(cluster["judged"] * cluster["errors"] for cluster in others))
    what = f"wrong predictions in cluster {place + 1} of '{entry['name']}'"
    return (
        Effect(what, mine["errors"], mine["low"], mine["high"], mine["judged"]),
        Effect("the other clusters of the class", wrong / judged, *wilson(wrong, judged), judged),
    )


def _class(values: Values, maps: Maps, methods: Sequence[str], index: int, seed: int) -> dict[str, Any] | None:
    rows = np.flatnonzero(values.classes_I == index)
    rows = rows[:: max(1, -(-len(rows) // MAX_IMAGES))]
    heat_Buv = maps.consensus(methods, rows)
    shown = heat_Buv.any((1, 2))
    rows, cells_BP = rows[shown], heat_Buv[shown].reshape(int(shown.sum()), -1).astype(np.float64)
    if len(rows) < RARE:
        return None
    cells_BP /= cells_BP.sum(1, keepdims=True)
    clusters = split(cells_BP, seed)
    return {
        "class": index,
        "images": len(rows),
        "separation": _separation(clusters),
        "stability": _stability(cells_BP, clusters, seed),
        "clusters": [
            _cluster(values, rows, cells_BP, clusters, cluster) for cluster in range(clusters.labels_B.max() + 1)
        ],
    }


def split(cells_BP: Numbers, seed: int) -> Split:
    """Cluster maps of unit sum by the spectrum of their neighbourhood graph."""
    from scipy.linalg import eigh  # costs time to import
    from sklearn.cluster import KMeans
    from sklearn.neighbors import kneighbors_graph

    near = kneighbors_graph(cells_BP, min(NEIGHBOURS, len(cells_BP) - 1)).toarray()
    joined_BB = np.maximum(near, near.T)
    scale_B = 1 / np.sqrt(joined_BB.sum(1))
    laplacian_BB = np.eye(len(cells_BP)) - scale_B[:, None] * joined_BB * scale_B[None]
    values_E, vectors_BE = eigh(laplacian_BB, subset_by_index=[0, min(MAX_CLUSTERS, len(cells_BP) - 1)])
    gaps = np.where(values_E[:-1] <= MAX_EIGENVALUE_RATIO * values_E[1:], np.diff(values_E), 0)
    count = int(gaps.argmax()) + 1
    embedding_BK = vectors_BE[:, :count] / np.maximum(
        np.linalg.norm(vectors_BE[:, :count], axis=1, keepdims=True), 1e-12
    )
    labels_B = KMeans(count, n_init=4, random_state=seed).fit_predict(embedding_BK)
    order = np.argsort(-np.bincount(labels_B, minlength=count), kind="stable")
    return Split(np.argsort(order)[labels_B], embedding_BK, float(gaps[count - 1]))


def _separation(clusters: Split) -> float | None:
    """Return the silhouette score of the clusters in the embedding, in [-1, 1]; None for a single cluster."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(clusters.embedding_BK, clusters.labels_B)) if clusters.labels_B.max() else None


def _stability(cells_BP: Numbers, clusters: Split, seed: int) -> float:
    """Return the mean adjusted Rand index between the clusters and those of subsamples; 1 means identical clusters.

    Subsamples are drawn without replacement: an image drawn twice would be its own nearest neighbour.
    """
    from sklearn.metrics import adjusted_rand_score

    random = np.random.default_rng(seed)
    scores = []
    for _ in range(RESAMPLES):
        drawn = np.sort(random.permutation(len(cells_BP))[: round(RESAMPLED * len(cells_BP))])
        scores.append(adjusted_rand_score(clusters.labels_B[drawn], split(cells_BP[drawn], seed).labels_B))
    return float(np.mean(scores))


def _cluster(values: Values, rows: Indices, cells_BP: Numbers, clusters: Split, cluster: int) -> dict[str, Any]:
    mine_B = clusters.labels_B == cluster
    own = rows[mine_B]
    correct = values.correct_I[own]
    known = correct[np.isfinite(correct)]
    low, high = wilson(int((1 - known).sum()), len(known))
    centre_P, width = cells_BP[mine_B].mean(0), _width(cells_BP[mine_B])
    distances = ((cells_BP[mine_B] - centre_P) ** 2).sum(1)
    narrow = width / _width(cells_BP) if _width(cells_BP) > 0 else 1.0
    side = round(len(centre_P) ** 0.5)
    return {
        "images": len(own),
        "judged": len(known),
        "errors": float(1 - known.mean()) if len(known) else None,
        "low": low,
        "high": high,
        "mean_map": (centre_P / max(centre_P.max(), 1e-12)).reshape(side, side).tolist(),
        "width": narrow,
        "flagged": len(own) < SMALL_SHARE * len(rows) and narrow < NARROW_RATIO,
        "nearest": [_place(values, own[i]) for i in np.argsort(distances, kind="stable")[:NEAREST]],
    }


def _width(cells_BP: Numbers) -> float:
    """Return the mean distance of the maps to their mean."""
    return float(np.sqrt(((cells_BP - cells_BP.mean(0)) ** 2).sum(1)).mean())


def _place(values: Values, row: int) -> Place:
    return values.places[row]
