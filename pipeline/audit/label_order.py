"""Order of labels: notices when labels do not number the classes as the model does."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.audit.statistics import wilson

_LEAST_IMAGES = 64
"""Fewest labelled images that are judged together."""
_LEAST_OF_LABEL = 8
"""Fewest images of a label that is judged alone."""
_LEAST_LABELS = 10
"""Fewest labels, where too few images of each are known to judge them alone."""
_DIFFERENT = 0.9
"""Least share of different predictions; a model that confuses classes, or is not trained, repeats its predictions."""
_SURE = 0.2
"""Least mean confidence of a model that is expected to be right more often than by chance."""
_SHOWN = 3
_MEANING = (
    "if so, accuracies, explanations of labels and metrics of labelled boxes are of other classes than meant: compare "
    "the labels with the order of the classes that the model was trained on"
)


@dataclass(frozen=True)
class LabelOrder:
    """Labelled images with one true class, and what the model predicts for them.

    Attributes:
        pairs: number of images by label and predicted class.
        confidence: sum of the confidences of the predicted classes.
    """

    pairs: Mapping[tuple[int, int], int] = field(default_factory=dict)
    confidence: float = 0.0

    def with_more(self, pairs: Mapping[tuple[int, int], int], confidence: float) -> "LabelOrder":
        """Return these images and more, with the sum of the confidences of those."""
        return LabelOrder(Counter(self.pairs) + Counter(pairs), self.confidence + confidence)

    @property
    def images(self) -> int:
        """Number of labelled images."""
        return sum(self.pairs.values())

    @property
    def right(self) -> int:
        """Number of images that are predicted as labelled."""
        return sum(count for (label, predicted), count in self.pairs.items() if label == predicted)

    def is_enough(self) -> bool:
        """Return whether the order can be judged: label by label for two of them, or by a confident model."""
        return len(self._usual()) >= 2 or self._is_confident()

    def moved(self) -> dict[int, int]:
        """Return the class that is predicted for most images of a label instead of it, if labels are in another order.

        A label is judged if most of its images have the same prediction: the 95 % interval of their share lies above
        one half. The labels are in another order if these predictions differ from label to label, and at least half of
        them, and two, are not the label itself. Otherwise the result is empty.
        """
        usual = self._usual()
        moved = {label: predicted for label, predicted in usual.items() if label != predicted}
        different = len(set(usual.values())) >= _DIFFERENT * len(usual)
        return moved if different and len(moved) >= max(2, len(usual) / 2) else {}

    def is_unrelated(self) -> bool:
        """Return whether a confident model is right only as often as labels and predictions agree by chance.

        By chance, c = sum_k n_label(k) * n_predicted(k) / n of n images agree. More than c + 3 sqrt(c) + 2 are no
        chance: three standard deviations of a Poisson number, and two for small ones.
        """
        if not self._is_confident():
            return False
        of_label, of_predicted = (self._counts(place) for place in (0, 1))
        by_chance = sum(of_label[label] * of_predicted[label] for label in of_label) / self.images
        return self.right <= by_chance + 3 * math.sqrt(by_chance) + 2

    def warning(self, name: Callable[[int], str] = str) -> str:
        """Return a sentence if labels do not number the classes as the model does; else "".

        Args:
            name: names a class; a class without a name has its index.
        """
        if moved := self.moved():
            shown = sorted(moved)[:_SHOWN]
            texts = [f"{_named(moved[label], name)} for label {_named(label, name)}" for label in shown]
            more = f", and so on for {len(moved)} labels" if len(moved) > len(shown) else ""
            return (
                f"the labels seem to number the classes in another order than the model, which mostly predicts "
                f"{', '.join(texts)}{more}; {_MEANING}"
            )
        if self.is_unrelated():
            return (
                f"the labels seem to have nothing to do with the classes of the model: it predicts {self.right} of "
                f"{self.images} images as labelled, no more than by chance, with a mean confidence of "
                f"{self.confidence / self.images:.2f}; {_MEANING}"
            )
        return ""

    def _is_confident(self) -> bool:
        """Return whether a model is expected to be right more often than by chance: it is sure of different classes.

        One that is not trained predicts the same classes whatever the image.
        """
        labels, predictions = (len(self._counts(place)) for place in (0, 1))
        is_many = self.images >= _LEAST_IMAGES and labels >= _LEAST_LABELS
        return is_many and self.confidence >= _SURE * self.images and predictions >= labels / 2

    def _counts(self, place: int) -> Counter[int]:
        """Count images by label (0) or by predicted class (1)."""
        found = Counter[int]()
        for pair, count in self.pairs.items():
            found[pair[place]] += count
        return found

    def _usual(self) -> dict[int, int]:
        """Return the prediction that most images of a label have, for labels where that is certain."""
        of_label: dict[int, Counter[int]] = defaultdict(Counter)
        for (label, predicted), count in self.pairs.items():
            of_label[label][predicted] += count
        usual = {}
        for label, predictions in of_label.items():
            (predicted, count), images = predictions.most_common(1)[0], predictions.total()
            low, _ = wilson(count, images)
            if images >= _LEAST_OF_LABEL and low is not None and low > 0.5:
                usual[label] = predicted
        return usual


def _named(index: int, name: Callable[[int], str]) -> str:
    text = name(index)
    return text if text == str(index) else f"{index} ({text})"
