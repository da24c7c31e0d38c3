"""Labels are judged before the work: the first ones inside of shards, pairs, floats, and names that classes share."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from manifests import put_images
from tars import tar_of

from pipeline.data.account import LabelAccount
from pipeline.data.annotations import describe
from pipeline.data.class_counts import with_counts
from pipeline.data.inputs import reading_of, shards_of
from pipeline.data.sources import Failure, Sample, read_shard
from pipeline.errors import ConfigError, Mistakes
from pipeline.model.outputs import Outputs
from pipeline.run.matching import check_account, check_first_labels
from pipeline.settings.run_file import RunConfig


@dataclass(frozen=True)
class Loaded:
    """What the check reads of a loaded model."""

    classes: int
    outputs: Outputs


@dataclass(frozen=True)
class Told:
    """What is said of the labels of a run before its work, and how they are read."""

    account: LabelAccount
    labels: list[tuple[int, ...] | str]
    notes: tuple[str, ...]


@pytest.fixture
def in_tar(tmp_path: Path) -> Callable[..., str]:
    """Write a tar with these labels, as `.cls` or, if they are lists, in `.json`."""

    def in_tar(labels: Sequence[object]) -> str:
        members = []
        for number, label in enumerate(labels):
            members.append((f"{number:03}.jpg", b"x"))
            is_list = isinstance(label, list)
            text = json.dumps({"labels": label}) if is_list else str(label)
            members.append((f"{number:03}.{'json' if is_list else 'cls'}", text.encode()))
        (tmp_path / "s.tar").write_bytes(tar_of(members))
        return str(tmp_path / "s.tar")

    return in_tar


def told(outputs: int | None, **data: object) -> Told:
    """Describe and check the labels as a run does, for a model with this number of classes."""
    config = RunConfig.model_validate({"data": data, "model": {"name": "m"}, "output": {"path": "out"}})
    shards = shards_of(config.data)
    found = describe(config.data, shards, outputs)
    account, mistakes = with_counts(found, shards), Mistakes()
    check_account(account, config, {}, mistakes)
    notes = tuple[str, ...]()
    with mistakes.collecting():
        notes = check_first_labels(account, Loaded(outputs or 0, Outputs("softmax")))  # type: ignore[arg-type]
    mistakes.raise_if_any()
    reading = reading_of(config.data, found.annotations)
    items = [item for shard in shards for item in read_shard(shard, reading)]
    labels = [
        item.detail if isinstance(item, Failure) else item.labels or (() if item.label is None else (item.label,))
        for item in items
        if isinstance(item, (Sample, Failure))
    ]
    return Told(account, labels, notes)


# labels inside of shards that are no classes of the model


def test_labels_in_a_tar_that_count_from_one_are_refused(in_tar: Callable[..., str]) -> None:
    expected = (
        r"data.shards: 6 of 24 labels are no class of the model, which has 4 \(0 to 3\); for example 4; only the first "
        r"24 images in 1 of 1 shard were looked at \(the labels run from 1 to 4, and none is 0: .*subtract 1"
    )
    with pytest.raises(ConfigError, match=expected):
        told(4, shards=in_tar([1 + i % 4 for i in range(24)]))


def test_one_image_of_the_last_class_is_enough_where_labels_run_from_one(in_tar: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="1 of 4 labels are no class of the model"):
        told(4, shards=in_tar([1, 2, 3, 4]))


def test_labels_of_which_most_are_no_classes_are_refused_and_others_are_said(in_tar: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"3 of 5 labels are no class of the model.*for example 9; only the first 5"):
        told(4, shards=in_tar([0, 2, 7, 8, 9]))
    some = told(4, shards=in_tar([0, 1, 2, 7, 8, 9]))
    assert len(some.labels) == 6
    assert some.notes == (
        "3 of 6 labels are no class of the model, which has 4 (0 to 3); for example 9; only the first 6 images in 1 of "
        "1 shard were looked at; images with such a label fail, and become failure rows",
    )
    assert told(4, shards=in_tar([0, 1, 2, 3])).notes == ()


def test_first_labels_from_one_that_the_model_has_are_remarked(in_tar: Callable[..., str]) -> None:
    note = "labels of the images that were looked at run from 1 to 3, and none is class 0"
    assert any(note in one for one in told(4, shards=in_tar([1, 2, 3])).account.notes)
    assert not told(4, shards=in_tar([0, 1, 2, 3])).account.notes


# pairs


def test_pairs_for_two_classes_are_refused_where_no_list_shows_indices(in_tar: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"data.shards: \[0, 1\] may be a multi-hot vector.* 2 of the first 2 images"):
        told(2, shards=in_tar([[0, 1], [1, 0]]))
    assert told(2, shards=in_tar([[0, 1], [1], [0]])).labels == [(0, 1), (1,), (0,)]
    assert told(4, shards=in_tar([[0, 1], [1, 0]])).labels == [(0, 1), (1, 0)]


def test_pairs_of_a_manifest_are_judged_in_the_same_way(tmp_path: Path) -> None:
    put_images(tmp_path, "a.jpg", "b.jpg")
    path = tmp_path / "list.jsonl"
    rows = [{"path": "a.jpg", "label": [0, 1]}, {"path": "b.jpg", "label": [1, 0]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigError, match=r"2 of 2 labels are no class; for example, \[0, 1\] may be a multi-hot"):
        told(2, manifest=str(path), shards="")
    path.write_text(json.dumps(rows[0]) + '\n{"path": "b.jpg", "label": [1]}')
    assert told(2, manifest=str(path), shards="").labels == [(0, 1), (1,)]


def test_columns_of_zero_and_one_may_be_called_so(tmp_path: Path) -> None:
    put_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.csv").write_text("path,0,1\na.jpg,1,1\nb.jpg,1,1\n")
    found = told(2, manifest=str(tmp_path / "list.csv"), shards="", columns={"labels": ["0", "1"]})
    assert found.labels == [(0, 1), (0, 1)]


# floats


def test_whole_floats_are_indices_and_others_are_refused_with_the_reason(
    in_tar: Callable[..., str], tmp_path: Path
) -> None:
    assert told(4, shards=in_tar(["3.0", "0.0", "-1.0", "nan"])).labels == [(3,), (0,), (), ()]
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    put_images(tmp_path / "f", "1.jpg", "2.jpg")
    table = tmp_path / "labels.csv"
    data = {"shards": str(tmp_path / "f"), "labels": str(table), "classes": str(tmp_path / "names.txt")}
    table.write_text("filename,class_index\n1.jpg,3.0\n2.jpg,\n")
    assert told(4, **data).labels == [(3,), ()]
    table.write_text("filename,class_index\n1.jpg,3.5\n2.jpg,1.5\n")
    with pytest.raises(
        ConfigError, match=r"2 of 2 labels are no class; for example, '3.5' is no whole number"
    ) as told_:
        told(4, **data)
    assert "name the table" not in str(told_.value)


# names that classes share


@pytest.mark.parametrize("kind", ["labels", "manifest", "folders"])
def test_a_label_by_a_name_of_several_classes_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "names.txt").write_text("red\ngreen\nred\nblue\n")
    images = put_images(tmp_path / "f", "red/1.jpg", "green/2.jpg", "blue/3.jpg")
    rows = "red/1.jpg,red\ngreen/2.jpg,green\nblue/3.jpg,3\n"
    (tmp_path / "labels.csv").write_text(f"filename,class_index\n{rows}")
    (tmp_path / "list.csv").write_text(f"path,label\n{rows}")
    data: dict[str, str] = {
        "labels": {"shards": str(images), "labels": str(tmp_path / "labels.csv")},
        "manifest": {"shards": "", "manifest": str(tmp_path / "list.csv"), "root": str(images)},
        "folders": {"shards": str(images)},
    }[kind]
    with pytest.raises(ConfigError, match=r"'red'.* \d?.*several classes|several classes .*'red' \(0, 2\)"):
        told(4, **data, classes=str(tmp_path / "names.txt"))


def test_classes_may_share_a_name_where_labels_are_indices(in_tar: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red\ngreen\nred\nblue\n")
    found = told(4, shards=in_tar([0, 2, "green", "red"]), classes=str(tmp_path / "names.txt"))
    assert found.labels[:3] == [(0,), (2,), (1,)]
    assert found.labels[3] == "'red' is the name of several classes (0 and 2), so that it says none; write the index"
