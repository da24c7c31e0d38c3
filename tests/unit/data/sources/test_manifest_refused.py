"""Manifests that are refused before the work, in one sentence each, however many rows are wrong."""

import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import put_images, read_all

from pipeline.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put_images(tmp_path, "secret.jpg")
    return put_images(tmp_path / "images", "a.jpg", "d/b.png")


def refusal(root: Path, text: str, **settings: object) -> str:
    (root / "list.csv").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_all(root / "list.csv", **settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.jpg", "'../secret.jpg' leaves '.*/images'"),
        ("d/../../secret.jpg", "leaves"),
        ("..\\secret.jpg", "leaves"),
        ("d", "is a folder, and no image"),
        ("/dev/zero", "is a device or a pipe, and no image"),
        ("pipe.jpg", "is a device or a pipe, and no image"),
        ("http://host/a.jpg", "is no URL of an object store"),
        ("file:///etc/passwd", "is a URL of a file; write its path"),
        ("s3://me:secret@bucket/a.jpg", "credentials and queries do not belong in a URL"),
        ("", "it names no image"),
        ("a.jpg\0", "zero byte"),
    ],
)
def test_what_is_no_image_is_refused(root: Path, path: str, reason: str) -> None:
    os.mkfifo(root / "pipe.jpg")
    message = refusal(root, f"path,label\na.jpg,1\n{path},2\n")
    assert message.startswith("data.manifest: 1 of 2 rows of ")
    assert re.search(f"row 3: .*{reason}", message)


def test_many_wrong_rows_are_five_and_their_number(root: Path) -> None:
    message = refusal(root, "path,label\na.jpg,1\n" + "../x.jpg,2\n" * 100_000)
    assert message.startswith("data.manifest: 100,000 of 100,001 rows of ")
    assert message.count("leaves") == 5
    assert message.endswith("; and 99,995 more")
    assert len(message) < 1500


def test_rows_that_contradict_each_other_are_refused_and_equal_ones_count_once(root: Path) -> None:
    message = refusal(root, "path,label\na.jpg,1\n./a.jpg,1\nd/b.png,2\nd/b.png,3\n")
    assert "1 of 4 rows" in message
    assert "row 5: '" in message
    assert "d/b.png' has the label 3 here, and the label 2 in an earlier row" in message


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"columns": {"path": "pth"}}, "data.columns.path: '.*' has no column pth .did you mean 'path'"),
        ({"columns": {"label": "lable"}}, "data.columns.label: '.*' has no column lable .did you mean 'label'"),
        ({"columns": {"labels": ["cat", "dog"]}}, "data.columns.labels: '.*' has no column cat, dog"),
        ({"metadata": ["site"]}, "data.metadata: '.*' has no column site"),
    ],
)
def test_a_column_that_is_not_there_is_refused(root: Path, settings: dict[str, object], said: str) -> None:
    assert re.search(said, refusal(root, "path,label\na.jpg,1\n", **settings))


def test_a_manifest_without_a_known_column_is_refused_with_its_columns(root: Path) -> None:
    message = refusal(root, "foo,bar\n1,2\n")
    assert "no column of '" in message
    assert "foo, bar (name it: columns: {path: COLUMN})" in message


@pytest.mark.parametrize("text", ["", "\n\n", "path,label\n"])
def test_an_empty_manifest_is_refused(root: Path, text: str) -> None:
    assert "is empty" in (message := refusal(root, text)) or "lists no image" in message


def test_a_row_with_more_cells_than_columns_is_refused(root: Path) -> None:
    assert "row 2: it has 3 cells, but there are 2 columns" in refusal(root, "path,label\na.jpg,tench, Tinca\n")


@pytest.mark.parametrize("name", ["list.xlsx", "list", "list.zip"])
def test_another_kind_of_file_is_refused(root: Path, name: str) -> None:
    (root / name).write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"is no list of images \(expected .csv, .tsv, .jsonl or .parquet\)"):
        read_all(root / name)


def test_a_manifest_that_is_not_there_or_no_file_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file"):
        read_all(root / "none.csv")
    os.mkfifo(root / "pipe.csv")
    with pytest.raises(ConfigError, match=r"is not a file"):
        read_all(root / "pipe.csv")


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.parquet"])
def test_bytes_that_are_no_text_are_refused(root: Path, name: str) -> None:
    (root / name).write_bytes(b"path,label\n\xff\xfe\xe4.jpg,1\n" * 10)
    with pytest.raises(ConfigError, match=r"is not UTF-8|is not a Parquet file"):
        read_all(root / name)


def test_a_damaged_parquet_manifest_is_refused(root: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg"] * 1000, "label": list(range(1000))}), root / "list.parquet")
    data = (root / "list.parquet").read_bytes()
    (root / "list.parquet").write_bytes(data[:4] + bytes(60) + data[64:])
    with pytest.raises(ConfigError, match=r"data.manifest: "):
        read_all(root / "list.parquet")
