"""What the rows of a run say about independent labels: those of each image, and the classes that the model finds.

A run stores the confidences of the explained classes, of the most likely class, and one label. Which pairs of image and
class are known therefore depends on the targets.

Legend: I images whose labels are known, C classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from pipeline.audit.statistics import Indices, Numbers
from pipeline.audit.values import Flags
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.settings.targets import TargetRules

THRESHOLD = 0.5
"""Confidence above which a class counts as predicted."""

_IMAGES = """
SELECT shard, image_key, any_value(label) AS label, any_value(predicted) AS predicted,
  any_value(confidence) AS confidence, min(target_confidence) AS least
FROM parts WHERE target IS NOT NULL OR error_code = 'no_target' GROUP BY shard, image_key ORDER BY shard, image_key
"""
_PAIRS = """
SELECT shard, image_key, target AS class, any_value(target_confidence) AS confidence,
  any_value(target_rule) AS target_rule FROM parts
WHERE target_confidence IS NOT NULL GROUP BY shard, image_key, target ORDER BY shard, image_key, target
"""


@dataclass(frozen=True)
class LabelPairs:
    """The images whose labels are known, and their pairs with classes.

    Attributes:
        threshold: confidence above which a class counts as predicted.
        left_out: number of images whose labels the rows do not hold.
        listed: the classes of `targets: {classes: ...}`, whose confidences are known for every image; else empty.
        labels: the pairs that are true: columns `image` and `class`.
        stored: the pairs with a known confidence: columns `image`, `class` and `confidence`.
        bounds_I: what the confidence of a class that is not stored cannot exceed.
        strata_I: the most likely class of each image, -1 for none.
    """

    threshold: float
    left_out: int
    listed: tuple[int, ...]
    labels: pd.DataFrame
    stored: pd.DataFrame
    bounds_I: Numbers
    strata_I: Indices

    @property
    def images(self) -> int:
        """Return the number of images whose labels are known."""
        return len(self.bounds_I)

    @property
    def truncated(self) -> int:
        """Return the number of images in which a class that is not stored may be predicted, too."""
        return 0 if self.listed else int((self.bounds_I > self.threshold).sum())

    @property
    def predictions(self) -> pd.DataFrame:
        """Return the stored pairs above the threshold."""
        return self.stored[self.stored["confidence"] > self.threshold]

    def classes(self) -> Indices:
        """Return the classes that are listed, or else those that occur as a label or a prediction."""
        found = [self.labels["class"], self.predictions["class"]]
        classes: Indices = np.array(self.listed, np.int64) if self.listed else np.unique(np.concatenate(found))
        return classes

    def matrix(self, pairs: pd.DataFrame, classes: Indices) -> Any:  # noqa: ANN401 - SciPy has no precise types
        """Return pairs as a sparse matrix of zeros and ones, (I, C); classes are sorted."""
        columns = np.searchsorted(classes, pairs["class"])
        ones = np.ones(len(pairs), np.int64)
        return sparse.csr_matrix((ones, (pairs["image"], columns)), (self.images, len(classes)))

    def scores(self) -> tuple[Numbers, Flags]:
        """Return the confidences of the listed classes, and whether each is a label, (I, C); C is 0 without a list."""
        classes = np.array(self.listed, np.int64)
        scores_IC = np.full((self.images, len(classes)), np.nan)
        if not self.listed:
            return scores_IC, scores_IC.astype(bool)
        scores_IC[self.stored["image"], np.searchsorted(classes, self.stored["class"])] = self.stored["confidence"]
        return scores_IC, self.matrix(self.labels, classes).toarray().astype(bool)


def label_pairs(run: Run) -> LabelPairs:
    """Read the pairs of a run."""
    kind, rules = OutputKind.of(run.manifest), TargetRules.parse(run.manifest.identity.targets)
    images, pairs = run.sql(_IMAGES), run.sql(_PAIRS)
    pairs = pairs.merge(images[["shard", "image_key"]].reset_index(names="image"), on=["shard", "image_key"])
    labels = images["label"].dropna().astype(np.int64).rename("class").rename_axis("image").reset_index()
    if kind.stores_all_labels:
        labels = pairs.loc[pairs["target_rule"] == "label", ["image", "class"]]
    most_likely = images[["predicted", "confidence"]].dropna().rename(columns={"predicted": "class"})
    stored = pd.concat([pairs[["image", "class", "confidence"]], most_likely.rename_axis("image").reset_index()])
    stored = stored.drop_duplicates(["image", "class"]).astype({"image": np.int64, "class": np.int64})
    listed = tuple(sorted(rules.classes))
    if listed:
        labels, stored = labels[labels["class"].isin(listed)], stored[stored["class"].isin(listed)]
    known = np.unique(labels["image"]) if not listed else np.flatnonzero(images["label"].notna())
    number = pd.Series(np.arange(len(known)), index=known)
    predicted = images["predicted"].fillna(-1).to_numpy(np.int64)
    return LabelPairs(
        threshold=max(THRESHOLD, rules.above),
        left_out=len(images) - len(known),
        listed=listed,
        labels=_numbered(labels, number),
        stored=_numbered(stored, number),
        bounds_I=_bounds(images, rules)[known],
        strata_I=predicted[known],
    )


def _numbered(pairs: pd.DataFrame, number: "pd.Series[int]") -> pd.DataFrame:
    """Keep the pairs of images whose labels are known, and number these images."""
    kept = pairs[pairs["image"].isin(number.index)]
    return kept.assign(image=number.loc[kept["image"]].to_numpy()).reset_index(drop=True)


def _bounds(images: pd.DataFrame, rules: TargetRules) -> Numbers:
    """Return what the confidence of a class that is not stored cannot exceed, for each image."""
    known = "least" if rules.top else "confidence"
    bounds_I: Numbers = images[known].fillna(1.0).to_numpy(np.float64)
    return np.minimum(bounds_I, rules.above) if rules.above else bounds_I
