"""The list of `data.keys`: from the run file, a text file or a CSV file; hostile, empty, repeated and long ones."""

import csv
from pathlib import Path
from typing import Any

import pytest
from runfiles import SMALLEST

from jobs.support.answers import write_csv
from pipeline.data.sources.key_list import KeyList, read_keys
from pipeline.errors import ConfigError
from pipeline.settings.data import ImageKey
from pipeline.settings.run_file import parse_config
from pipeline.viewer.takeaway import as_yaml, csv_lines
from schemas.key_file import escaped, unescaped

HOSTILE = [
    "<script>alert(1)</script>", "../../etc/passwd", "=1+1", "'=1+1", "''=1+1", "'", "-x", "@x", "+x", "\tx", "a,b",
    'say "a"', "two\nlines", "two\r\nlines", "a\rb", " spaces ", "é", "e\u0301", "😀", "\u2028x", "\x85x",
    "\x7f", "\ufeffx", "null", "1", "yes", "- a", "{a: b}", "#x", "\\x41", "\0", "image_key", "\uffff",
]  # fmt: skip


def keys_in(path: Path, text: str | bytes) -> KeyList:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = read_keys(str(path))
    assert found is not None
    return found


def refused(path: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as error:
        keys_in(path, text)
    return str(error.value)


def test_a_text_file_has_a_key_in_each_line(tmp_path: Path) -> None:
    found = keys_in(tmp_path / "keys.txt", '\ufeffa,b\r\n\nc "d\n  \n e \n')
    assert found.of_shard == {"": {"a,b", 'c "d', " e "}}


@pytest.mark.parametrize("name", ["keys.csv", "keys.txt"])
def test_a_csv_file_names_shards_and_keys_in_any_columns(tmp_path: Path, name: str) -> None:
    found = keys_in(tmp_path / name, 'label,image_key,shard\n1,"a,b",s.tar\n\n2,c,\n3,c,t.tar\n')
    assert found.of_shard == {"s.tar": {"a,b"}, "": {"c"}, "t.tar": {"c"}}
    assert (found.holds("s.tar", "a,b"), found.holds("t.tar", "a,b"), found.holds("other", "c")) == (True, False, True)


def test_a_csv_file_of_one_column_needs_no_header(tmp_path: Path) -> None:
    assert keys_in(tmp_path / "k.CSV", '"a,b"\n\nc\n').of_shard == {"": {"a,b", "c"}}


def test_the_exports_of_the_viewer_and_of_query_are_read_as_they_were_written(tmp_path: Path) -> None:
    import pyarrow as pa

    pairs = [(f"s{i % 2}.tar", key) for i, key in enumerate(HOSTILE)]
    wanted = {shard: {key for of, key in pairs if of == shard} for shard in ("s0.tar", "s1.tar")}
    lines = csv_lines([("shard", "image_key"), *pairs])
    assert keys_in(tmp_path / "viewer.csv", lines).of_shard == wanted
    table = pa.table({"image_key": [key for _, key in pairs], "shard": [shard for shard, _ in pairs]})
    with (tmp_path / "query.csv").open("w", newline="") as file:
        write_csv(table, file)
    found = read_keys(str(tmp_path / "query.csv"))
    assert found is not None
    assert found.of_shard == wanted


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_and_each_is_read_back(text: str) -> None:
    assert not escaped(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert unescaped(escaped(text)) == text


def test_the_yaml_of_the_viewer_pastes_into_a_run_file(tmp_path: Path) -> None:
    import yaml

    pairs = [("s.tar", key) for key in HOSTILE]
    for ambiguous in ((), HOSTILE):
        text = (
            f"data:\n  shards: a.tar\n{as_yaml(pairs, ambiguous)}  limit: 3\nmodel: {{name: m}}\noutput: {{path: o}}\n"
        )
        config, mistakes = parse_config(yaml.safe_load(text))
        assert mistakes == []
        found = read_keys(config.data.keys)
        assert found is not None
        assert found.of_shard == {"s.tar" if ambiguous else "": set(HOSTILE)}


def test_order_and_repetitions_do_not_change_the_digest(tmp_path: Path) -> None:
    first = keys_in(tmp_path / "1.txt", "a\nb\n")
    assert first.digest == keys_in(tmp_path / "2.txt", "b\na\nb").digest
    assert first.digest == keys_in(tmp_path / "3.csv", "image_key,shard\nb,\na,\n").digest
    assert len(keys_in(tmp_path / "2.txt", "b\na\nb")) == 2
    inline = read_keys(["b", "a"])
    assert inline is not None
    assert inline.digest == first.digest
    others = [read_keys(["a"]), read_keys(["ab"]), read_keys([ImageKey(shard="s", image_key="a"), "b"])]
    assert len({first.digest, *(one.digest for one in others if one)}) == 4


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("k.txt", "", "names no image"), ("k.txt", " \n\n", "names no image"), ("k.csv", "\n", "names no image"),
        ("k.csv", "shard,image_key\n", "names no image"), ("k.csv", "shard,image_key\na,b\nx.tar,\n", "row 3"),
        ("k.csv", "shard,key\na,b\n", "row 1 of .* has 2 cells"), ("k.txt", b"\xff\xfea\0", "cannot read"),
        ("k.csv", "image_key\n" + "x" * 200_000, "field larger"), ("k.txt", b"ok\n\xff\n", "cannot read"),
    ],
)  # fmt: skip
def test_files_that_are_no_lists_are_refused(tmp_path: Path, name: str, text: str | bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)^data\.keys: .*{told}"):
        keys_in(tmp_path / name, text)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigError, match=r"data\.keys: "):
            read_keys(str(path))


def test_very_many_keys_are_read(tmp_path: Path) -> None:
    found = keys_in(tmp_path / "k.txt", "".join(f"ILSVRC2012_val_{i:08d}\n" for i in range(200_000)))
    assert len(found) == 200_000
    assert found.holds("any", "ILSVRC2012_val_00199999")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([], "data.keys: "), ("", "data.keys: must name a file"), (5, "data.keys: "), ([5], "data.keys.0: "),
        ([""], "data.keys.0: "), ([None], "data.keys.0: "), ([{"shard": "a"}], "data.keys.0.image_key: is required"),
        ([{"shard": "a", "image_key": "b", "c": 1}], "data.keys.0.c: unknown key"), ({"a": "b"}, "data.keys"),
        ([f"{i}" for i in range(10_001)], "at most 10000 keys fit in a run file, not 10001; name a file"),
        (["\ud800"], "data.keys.0: "),
    ],
)  # fmt: skip
def test_what_is_no_list_in_a_run_file_is_told(keys: Any, told: str) -> None:
    _, mistakes = parse_config({**SMALLEST, "data": {"shards": "a.tar", "keys": keys}})
    assert any(told in str(mistake) for mistake in mistakes), mistakes
    assert all(len(str(mistake)) < 600 for mistake in mistakes)


def test_a_sample_and_a_list_exclude_each_other() -> None:
    _, mistakes = parse_config({**SMALLEST, "data": {"shards": "a.tar", "keys": ["a"], "sample": {"n": 5}}})
    assert [str(one) for one in mistakes] == [
        "data.sample: draws images at random, and data.keys lists them (leave out one of them)"
    ]


def test_the_csv_module_alone_reads_the_columns(tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text(csv_lines([("shard", "image_key"), ("s", "two\nlines")]))
    with (tmp_path / "k.csv").open(newline="") as file:
        assert list(csv.reader(file))[1] == ["s", "two\nlines"]
