"""Manifests: images anywhere, headers and encodings as people write them, keys, shards and missing files."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import failures_of, labels_of, put_images, read_all

from pipeline.data.inputs import shards_of
from pipeline.data.sources import Failure, Reading, Sample, Shard, read_shard
from pipeline.data.sources.manifest import IMAGES_PER_SHARD, manifest_counts
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig

IMAGES = ("a.jpg", "d/b.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return put_images(tmp_path / "images", *IMAGES)


def put(root: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    (root / name).write_bytes(text.encode(encoding))
    return root / name


@pytest.mark.parametrize(
    "header",
    ["path,label", "file,label", "filename,class", "file_name,class_index", "image,target", "image_id,class_name",
     "Path,Label", "Image Path,Class Name", "x,path,label"],
)  # fmt: skip
def test_headers_are_known(root: Path, header: str) -> None:
    first = "7," if header.startswith("x,") else ""
    manifest = put(root, "list.csv", f"{header}\n{first}a.jpg,3\n{first}d/b.png,5\n")
    assert labels_of(read_all(manifest)) == {"a.jpg": 3, "d/b.png": 5}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_and_encodings_are_found(tmp_path: Path, separator: str, encoding: str, end: str) -> None:
    put_images(tmp_path, "ä, ö.jpg")
    lines = [separator.join(cells) for cells in (("path", "label"), ('"ä, ö.jpg"', "1"))]
    manifest = put(tmp_path, "list.csv", end.join(lines) + end, encoding)
    assert labels_of(read_all(manifest)) == {"ä, ö.jpg": 1}


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.txt"])
def test_without_a_header_the_columns_are_named(root: Path, name: str) -> None:
    separator = {".csv": ",", ".tsv": "\t", ".txt": " "}[Path(name).suffix]
    manifest = put(root, name, f"a.jpg{separator}3\nd/b.png{separator}5\n")
    assert labels_of(read_all(manifest, columns=["path", "label"])) == {"a.jpg": 3, "d/b.png": 5}
    with pytest.raises(ConfigError, match=r"has no header: its first row is 'a.jpg', '3' \(name its columns, such as"):
        read_all(manifest)


def test_a_label_that_reads_like_a_header_is_a_label(root: Path) -> None:
    manifest = put(root, "list.csv", "a.jpg,target\nd/b.png,label\n")
    assert labels_of(read_all(manifest, ["target", "label"], columns=["path", "label"])) == {"a.jpg": 0, "d/b.png": 1}


def test_what_a_manifest_holds_is_counted_before_it_is_read(root: Path) -> None:
    put(root, "list.csv", 'path,label,boxes\na.jpg,1,"[1,2,3,4]"\nd/b.png,,\nnone.jpg,2,\n')
    counts = manifest_counts(shards_of(DataConfig(manifest=str(root / "list.csv"))))
    assert counts == {"images": 3, "missing": 1, "labelled": 2, "boxed": 1}


def test_a_header_that_is_there_is_no_image_although_the_columns_are_named(root: Path) -> None:
    manifest = put(root, "list.csv", "filename,class\na.jpg,3\n")
    assert labels_of(read_all(manifest, columns=["path", "label"])) == {"a.jpg": 3}


def test_as_many_columns_are_named_as_there_are(root: Path) -> None:
    manifest = put(root, "list.csv", "a.jpg,3,x\n")
    with pytest.raises(ConfigError, match=r"2 names, but the first row of .* has 3 cells: 'a.jpg', '3', 'x'"):
        read_all(manifest, columns=["path", "label"])


def test_lines_of_json_and_parquet_are_read(root: Path) -> None:
    rows = [{"file_name": "a.jpg", "label": 3}, {"file_name": "d/b.png", "label": None}]
    lines = put(root, "list.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), root / "list.parquet")
    for manifest in (lines, root / "list.parquet"):
        assert labels_of(read_all(manifest)) == {"a.jpg": 3, "d/b.png": None}


@pytest.mark.parametrize("cell", ["", "-1", "NaN", " "])
def test_a_cell_without_a_label_is_no_label(root: Path, cell: str) -> None:
    manifest = put(root, "list.csv", f"path,label\na.jpg,{cell}\nd/b.png,5.0\n")
    assert labels_of(read_all(manifest)) == {"a.jpg": None, "d/b.png": 5}


def test_the_bytes_are_those_of_the_file(root: Path) -> None:
    (item,) = read_all(put(root, "list.csv", "path\nd/b.png\n"))
    assert isinstance(item, Sample)
    assert (item.key, item.shard, item.image) == ("d/b.png", "list[0]", b"d/b.png")


def test_absolute_paths_have_the_keys_of_a_folder(root: Path, tmp_path: Path) -> None:
    manifest = put(tmp_path, "list.csv", "path,label\n" + "".join(f"{root / name},1\n" for name in IMAGES))
    assert list(labels_of(read_all(manifest))) == list(IMAGES)


def test_absolute_and_relative_paths_may_be_mixed(root: Path, tmp_path: Path) -> None:
    put_images(tmp_path / "other", "a.jpg")
    manifest = put(root, "list.csv", f"path,label\na.jpg,1\n{tmp_path}/other/a.jpg,2\n{root}/d/b.png,3\n")
    assert labels_of(read_all(manifest)) == {"a.jpg": 1, f"{tmp_path}/other/a.jpg": 2, "d/b.png": 3}


@pytest.mark.parametrize("written", ["./d/b.png", "d//b.png", "d/../d/b.png", "d\\b.png", "d/b", " d/b.png "])
def test_a_path_is_found_however_it_is_written(root: Path, written: str) -> None:
    assert list(labels_of(read_all(put(root, "list.csv", f"path,label\n{written},1\n")))) == ["d/b.png"]


def test_a_name_without_a_suffix_that_fits_several_files_is_refused(root: Path) -> None:
    put_images(root, "d/b.jpg")
    with pytest.raises(ConfigError, match=r"row 2: 'b' may be b.jpg or b.png"):
        read_all(put(root, "list.csv", "path,label\nd/b,1\n"))


def test_the_root_of_relative_paths_can_be_named(root: Path, tmp_path: Path) -> None:
    manifest = put(tmp_path, "list.csv", "image_id,label\na,1\n")
    with pytest.raises(ConfigError, match=r"none of the 1 images .* is there: tried .*/a .*data.root: .*/images"):
        read_all(manifest)
    assert labels_of(read_all(manifest, root=str(root))) == {"a.jpg": 1}


def test_another_root_is_suggested_where_the_images_are(root: Path, tmp_path: Path) -> None:
    (root / "d" / "list.csv").write_text("path\na.jpg\nd/b.png\n")
    with pytest.raises(ConfigError, match=rf"they are below another folder: data.root: {root}\)"):
        read_all(root / "d" / "list.csv")
    with pytest.raises(ConfigError, match=rf"they are below another folder: data.root: {root}\)"):
        read_all(put(tmp_path, "list.csv", "image_id\na\nd/b\n"))


def test_a_missing_image_is_a_failure_row(root: Path) -> None:
    manifest = put(root, "list.csv", "path,label\na.jpg,1\nb.jpg,1\n")
    assert failures_of(read_all(manifest)) == {"b.jpg": ("read", "missing")}


def test_an_image_that_goes_after_it_was_listed_is_a_failure_row(root: Path) -> None:
    data = DataConfig(manifest=str(put(root, "list.csv", "path\na.jpg\nd/b.png\n")))
    (shard,) = shards_of(data)
    (root / "a.jpg").unlink()
    (root / "d/b.png").unlink()
    os.mkfifo(root / "d/b.png")
    assert [(item.key, item.code) for item in failures(shard)] == [("a.jpg", "missing"), ("d/b.png", "unreadable")]


def failures(shard: Shard) -> list[Failure]:

    return [item for item in read_shard(shard, Reading()) if isinstance(item, Failure)]


def test_a_column_of_keys_names_the_images(root: Path) -> None:
    manifest = put(root, "list.csv", "key,path\none,a.jpg\ntwo,a.jpg\n")
    assert list(labels_of(read_all(manifest))) == ["one", "two"]
    put(root, "list.csv", "key,path\none,a.jpg\none,d/b.png\n")
    with pytest.raises(ConfigError, match=r"row 3: the key 'one' also belongs to '.*a.jpg'"):
        read_all(manifest)


def test_shards_hold_a_limited_number_of_images_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    put_images(tmp_path, "x.jpg")
    count = IMAGES_PER_SHARD + 1
    manifest = put(tmp_path, "list.csv", "key,path\n" + "".join(f"{9999 - i},x.jpg\n" for i in range(count)))
    shards = shards_of(DataConfig(manifest=str(manifest)))
    assert [(shard.name, shard.images, shard.ordinal) for shard in shards] == [
        ("list[0]", IMAGES_PER_SHARD, 0), ("list[1]", 1, 1)
    ]  # fmt: skip
    assert [entry.key for shard in shards for entry in shard.entries] == [str(9999 - i) for i in range(count)]


def test_fingerprints_change_with_labels_and_sizes_but_not_with_other_columns(root: Path) -> None:
    def prints(text: str) -> list[str]:
        shards = shards_of(DataConfig(manifest=str(put(root, "list.csv", text))))
        return [shard.fingerprint for shard in shards]

    first = prints("path,label\na.jpg,1\n")
    assert prints("path,label,note\na.jpg,1,x\n") == first
    assert prints("path,label\na.jpg,2\n") != first
    (root / "a.jpg").write_bytes(b"longer than before")
    assert prints("path,label\na.jpg,1\n") != first
