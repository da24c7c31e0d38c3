"""Listing shards: braces, globs and folders are expanded, and every error is reported."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError

Touch = Callable[..., str]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """Create files below the test's folder; return the path of the last one."""

    def touch(*names: str, content: bytes = b"x") -> str:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return str(tmp_path / names[-1])

    return touch


def names(specs: str | list[str]) -> list[str]:
    return [shard.name for shard in list_shards(specs)]


def mistakes(specs: str | list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        list_shards(specs)
    assert {mistake.where for mistake in caught.value.mistakes} == {"data.shards"}
    return [mistake.what for mistake in caught.value.mistakes]


def test_one_tar_is_one_shard(touch: Touch) -> None:
    path = touch("d/a.tar", content=b"12345")
    (shard,) = list_shards(path)
    assert (shard.ordinal, shard.name, shard.kind, shard.location, shard.size) == (0, "a.tar", "tar", path, 5)
    assert (shard.images, shard.take, shard.members) == (None, None, ())


def test_braces_are_expanded_in_their_order(touch: Touch, tmp_path: Path) -> None:
    touch("s-000.tar", "s-001.tar", "s-002.tar", "t.tar")
    assert names(f"{tmp_path}/s-{{000..002}}.tar") == ["s-000.tar", "s-001.tar", "s-002.tar"]
    assert names(f"{tmp_path}/{{t,s-001}}.tar") == ["t.tar", "s-001.tar"]


def test_globs_are_expanded_sorted(touch: Touch, tmp_path: Path) -> None:
    touch("b.tar", "a.tar", "d/c.tar", "x.csv")
    assert names(f"{tmp_path}/*.tar") == ["a.tar", "b.tar"]
    assert names(f"{tmp_path}/**/*.tar") == ["a.tar", "b.tar", "c.tar"]


def test_a_file_whose_name_looks_like_a_glob_is_found(touch: Touch) -> None:
    assert names(touch("a[0].tar")) == ["a[0].tar"]


def test_a_folder_of_tars_lists_its_tars(touch: Touch, tmp_path: Path) -> None:
    touch("d/b.tar", "d/a.TAR", "d/README.md", "d/._a.tar")
    assert names(str(tmp_path / "d")) == ["a.TAR", "b.tar"]


def test_a_folder_of_parquet_files_lists_its_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        pq.write_table(pa.table({"image": [b"1", b"2"]}), tmp_path / f"{name}.parquet")
    shards = list_shards(str(tmp_path))
    assert [(shard.name, shard.kind, shard.images) for shard in shards] == [
        ("a.parquet", "parquet", 2),
        ("b.parquet", "parquet", 2),
    ]


def test_a_damaged_parquet_file_is_still_a_shard(touch: Touch) -> None:
    (shard,) = list_shards(touch("a.parquet", content=b"PAR1 no PAR1"))
    assert (shard.kind, shard.images) == ("parquet", None)


def test_a_folder_of_images_is_split_every_1024_files(touch: Touch, tmp_path: Path) -> None:
    touch(*(f"f/{i:04d}.jpg" for i in range(1025)), content=b"ab")
    first, second = list_shards(str(tmp_path / "f"))
    assert [(shard.ordinal, shard.name, shard.kind) for shard in (first, second)] == [
        (0, "f[0]", "folder"),
        (1, "f[1]", "folder"),
    ]
    assert (len(first.members), second.members) == (1024, ("1024.jpg",))
    assert (first.images, first.size, second.size) == (1024, 2048, 2)


def test_ordinals_run_over_all_kinds_of_shards(touch: Touch, tmp_path: Path) -> None:
    touch("a.tar", "f/1.jpg", "b.tar")
    shards = list_shards([f"{tmp_path}/a.tar", f"{tmp_path}/f", f"{tmp_path}/b.tar"])
    assert [(shard.ordinal, shard.name) for shard in shards] == [(0, "a.tar"), (1, "f[0]"), (2, "b.tar")]


def test_files_of_the_same_name_are_named_with_their_folders(touch: Touch, tmp_path: Path) -> None:
    touch("x/train/0.tar", "x/val/0.tar", "x/val/1.tar")
    specs = [f"{tmp_path}/x/train/0.tar", f"{tmp_path}/x/val/0.tar", f"{tmp_path}/x/val/1.tar"]
    assert names(specs) == ["train/0.tar", "val/0.tar", "val/1.tar"]


def test_a_file_and_a_file_in_a_sub_folder_have_different_names(touch: Touch, tmp_path: Path) -> None:
    touch("x/0.tar", "x/x/0.tar")
    found = names([f"{tmp_path}/x/0.tar", f"{tmp_path}/x/x/0.tar"])
    assert found == ["0.tar", "x/0.tar"]


def test_a_name_that_is_not_utf8_becomes_escapes(touch: Touch) -> None:
    path = touch("a\udcff.tar")
    (shard,) = list_shards(path)
    assert (shard.name, shard.location) == ("a\\xff.tar", path)


def test_relative_paths_become_absolute_and_links_are_kept(
    touch: Touch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch("real.tar")
    (tmp_path / "link.tar").symlink_to(tmp_path / "real.tar")
    monkeypatch.chdir(tmp_path)
    assert [shard.location for shard in list_shards("./link.tar")] == [str(tmp_path / "link.tar")]


def test_a_tilde_is_the_home_folder(touch: Touch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a.tar")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/a.tar") == ["a.tar"]


# errors


@pytest.mark.parametrize("spec", ["no/*.tar", "no/a.tar", "~nobody-of-this-name/a.tar", "", "a\0b.tar"])
def test_a_path_that_matches_nothing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    (what,) = mistakes(spec)
    assert "matches nothing" in what or "contains no image" in what


def test_missing_files_of_braces_are_named(touch: Touch, tmp_path: Path) -> None:
    touch("s-0.tar")
    (what,) = mistakes(f"{tmp_path}/s-{{0..5}}.tar")
    assert f"{tmp_path}/s-1.tar" in what
    assert "and 2 more" in what
    assert "s-0.tar," not in what


@pytest.mark.parametrize("spec", ["s-{0..1.tar", "s-0}.tar", "{{a,b}.tar"])
def test_unbalanced_braces_are_reported(spec: str) -> None:
    assert mistakes(spec) == [f"'{spec}' has unbalanced braces"]


@pytest.mark.parametrize("spec", ["ftp://host/{0..9}.tar", "pipe:curl x://y", "file:///a.tar", "://a.tar"])
def test_urls_of_other_schemes_are_refused(spec: str) -> None:
    (what,) = mistakes(spec)
    assert "has an unsupported scheme" in what


@pytest.mark.parametrize(
    "spec", ["s3://KEY:hunter2@bucket/a.tar", "s3://bucket/a.tar?X-Amz-Signature=hunter2", "gs://b/*.tar?key=hunter2"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(spec: str) -> None:
    (what,) = mistakes(spec)
    assert "do not belong in a URL" in what
    assert "hunter2" not in what


@pytest.mark.parametrize("url", ["s3://bucket/photos/1.jpg", "s3://bucket/photos", "gs://bucket/a.tar.bz2"])
def test_an_object_of_an_unknown_kind_is_reported_without_a_request(url: str) -> None:
    with pytest.raises(ConfigError, match=r"neither a \.tar, \.tar\.gz nor \.parquet object .*camatlas pack"):
        list_shards(url)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.bz2", "a", "a.jpg"])
def test_a_file_of_an_unknown_kind_is_reported(touch: Touch, name: str) -> None:
    (what,) = mistakes(touch(name))
    assert "neither a folder nor a .tar, .tar.gz, .parquet or .arrow file" in what


def test_a_folder_without_images_is_reported(touch: Touch, tmp_path: Path) -> None:
    touch("d/labels.csv", "d/.hidden.jpg")
    (what,) = mistakes(str(tmp_path / "d"))
    assert "contains no image" in what


def test_a_path_that_is_named_twice_is_reported(touch: Touch, tmp_path: Path) -> None:
    path = touch("d/a.tar")
    assert mistakes([path, f"{tmp_path}/d/*.tar", f"{tmp_path}/d/../d"]) == [f"'{path}' is named 3 times"]


def test_all_errors_are_reported_at_once(touch: Touch, tmp_path: Path) -> None:
    found = mistakes([f"{tmp_path}/no.tar", "s3://b/a.tar?key=1", "{"])
    assert len(found) == 3


def test_an_unreadable_folder_is_reported(touch: Touch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("d/a.tar")

    def refuse(path: Path) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "iterdir", refuse)
    (what,) = mistakes(str(tmp_path / "d"))
    assert "Permission denied" in what


def test_a_name_that_is_too_long_is_reported() -> None:
    (what,) = mistakes("x" * 5000 + ".tar")
    assert "name too long" in what


# the fingerprint


def fingerprint(path: str) -> str:
    (shard,) = list_shards(path)
    return shard.fingerprint


def test_the_list_is_the_same_every_time(touch: Touch, tmp_path: Path) -> None:
    touch("b.tar", "a.tar", "f/2.jpg", "f/1.jpg")
    specs = [f"{tmp_path}/*.tar", f"{tmp_path}/f"]
    assert list_shards(specs) == list_shards(specs)


@pytest.mark.parametrize("place", [0, 65_535, -65_536, -1])
def test_a_change_at_the_edges_changes_the_fingerprint(touch: Touch, place: int) -> None:
    content = bytearray(300_000)
    before = fingerprint(touch("a.tar", content=bytes(content)))
    content[place] = 1
    assert fingerprint(touch("a.tar", content=bytes(content))) != before


def test_a_change_of_size_changes_the_fingerprint(touch: Touch) -> None:
    assert fingerprint(touch("a.tar", content=bytes(300_000))) != fingerprint(touch("a.tar", content=bytes(300_001)))


def test_the_fingerprint_does_not_depend_on_location_or_time(touch: Touch) -> None:
    one, two = touch("a.tar"), touch("d/b.tar")
    os.utime(two, (0, 0))
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize(("name", "content"), [("2.jpg", b"x"), ("1.jpg", b"xx")])
def test_another_or_a_resized_image_changes_the_fingerprint_of_a_folder(
    touch: Touch, tmp_path: Path, name: str, content: bytes
) -> None:
    touch("f/1.jpg")
    before = fingerprint(str(tmp_path / "f"))
    touch(f"f/{name}", content=content)
    assert fingerprint(str(tmp_path / "f")) != before


def test_a_folder_of_tars_and_loose_images_is_refused(touch: Touch, tmp_path: Path) -> None:
    touch("f/a.tar")
    touch("f/b.JPG")
    with pytest.raises(ConfigError, match="contains both shards and loose images"):
        list_shards(str(tmp_path / "f"))
