"""Names and targets that do not fit the model, or are labels of another form, are refused by one sentence."""

import re
from typing import Any

import pandas as pd
import pytest
import torch
from nets import ToyNet, images
from torch import nn
from torch.nn import functional
from torchvision.models import ResNet18_Weights

import camatlas
import pipeline
from pipeline.data.sources.classes import shared_names
from pipeline.explain.explanations import Explanations
from pipeline.explain.given_classes import name_notes, names_of_classes

NAMES = ("ant", "bee", "cat", "dog")


def explained(count: int = 3, model: nn.Module | None = None, **options: Any) -> Explanations:
    return pipeline.explain(model or ToyNet(0), images(0, count), layer="features.3", **options)


@pytest.mark.parametrize(
    "given",
    [
        NAMES, [*NAMES], iter(NAMES), dict(enumerate(NAMES)), {3: "dog", 1: "bee", 0: "ant", 2: "cat"},
        {"3": "dog", "1": "bee", "0": "ant", "2": "cat"}, {"dog": 3, "ant": 0, "cat": 2, "bee": 1},
        {"dog": torch.tensor([3]).numpy()[0], "ant": 0, "cat": 2, "bee": 1}, dict(enumerate(NAMES)).values(),
    ],
)  # fmt: skip
def test_names_come_in_any_usual_form(given: Any) -> None:
    assert explained(class_names=given).class_names == NAMES


def test_no_names_are_none_and_names_of_digits_are_names() -> None:
    assert names_of_classes(()) == names_of_classes({}) == names_of_classes(None) == ()
    assert names_of_classes({"0": 0, "1": 1}) == names_of_classes({"1": 1, "0": 0}) == ("0", "1")
    assert names_of_classes({"1": 0, "10": 1, "2": 2}) == ("1", "10", "2")  # folders named from 1 on
    assert names_of_classes({0: "1", 1: "0"}) == names_of_classes(["1", "0"]) == ("1", "0")
    assert names_of_classes({"0": "7", "1": "5"}) == ("7", "5")


def test_a_series_is_read_by_its_index() -> None:
    assert names_of_classes(pd.Series(NAMES)) == NAMES
    assert names_of_classes(pd.Series({3: "dog", 1: "bee", 0: "ant", 2: "cat"})) == NAMES
    assert names_of_classes(pd.Series({"dog": 3, "ant": 0, "cat": 2, "bee": 1})) == NAMES
    assert names_of_classes(pd.Series(NAMES)[::-1]) == NAMES
    assert names_of_classes(pd.Index(NAMES)) == NAMES


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([*NAMES, "eel"], "class_names: it names 5 classes, but the model has 4 (give the names of"),
        (NAMES[:3], "it names 3 classes, but the model has 4"),
        ({0: "a", 1: "b"}, "it names 2 classes, but the model has 4"),
        (set(NAMES), "a set has no order"), (frozenset(NAMES), "a set has no order"),
        ("ants", "str is no list of names"), (4, "int is no list of names"),
        ({0: "ant", 1: "bee", 2: "cat", 4: "dog"}, "run from 0 without gaps, but 3 is missing; they are 0, 1, 2, 4"),
        ({1: "ant", 2: "bee", 3: "cat", 4: "dog"}, "but 0 is missing; they are 1, 2, 3, 4"),
        ({"ant": 0, "bee": 1, "cat": 2, "dog": 2}, "class 2 has several names: 'cat' and 'dog'"),
        ({"a": "b"}, "neither the keys nor the values are all indices"),
        ({0: 1}, "class 0 is called '1', or that class 1 is called '0'"),
        ({"0": 1, "1": 2}, "keys and its values are all numbers, so that {'0': 1} may say that class 0 is called '1'"),
        ({"2": 2, "1": 0, "0": 1}, "so that {'1': 0} may say"), ({"1": "0", "0": "1"}, "so that {'1': '0'} may say"),
        (pd.Series(NAMES, index=[1, 2, 3, 4]), "but 0 is missing; they are 1, 2, 3, 4"),
        (pd.Series(NAMES, index=[0, 1, 2, 2]), "class 2 has several names: 'cat' and 'dog'"),
        (pd.Series(NAMES, index=["a", "b", "c", "d"]), "neither the keys nor the values are all indices"),
        (pd.DataFrame({name: [0] for name in NAMES}), "a DataFrame is a table"),
        ({"a": True}, "neither the keys nor the values"), ([1, 2, 3, 4], "the name of class 0 is 1, which is no text"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        explained(class_names=given)


def test_classes_that_share_a_name_are_noted() -> None:
    with pytest.warns(
        UserWarning, match="class_names: classes 0 and 2 have the same name, 'ant', so that pictures"
    ) as told:
        explained(class_names=["ant", "bee", "ant", "dog"])
    assert len(told) == 1
    assert shared_names(["a"] * 7 + ["b"]) == "classes 0, 1, 2, 3, 4 and 2 more have the same name, 'a'"
    imagenet = list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    imagenet[134] = imagenet[517] = "crane"  # as the tables of other tools have it
    assert [*name_notes(tuple(imagenet)), *name_notes(NAMES), *name_notes(())] == []


def test_names_of_weights_are_not_those_of_another_head() -> None:
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    weights = ResNet18_Weights.IMAGENET1K_V1
    assert pipeline.explain(ToyNet(0), picture, layer="features.3", transform=weights).class_names == ()
    wide = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))
    assert pipeline.explain(wide, picture, layer="0", transform=weights).class_names[0] == "tench"


LABELS = torch.tensor([1, 3, 0])


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (functional.one_hot(LABELS, 4), "[0, 1, 0, 0]; they look like one-hot labels: give targets.argmax(1)"),
        (functional.one_hot(LABELS % 3, 3).tolist(), "they look like one-hot labels"),
        ([[0, 1, 1, 0]] * 3, "labels of 0 and 1 for each class: give the indices of the classes of each image, here"),
        ([[0, 1], [2, 2], [1, 3]], "name a class once for each image, but those of image 1 are [2, 2]"),
    ],
)  # fmt: skip
def test_a_class_twice_and_one_hot_labels_are_refused(targets: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        explained(targets=targets)


def test_for_two_classes_one_hot_labels_are_told_from_both_classes() -> None:
    torch.manual_seed(0)
    two = nn.Sequential(ToyNet(0), nn.Linear(4, 2))
    options: dict[str, Any] = {"methods": ["gradcam"], "layer": "0.features.3"}
    both = pipeline.explain(two, images(0, 3), targets=[[0, 1]] * 3, **options)
    assert both.targets.tolist() == [0, 1] * 3
    with pytest.raises(ValueError, match=r"\[1, 0\] may be a one-hot label.*targets.argmax\(1\).*\n*") as told:
        pipeline.explain(two, images(0, 3), targets=functional.one_hot(LABELS % 2, 2), class_names=NAMES, **options)
    assert "it names 4 classes, but the model has 2" in str(told.value)
    assert explained(1, targets=[[1, 0]]).targets.tolist() == [1, 0]


def test_embeddings_name_the_classes() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    options: dict[str, Any] = {"layer": "1", "task": camatlas.Similarity(NAMES, torch.eye(5)[:4]), "targets": [0]}
    assert pipeline.explain(encoder, images(0, 1), **options).class_names == NAMES
    assert pipeline.explain(encoder, images(0, 1), class_names=NAMES, **options).class_names == NAMES
    with pytest.raises(ValueError, match="class_names: it calls class 0 'bee', the embeddings 'ant'"):
        pipeline.explain(encoder, images(0, 1), class_names=["bee", "ant", "cat", "dog"], **options)
