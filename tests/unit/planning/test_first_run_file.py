"""What a new run file says of labels that may mean other classes than those of the model."""

from typing import Any

import pytest

from pipeline.data.account import ClassCount, LabelAccount
from pipeline.planning.first_data import FirstData
from pipeline.planning.first_model import ChosenModel
from pipeline.planning.first_run_file import explain_section, notes_of
from pipeline.settings.model import ModelConfig


class Loaded:
    """What is asked of a model that was loaded."""

    classes = 1000
    outputs: Any = type("Outputs", (), {"has_confidences": True})


def found(written: str) -> FirstData:
    classes = tuple(ClassCount(index, name, written.format(index), 1) for index, name in ((0, "tench"), (4, "ray")))
    return FirstData({"shards": "d"}, "a folder of images: 2", LabelAccount(images=2, labelled=2, classes=classes))


def model(name: str) -> ChosenModel:
    loaded: Any = Loaded()
    return ChosenModel({"name": name}, (), loaded, ModelConfig(name=name))


def test_labels_by_index_are_read_as_classes_of_an_imagenet_model_and_that_is_said() -> None:
    (note,) = notes_of(found("{}"), model("torchvision/resnet50"))
    assert note.startswith("Labels are read as the classes of torchvision/resnet50: 0 tench, 4 ray. If they mean other")
    assert explain_section(found("{}"), model("torchvision/resnet50"))["targets"] == "predicted"


@pytest.mark.parametrize(("written", "name"), [("n0144{}", "torchvision/resnet50"), ("{}", "mine.nets:of")])
def test_of_labels_by_name_and_of_other_models_nothing_is_said(written: str, name: str) -> None:
    assert notes_of(found(written), model(name)) == ()
