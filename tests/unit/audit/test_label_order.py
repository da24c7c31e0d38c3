"""Labels in another order than the model's classes are noticed; poor models and hard classes are no reason."""

from collections import Counter

import numpy as np
import pytest

from pipeline.audit.label_order import LabelOrder


def order(labels: list[int], predicted: list[int], confidence: float = 0.8) -> LabelOrder:
    return LabelOrder(Counter(zip(labels, predicted, strict=True)), confidence * len(labels))


def drawn(classes: int, images: int, right: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return classes, and predictions that are right with a probability and else any class."""
    rng = np.random.default_rng(seed)
    true_I = rng.integers(0, classes, images)
    predicted_I = np.where(rng.random(images) < right, true_I, rng.integers(0, classes, images))
    return true_I.tolist(), predicted_I.tolist()


@pytest.mark.parametrize(("classes", "images"), [(2, 30), (3, 60), (10, 200), (100, 3000)])
@pytest.mark.parametrize("seed", range(3))
def test_labels_in_another_order_are_noticed(classes: int, images: int, seed: int) -> None:
    true, predicted = drawn(classes, images, 0.9, seed)
    moved = np.random.default_rng(seed).permutation(classes)
    if (moved == np.arange(classes)).sum() >= classes / 2:
        moved = np.roll(np.arange(classes), 1)
    assert order([int(moved[label]) for label in true], predicted).warning()
    assert order(true, predicted).warning() == ""


@pytest.mark.parametrize("by", [1, -1])
def test_labels_that_count_from_another_number_are_noticed(by: int) -> None:
    true, predicted = drawn(9, 300, 0.8)
    found = order([label + by for label in true], predicted)
    assert len(found.moved()) == 9
    assert "another order" in found.warning()


def test_labels_of_few_classes_of_a_large_model_are_noticed() -> None:
    true, predicted = drawn(10, 300, 0.9)
    columns = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    found = order(true, [columns[one] for one in predicted])
    assert found.moved() == {label: column for label, column in enumerate(columns) if label}


def test_many_labels_with_few_images_each_are_judged_together() -> None:
    true, predicted = drawn(1000, 64, 0.75)
    unrelated = np.random.default_rng(1).permutation(1000)
    found = order([int(unrelated[label]) for label in true], predicted, confidence=0.4)  # as of a small network
    assert not found.moved()
    assert "nothing to do" in found.warning()
    assert "0 of 64 images" in found.warning()
    assert order([0, 1, *range(2, 80)], [0, 1, *range(102, 180)]).warning()  # two are right by accident
    assert order(true, predicted).warning() == ""


def test_labels_that_are_finer_than_the_classes_are_noticed() -> None:
    true, predicted = drawn(10, 300, 0.9)
    assert "nothing to do" in order(true, [one // 2 for one in predicted]).warning()


@pytest.mark.parametrize("right", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_a_poor_model_is_no_reason(right: float, classes: int) -> None:
    for seed in range(5):
        assert order(*drawn(classes, 2000, right, seed)).warning() == ""


def test_a_model_that_is_not_trained_is_no_reason() -> None:
    true, _ = drawn(10, 2000, 0.0)
    for one in ([3] * len(true), [3 + label % 2 for label in true]):
        assert order(true, one).warning() == ""
    assert order(*drawn(1000, 500, 0.0), confidence=0.002).warning() == ""


def test_two_confused_classes_are_no_reason() -> None:
    true, predicted = drawn(10, 1000, 0.95)
    swapped = {3: 5, 5: 3}
    assert order(true, [swapped.get(one, one) for one in predicted]).warning() == ""
    assert order([4] * 50, [7] * 50).warning() == ""


def test_the_sentence_names_classes_and_counts_the_others() -> None:
    found = order([0] * 10 + [1] * 10, [1] * 10 + [0] * 10)
    assert "1 (dog) for label 0 (cat), 0 (cat) for label 1 (dog); " in found.warning(["cat", "dog"].__getitem__)
    assert "1 for label 0, 0 for label 1; " in found.warning()
    more = order(
        [label for label in range(5) for _ in range(10)], [(label + 1) % 5 for label in range(5) for _ in range(10)]
    )
    assert ", and so on for 5 labels; " in more.warning()


def test_orders_add_up_and_tell_whether_they_are_enough() -> None:
    half = order([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)
    assert (half.is_enough(), half.warning()) == (False, "")
    whole = half.with_more(half.pairs, half.confidence)
    assert (whole.images, whole.right, whole.confidence, whole.is_enough()) == (16, 0, pytest.approx(12.8), True)
    assert whole.warning()
    assert order(*drawn(1000, 64, 0.5)).is_enough()
    assert not order(*drawn(1000, 64, 0.5), confidence=0.1).is_enough()  # nothing could be told of such a model
    assert not order(*drawn(10, 200, 0.1)[:2], confidence=0.1).is_enough()
    assert LabelOrder().warning() == ""
