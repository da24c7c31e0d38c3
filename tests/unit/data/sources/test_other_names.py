"""A label beside another name of the class: both must mean the same class."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.sources import Failure, Sample, Shard
from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.columns import DEFAULT_COLUMNS
from pipeline.data.sources.label_files import load_annotations
from pipeline.data.sources.parquet import read_parquet
from pipeline.errors import ConfigError

CLASSES = ClassTable(("bird", "cat", "dog"), ("n00000001", "n00000002", "n00000003"))


def labels(tmp_path: Path, text: str, classes: ClassTable = CLASSES) -> dict[str, str]:
    (tmp_path / "labels.csv").write_text(text)
    return dict(load_annotations(str(tmp_path / "labels.csv"), None, classes).labels)


@pytest.mark.parametrize("column", ["class_name", "Class Name", "wnid", "synset", "label"])
def test_indices_that_count_from_one_are_refused(tmp_path: Path, column: str) -> None:
    names = CLASSES.wnids if column in ("wnid", "synset") else CLASSES.names
    rows = "".join(f"{i}.jpg,{i + 1},{name}\n" for i, name in enumerate(names))
    expected = f"in 3 of 3 rows: '0.jpg' has label 1 \\(cat\\), but {column} '{names[0]}', which is class 0; "
    with pytest.raises(ConfigError, match=expected):
        labels(tmp_path, f"filename,class_index,{column}\n{rows}")


@pytest.mark.parametrize(
    "row", ["1,cat,n00000002", "n00000002,cat,", "1,,", "1,a tabby,n99999999", "1,2,0", ",dog,", "-1,dog,n00000001"]
)
def test_names_that_agree_or_say_nothing_are_taken(tmp_path: Path, row: str) -> None:
    text = f"filename,class_index,class_name,wnid\na.jpg,{row}\n"
    assert labels(tmp_path, text) == {"a.jpg": row.partition(",")[0]}


def test_without_a_table_names_cannot_contradict(tmp_path: Path) -> None:
    assert labels(tmp_path, "filename,class_index,class_name\na.jpg,1,bird\n", ClassTable()) == {"a.jpg": "1"}


def test_a_name_on_which_tools_differ_contradicts_nothing(tmp_path: Path) -> None:
    """'crane' is class 517 for torchvision, and 134 for Keras."""
    imagenet = load_classes("imagenet-1k")
    text = "filename,class_index,class_name\na.jpg,134,crane\nb.jpg,517,crane\nc.jpg,0,tench\n"
    assert labels(tmp_path, text, imagenet) == {"a.jpg": "134", "b.jpg": "517", "c.jpg": "0"}
    with pytest.raises(ConfigError, match=r"1 of 2 rows: 'b.jpg' has label 1 \(goldfish\), but class_name 'tench'"):
        labels(tmp_path, "filename,class_index,class_name\na.jpg,0,tench\nb.jpg,1,tench\n", imagenet)


def test_a_row_of_a_table_that_contradicts_itself_is_a_failure(tmp_path: Path) -> None:
    columns = {
        "key": ["a", "b", "c"],
        "image": [b"1", b"2", b"3"],
        "label": [1, 1, None],
        "class_name": ["cat", "dog", "dog"],
    }
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    shard = Shard(0, "p.parquet", "parquet", str(tmp_path / "p.parquet"), 0, "")
    first, second, third = read_parquet(shard, Annotations(CLASSES), DEFAULT_COLUMNS)
    assert first == Sample("a", "p.parquet", b"1", 1, None)
    assert isinstance(second, Failure)
    assert (second.code, second.detail) == (
        "label", "the row has label 1 (cat), but class_name 'dog', which is class 2"
    )  # fmt: skip
    assert isinstance(third, Sample)
    assert third.label is None
    given = Annotations(CLASSES, {"b": "0"})  # a label file goes before the columns
    assert [item.label for item in read_parquet(shard, given, DEFAULT_COLUMNS) if isinstance(item, Sample)] == [
        1,
        0,
        None,
    ]


def test_the_column_that_the_run_file_names_counts_alone(tmp_path: Path) -> None:
    columns = {"key": ["a"], "image": [b"1"], "species": [1], "class_name": ["dog"]}
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    shard = Shard(0, "p.parquet", "parquet", str(tmp_path / "p.parquet"), 0, "")
    (item,) = read_parquet(shard, Annotations(CLASSES), {**DEFAULT_COLUMNS, "label": "species"})
    assert item == Sample("a", "p.parquet", b"1", 1, None)


def test_a_sample_of_a_tar_that_contradicts_itself_is_a_failure(shard: Shard) -> None:
    def read(name: object, **given: str) -> Sample | Failure:
        members = {"cls": b"1", "json": json.dumps({"class_name": name}).encode()}
        return annotated("k", shard, b"i", members, Annotations(CLASSES, given))

    assert isinstance(read("cat"), Sample)
    assert isinstance(read(7), Sample)
    wrong = read("dog")
    assert isinstance(wrong, Failure)
    assert (wrong.code, wrong.detail) == (
        "label", "the image has label 1 (cat), but class_name 'dog', which is class 2"
    )  # fmt: skip
    assert read("dog", k="0") == Sample("k", shard.name, b"i", 0, None)
