"""Several labels of one image: `labels` and `box_labels` of the `.json` member, and invalid lists."""

import json
from collections.abc import Mapping

import pytest

from pipeline.data.sources import Item, Sample, Shard
from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.shards import Failure

CLASSES = ClassTable(("bird", "cat", "dog"))
BOXES = [[0, 0, 1, 1], [2, 2, 3, 3]]
TUPLES = ((0, 0, 1, 1), (2, 2, 3, 3))


def read(shard: Shard, fields: Mapping[str, object], annotations: Annotations | None = None) -> Item:
    members = {"cls": b"9", "json": json.dumps(fields).encode()}
    return annotated("k", shard, b"i", members, annotations or Annotations(CLASSES))


@pytest.mark.parametrize("names", [[2, 0, 2], ["dog", "bird"], ["2", "0"]])
def test_an_image_may_have_several_labels(shard: Shard, names: list[object]) -> None:
    assert read(shard, {"labels": names}) == Sample("k", "s.tar", b"i", None, None, (2, 0))


def test_one_label_in_the_list_is_the_label_and_wins_over_cls(shard: Shard) -> None:
    assert read(shard, {"labels": [1]}) == Sample("k", "s.tar", b"i", 1, None, (1,))


def test_an_empty_list_means_no_label(shard: Shard) -> None:
    assert read(shard, {"labels": []}) == Sample("k", "s.tar", b"i", None, None, ())


def test_each_box_has_its_class(shard: Shard) -> None:
    fields = {"labels": [2, 1], "boxes": BOXES, "box_labels": [1, "dog"]}
    assert read(shard, fields) == Sample("k", "s.tar", b"i", None, TUPLES, (2, 1), (1, 2))


def test_a_csv_wins_over_the_lists(shard: Shard) -> None:
    fields = {"labels": [2, 1], "boxes": BOXES, "box_labels": [1, 2]}
    given = Annotations(CLASSES, {"k": "0"}, {"k": ((5, 5, 6, 6),)})
    assert read(shard, fields, given) == Sample("k", "s.tar", b"i", 0, ((5, 5, 6, 6),))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"labels": [1, "fish"]}, "label"),
        ({"labels": "dog"}, "labels"),
        ({"labels": [1.5]}, "labels"),
        ({"labels": [-2]}, "label"),
        ({"labels": [1, 2], "boxes": BOXES}, "boxes"),
        ({"labels": [1, 2], "boxes": BOXES, "box_labels": [1]}, "boxes"),
        ({"labels": [1, 2], "box_labels": [1]}, "boxes"),
        ({"labels": [1, 2], "boxes": BOXES, "box_labels": 1}, "box_labels"),
        ({"labels": [1, 2], "boxes": BOXES, "box_labels": [1, "fish"]}, "label"),
    ],
)
def test_invalid_lists_fail_the_image(shard: Shard, fields: Mapping[str, object], code: str) -> None:
    item = read(shard, fields)
    assert isinstance(item, Failure)
    assert item.code == code


def test_one_label_may_have_boxes_without_classes(shard: Shard) -> None:
    assert read(shard, {"labels": [1], "boxes": BOXES}) == Sample("k", "s.tar", b"i", 1, TUPLES, (1,))
