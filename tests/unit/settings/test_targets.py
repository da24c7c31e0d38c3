"""Target rules: which classes of an image are explained, under which rule, and how many."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.settings.explain import Classes, Targets, TopTargets
from pipeline.settings.targets import TargetRules

LOGITS_IN = torch.tensor([[0.1, 0.9, 0.5], [2.0, 1.0, 2.0]])  # the second has a tie: the lower index comes first


def chosen(targets: Targets, labels: list[tuple[int, ...]]) -> list[tuple[int, int, str]]:
    images_B, targets_B, rules = TargetRules.of(targets).chosen(LOGITS_IN, labels)
    return list(zip(images_B.tolist(), targets_B.tolist(), rules, strict=True))


@pytest.mark.parametrize(
    ("targets", "pairs"),
    [
        ("predicted", [(0, 1, "predicted"), (1, 0, "predicted")]),
        ("label", [(0, 2, "label"), (1, 0, "label")]),
        (["predicted", "label"], [(0, 1, "predicted"), (0, 2, "label"), (1, 0, "predicted")]),
        (["label", "predicted"], [(0, 2, "label"), (0, 1, "predicted"), (1, 0, "label")]),
        ("labels", [(0, 2, "label"), (1, 0, "label")]),
        (TopTargets(top=2), [(0, 1, "top"), (0, 2, "top"), (1, 0, "top"), (1, 2, "top")]),
        (Classes(classes=[2, 0, 2]), [(0, 2, "listed"), (0, 0, "listed"), (1, 2, "listed"), (1, 0, "listed")]),
    ],
)
def test_each_rule_chooses_its_classes_once(targets: Targets, pairs: list[tuple[int, int, str]]) -> None:
    assert chosen(targets, [(2,), (0,)]) == pairs


def test_every_label_of_an_image_is_a_target_and_none_twice() -> None:
    labels: list[tuple[int, ...]] = [(2, 1), ()]
    assert chosen("labels", labels) == [(0, 2, "label"), (0, 1, "label")]
    both = [(0, 1, "predicted"), (0, 2, "label"), (1, 0, "predicted")]
    assert chosen(["predicted", "labels"], labels) == both


@pytest.mark.parametrize(
    ("targets", "labels", "trouble"),
    [
        ("predicted", (), ""),
        ("predicted", (1, 2), ""),
        ("label", (1,), ""),
        ("label", (), "no label"),
        ("label", (1, 2), "2 labels, but targets: label needs exactly one"),
        ("labels", (1, 2), ""),
        ("labels", (), "no label"),
        (["predicted", "labels"], (), "no label"),
    ],
)
def test_an_image_that_a_rule_cannot_handle_is_reported(
    targets: Targets, labels: tuple[int, ...], trouble: str
) -> None:
    found = TargetRules.of(targets).trouble(labels)
    assert found.startswith(trouble)
    assert bool(found) == bool(trouble)


def test_only_the_rule_labels_has_no_upper_bound() -> None:
    found = {rule: [n for n in (0, 1, 2, 3, 99) if TargetRules.parse(rule).allow(n)] for rule in ("label", "labels")}
    assert found == {"label": [1], "labels": [1, 2, 3, 99]}
    assert [TargetRules.parse("top 2").allow(n) for n in (1, 2, 3)] == [False, True, False]


@pytest.mark.parametrize(
    ("targets", "text", "least", "most"),
    [
        ("predicted", "predicted", 1, 1),
        (["predicted", "label"], "predicted,label", 1, 2),
        ("labels", "labels", 1, 8),
        (["predicted", "labels"], "predicted,labels", 1, 9),
        (TopTargets(top=5), "top 5", 5, 5),
        (Classes(classes=[7, 3]), "classes 7,3", 2, 2),
    ],
)
def test_rules_convert_to_one_line_and_back(targets: Targets, text: str, least: int, most: int) -> None:
    rules = TargetRules.of(targets)
    assert (str(rules), rules.least, rules.most) == (text, least, most)
    assert TargetRules.parse(text) == rules


@pytest.mark.parametrize("text", ["", "both", "predicted,both", "top many", "classes a"])
def test_a_line_without_rules_is_refused(text: str) -> None:
    if text:
        with pytest.raises(ValueError, match=r"is not a target rule|invalid literal"):
            TargetRules.parse(text)
    else:
        assert TargetRules.parse(text).most == 0


def test_classes_that_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="class 9, but the model has 3 classes"):
        TargetRules.of(Classes(classes=[1, 9])).check(3)
    with pytest.raises(ConfigError, match="top 4, but the model has 3 classes"):
        TargetRules.of(TopTargets(top=4)).check(3)
    TargetRules.of(TopTargets(top=3)).check(3)
