"""Labels that are no classes of the model are refused before the run, where they are known before it."""

from dataclasses import dataclass

import pytest

from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.imagenet import synsets
from pipeline.data.sources.shards import Described, Entry, Shard
from pipeline.errors import ConfigError
from pipeline.model.outputs import Outputs
from pipeline.run.matching import check_classes, check_labels


@dataclass(frozen=True)
class Loaded:
    """What the check reads of a loaded model."""

    classes: int
    outputs: Outputs
    class_names: tuple[str, ...] | None = None


def check(labels: list[str], classes: int = 2, outputs: str = "binary", *, in_folder: bool = False) -> None:
    table = Annotations(ClassTable(("cat", "dog", "owl")), {f"{i}.png": label for i, label in enumerate(labels)})
    annotations = Annotations(folders={"images": table}) if in_folder else table
    check_labels(annotations, Loaded(classes, Outputs(outputs)))  # type: ignore[arg-type]


@pytest.mark.parametrize("in_folder", [False, True])
def test_labels_of_three_classes_do_not_fit_one_logit(in_folder: bool) -> None:
    with pytest.raises(ConfigError, match=r"2 of 6 labels are no class of the model, which has 2 \(0 to 1\).*2"):
        check(["0", "1", "2", "owl", "dog", "cat"], in_folder=in_folder)


def test_labels_of_a_manifest_must_fit_the_model() -> None:
    said = [Described("0"), Described(labels=("1", "2")), Described()]
    entries = tuple(Entry(f"{i}.png", f"/{i}.png", 1, None, each) for i, each in enumerate(said))
    shard = Shard(0, "list[0]", "manifest", "/list.csv", 3, "", 3, entries=entries)
    with pytest.raises(ConfigError, match=r"1 of 3 labels are no class of the model, which has 2"):
        check_labels(Annotations(), Loaded(2, Outputs("softmax")), [shard])  # type: ignore[arg-type]


def test_a_few_wrong_labels_are_failure_rows() -> None:
    check([*["1"] * 199, "2", "no class"])


def test_the_label_of_a_regression_is_a_value() -> None:
    check(["7", "9"], 1, "raw")


def test_without_labels_nothing_is_wrong() -> None:
    check([])


@pytest.mark.parametrize("own", [("cat", "owl", "dog"), ("owl", "dog", "cat"), ("lion", "cat", "dog")])
def test_a_table_in_another_order_than_that_of_the_model_is_refused(own: tuple[str, ...]) -> None:
    annotations = Annotations(ClassTable(("cat", "dog", "owl")))
    with pytest.raises(ConfigError, match=r"data.classes: it contradicts the model, which calls class \d '\w+'"):
        check_classes(annotations, Loaded(3, Outputs(), own))  # type: ignore[arg-type]


@pytest.mark.parametrize("own", [("cat", "dog", "owl"), ("Katze", "Hund", "Eule"), ("cat", "hound", "owl"), None])
def test_a_table_may_call_classes_otherwise(own: tuple[str, ...] | None) -> None:
    check_classes(Annotations(ClassTable(("cat", "dog", "owl"))), Loaded(3, Outputs(), own))  # type: ignore[arg-type]
    check_classes(Annotations(), Loaded(3, Outputs(), own))  # type: ignore[arg-type]


def test_names_of_imagenet_agree_with_the_table_of_imagenet() -> None:
    names, table = tuple(synsets().values()), load_classes("imagenet-1k")
    check_classes(Annotations(table), Loaded(1000, Outputs(), names))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="it contradicts the model"):
        check_classes(Annotations(table), Loaded(1000, Outputs(), names[::-1]))  # type: ignore[arg-type]
