"""Runs that need labels or boxes and have none are refused before the work, with the reason."""

import pytest

from pipeline.data.account import Inside, LabelAccount
from pipeline.data.account_files import FileAccount
from pipeline.data.sources.no_class import UNKNOWN
from pipeline.errors import Mistakes
from pipeline.metrics import build_metrics
from pipeline.run.matching import check_account
from pipeline.settings.run_file import RunConfig

NOTHING = LabelAccount(images=3)
MATCHED = FileAccount("labels", "/d/labels.csv", 3, 0, 3, 3, 0, 0)
OF_BOXES = FileAccount("boxes", "/d/boxes.csv", 3, 0, 3, 3, 0, 0)


def mistakes(account: LabelAccount, *, metrics: tuple[str, ...] = (), **explain: object) -> list[str]:
    config = RunConfig.model_validate(
        {"data": {"shards": "x"}, "model": {"name": "m"}, "explain": explain, "output": {"path": "y"}}
    )
    found = Mistakes()
    check_account(account, config, build_metrics(metrics), found)
    return [str(mistake) for mistake in found.found]


@pytest.mark.parametrize("targets", ["label", "labels", ["predicted", "label"]])
def test_labels_as_targets_need_a_label(targets: str | list[str]) -> None:
    (mistake,) = mistakes(NOTHING, targets=targets)
    assert mistake.startswith("explain.targets: ")
    assert "there is no label file, and no folder is a class" in mistake
    assert not mistakes(LabelAccount(images=3, labelled=1), targets=targets)
    assert not mistakes(LabelAccount(files=(MATCHED,)), targets=targets)


def test_the_reason_is_that_of_the_account() -> None:
    (mistake,) = mistakes(LabelAccount(3, folders=("2 folders (a, b): not certain",)), targets="label")
    assert "no image has a label: 2 folders (a, b): not certain" in mistake


@pytest.mark.parametrize("metric", ["pointing_game", "energy_in_box", "box_iou", "box_removed_confidence"])
def test_metrics_of_boxes_need_a_box(metric: str) -> None:
    (mistake,) = mistakes(NOTHING, metrics=(metric, "average_drop"))
    assert mistake.startswith(f"explain.metrics: {metric} needs boxes, but no image has any")
    assert not mistakes(LabelAccount(images=3, boxed=1), metrics=(metric,))
    assert not mistakes(LabelAccount(files=(OF_BOXES,)), metrics=(metric,))
    assert not mistakes(NOTHING, metrics=("average_drop",))


def test_the_first_images_of_shards_decide_for_all() -> None:
    seen = Inside(3, 50, 192, 0, 0)
    assert len(mistakes(LabelAccount(inside=seen), metrics=("box_iou",), targets="label")) == 2
    for known in (Inside(3, 50, 192, 1, 1), Inside(3, 50, 192, 0, 0, blind=192), Inside(3, 50, 0, 0, 0)):
        assert not mistakes(LabelAccount(inside=known), metrics=("box_iou",), targets="label")


def test_labels_that_are_mostly_no_classes_are_refused_with_the_remedy() -> None:
    (mistake,) = mistakes(LabelAccount(images=10, labelled=4, unreadable=6, unreadable_example="n01440764"))
    assert mistake.startswith(
        "data.labels: 6 of 10 labels are neither a class index nor a known class, such as 'n01440764'"
    )
    assert "data.classes" in mistake
    assert not mistakes(LabelAccount(images=10, labelled=9, unreadable=1, unreadable_example="x"))


def test_shards_whose_labels_are_no_classes_are_refused_with_the_remedy() -> None:
    (mistake,) = mistakes(LabelAccount(inside=Inside(3, 50, 192, 0, 0, wrong=190, example=f"'x' {UNKNOWN}")))
    assert mistake.startswith(
        "data.shards: the labels of 190 images at the beginning of 3 shards are wrong: 'x' is nei"
    )
    assert mistake.endswith(
        "(name the table of these classes in data.classes, and the column of labels in data.columns.label)"
    )
    (mistake,) = mistakes(LabelAccount(inside=Inside(3, 50, 192, 0, 0, wrong=190, example="[0, 1, 1] is a vector")))
    assert mistake.endswith("are wrong: [0, 1, 1] is a vector"), "a table would not mend it"
    for few in (Inside(1, 1, 5, 0, 0, wrong=2), Inside(1, 1, 5, 1, 0, wrong=4)):
        assert not mistakes(LabelAccount(inside=few))
