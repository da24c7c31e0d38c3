"""Names in a tar: keys are derived from them, odd names are kept unchanged, and no name makes the reader write."""

from pathlib import Path

import pytest
from tars import END, ReadBytes, failures, keys, pax_header, plain, record, samples, tar_of

from pipeline.data.sources import Reading, Sample, Shard, read_shard


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.b/img_0.v1.jpg", "a.b/img_0"),
        ("./x/1.jpg", "x/1"),
        ("1.JPG", "1"),
        ("1.v2.JpEg", "1"),
        ("/abs/1.jpg", "/abs/1"),
        ("../up/1.jpg", "../up/1"),
    ],
)
def test_the_key_is_the_path_up_to_the_first_dot_of_the_base_name(
    read_tar_bytes: ReadBytes, name: str, key: str
) -> None:
    assert read_tar_bytes(tar_of([(name, b"pixels")])) == [Sample(key, "s.tar", b"pixels", None, None)]


@pytest.mark.parametrize("name", [".hidden.jpg", "folder/.jpg"])
def test_a_name_without_key_fails_alone(read_tar_bytes: ReadBytes, name: str) -> None:
    items = read_tar_bytes(tar_of([("a.jpg", b"1"), (name, b"2"), ("b.jpg", b"3")]))
    assert keys(items) == ["a", "b"]
    assert [code for _, code in failures(items)] == ["bad_name"]


NAMES = {
    "newline": "a\nb",
    "right to left marks": "a\u202e\u200fb",
    "emoji": "🦊" * 3,
    "long": "n" * 10_000,
    "long folders": "d/" * 2_000 + "n",
    "quotes": "';--\"]<script>",
    "spaces": "  a  ",
}


@pytest.mark.parametrize("kind", ["pax", "gnu"])
@pytest.mark.parametrize("key", NAMES.values(), ids=NAMES.keys())
def test_odd_names_are_kept_unchanged(read_tar_bytes: ReadBytes, key: str, kind: str) -> None:
    items = read_tar_bytes(tar_of([("first.jpg", b"0"), (f"{key}.jpg", b"1"), ("last.jpg", b"2")], kind))
    assert keys(items) == ["first", key, "last"]
    assert len(items) == 3


def test_bytes_that_are_not_utf8_become_escapes_in_the_key(read_tar_bytes: ReadBytes) -> None:
    (item,) = samples(read_tar_bytes(tar_of([("caf\udce9.jpg", b"1")], "gnu")))
    assert item.key == "caf\\xe9"


def test_a_nul_in_a_pax_name_is_kept_and_can_be_written(read_tar_bytes: ReadBytes) -> None:
    (item,) = samples(read_tar_bytes(pax_header(record(b"path", b"a\0b.jpg")) + plain("x.jpg", b"1") + END))
    assert item.key.encode() == b"a\0b"


def test_no_name_makes_the_reader_write_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    target = folder / "s.tar"
    target.write_bytes(
        tar_of([("../../evil.jpg", b"1"), (f"{tmp_path}/evil2.jpg", b"2"), ("x/evil3.jpg", b"3")], "pax")
    )
    items = list(read_shard(Shard(0, "s.tar", "tar", str(target), 0, ""), Reading()))
    assert len(samples(items)) == 3
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [target]


def test_names_that_look_like_keys_of_failures_never_repeat_a_key(read_tar_bytes: ReadBytes) -> None:
    files = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a@2048.jpg", b"4"), ("s.jpg", b"5")]
    data = tar_of(files)[:-1024]
    items = read_tar_bytes(data + plain("s.tar@5120.jpg", b"6"))
    every_key = [item.key for item in items]
    assert len(set(every_key)) == len(every_key) == 7
    assert {"a", "a@2048", "a@2048'", "b", "s"} <= set(every_key)
