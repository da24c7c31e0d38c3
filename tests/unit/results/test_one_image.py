"""One image is read by its place, with one read, and is the image that reading the whole shard gives."""

import gzip
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from located import boxed_samples, jpeg, make_run, opened, places_of, table_file
from pictures import noise, saved
from tars import tar_of

from pipeline.data.sources import tar_members
from pipeline.data.sources.shards import NOWHERE, Extent
from pipeline.results import one_image
from pipeline.results.one_image import ImageReader
from pipeline.results.query import Run
from pipeline.results.source_images import Original, originals

LONG = "a folder whose name is long/" * 6
HOSTILE = ("<script>alert(1)</script>", "../../etc/passwd", "=1+1", "' OR 1=1 --", "a\nb", "\ud800", "", "x" * 10_000)


def tar_data(folder: Path, *files: bytes, name: str = "s.tar") -> dict[str, Any]:
    (folder / name).write_bytes(b"".join(files))
    return {"shards": str(folder / name)}


def in_tar(folder: Path) -> dict[str, Any]:
    return tar_data(folder, tar_of(boxed_samples()))


def in_table(folder: Path) -> dict[str, Any]:
    return {"shards": str(table_file(folder / "s.parquet", row_group_size=4))}


def in_folder(folder: Path) -> dict[str, Any]:
    for i in range(3):
        (folder / "pics" / f"c{i}").mkdir(parents=True)
        (folder / "pics" / f"c{i}" / f"{i}.jpg").write_bytes(jpeg(i))
    return {"shards": str(folder / "pics")}


def in_manifest(folder: Path) -> dict[str, Any]:
    lines = ["path,label,x0,y0,x1,y1"]
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
        lines.append(f"{i}.jpg,1,2,3,{20 + i},30")
    (folder / "list.csv").write_text("\n".join(lines))
    return {"manifest": str(folder / "list.csv"), "columns": {"boxes": ["x0", "y0", "x1", "y1"]}}


CONTAINERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tar": in_tar, "table": in_table, "folder": in_folder, "manifest": in_manifest,
    "gzip": lambda folder: tar_data(folder, gzip.compress(tar_of(boxed_samples())), name="s.tar.gz"),
    "gnu names": lambda folder: tar_data(folder, tar_of(boxed_samples(prefix=LONG), "gnu")),
    "pax names": lambda folder: tar_data(folder, tar_of(boxed_samples(prefix=f"{LONG}é "), "pax", {"comment": "x"})),
    "dotted names": lambda folder: tar_data(
        folder, tar_of([(f"scan.{i}.{end}", data) for i in range(4) for end, data in (("jpg", jpeg(i)), ("cls", b"1"))])
    ),
    "members": lambda folder: tar_data(folder, tar_of([
        (f"{i}.{kind}", data)
        for i in range(3)
        for kind, data in (("depth.png", b"d" * 700), ("cls", b"1"), ("rgb.jpg", jpeg(i)), ("txt", b"t" * 9000))
    ])) | {"members": {"image": "rgb.jpg", "ignore": ["*.depth.png"]}},
}  # fmt: skip


def same(one: Original | None, other: Original | None) -> bool:
    if one is None or other is None:
        return False
    return np.array_equal(one.pixels_HWC, other.pixels_HWC) and one.boxes_xyxy == other.boxes_xyxy


def expected(run: Run) -> dict[tuple[str, str], Original]:
    found = dict(originals(run.manifest, places_of(run)))
    assert len(found) == len(places_of(run)) >= 3
    return found


@pytest.mark.parametrize("older", [False, True], ids=["", "older"])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_each_image_is_that_of_reading_the_whole_shard(tmp_path: Path, kind: str, older: bool) -> None:
    run = opened(tmp_path / "run", CONTAINERS[kind](tmp_path), older=frozenset(range(9) if older else ()))
    with run, ImageReader(run) as reader:
        for place, original in expected(run).items():
            assert same(reader.original(*place), original), reader.note_for(*place)
            assert reader.note_for(*place) == reader.note == ""
        searched = kind == "gzip" or (older and kind not in ("folder", "manifest"))
        assert bool(reader.remark) == searched
        several = dict(reader.originals(places_of(run)))
        assert several.keys() == expected(run).keys()
        assert all(same(several[place], original) for place, original in expected(run).items())


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Record every ranged read, as (offset, length), and refuse to open a tar from its start."""
    found: list[tuple[int, int]] = []
    pread = os.pread

    def recorded(fd: int, length: int, offset: int) -> bytes:
        found.append((offset, length))
        return pread(fd, length, offset)

    def refused(*_: object) -> None:
        raise AssertionError("the tar was opened to read it from its start")

    monkeypatch.setattr(os, "pread", recorded)
    monkeypatch.setattr(tar_members, "open_shard", refused)
    return found


def test_an_image_of_a_tar_costs_exactly_one_read_of_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(tmp_path / "run", in_tar(tmp_path))
    known, extents = expected(run), run.extents(places_of(run))
    reads = counted(monkeypatch)
    with ImageReader(run) as reader:
        for place, extent in extents.items():
            reads.clear()
            assert same(reader.original(*place), known[place])
            assert reads == [(extent.sample_offset, extent.sample_bytes)]
        reads.clear()
        assert same(reader.original(*place, extent), known[place])
        assert len(reads) == 1
        assert len(dict(reader.originals([place]))) == 1


def test_older_rows_cost_one_look_at_the_headers_for_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(tmp_path / "run", in_tar(tmp_path), older=frozenset((0, 1)))
    known, looks = expected(run), []
    index = one_image.extents_of
    monkeypatch.setattr(one_image, "extents_of", lambda *given: looks.append(given[0].name) or index(*given))
    with ImageReader(run) as reader:
        assert all(same(reader.original(*place), original) for place, original in known.items())
        assert looks == ["s.tar"]
        assert "do not say where the images of s.tar lie" in reader.remark


def test_threads_share_a_reader_that_reads_boxes_and_labels_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PNG is decoded in a subprocess, a plain JPEG in the thread."""
    drawn = [(f"png{i}.png", saved(noise(40 + i, 36))) for i in range(6)]
    run = opened(tmp_path / "run", tar_data(tmp_path, tar_of([*boxed_samples(), *drawn])))
    prepared = []
    of = one_image.RunImages.of
    monkeypatch.setattr(one_image.RunImages, "of", lambda manifest: prepared.append(1) or of(manifest))
    with ImageReader(run) as reader, ThreadPoolExecutor(8) as pool:
        known = expected(run)
        found = list(pool.map(lambda place: (place, reader.original(*place)), places_of(run) * 5))
    assert all(same(original, known[place]) for place, original in found)
    assert prepared == [1]


def replaced(path: Path, data: bytes) -> None:
    """Put another file in place of one, as copying a new version of a dataset does."""
    path.with_name("other").write_bytes(data)
    path.with_name("other").replace(path)


def test_a_shard_that_was_replaced_or_is_gone_is_never_shown(tmp_path: Path) -> None:
    run = opened(tmp_path / "run", in_tar(tmp_path))
    place, path = places_of(run)[0], tmp_path / "s.tar"
    was = path.read_bytes()
    with ImageReader(run) as reader:
        original = reader.original(*place)
        assert original is not None
        replaced(path, tar_of([("000.jpg", jpeg(9)), *boxed_samples()[3:]]))
        assert reader.original(*place) is None
        assert "replaced since (restore it)" in reader.note_for("s.tar")
        assert dict(reader.originals([place])) == {}
        path.unlink()
        assert reader.original(*place) is None
        assert f"there is no file '{path}'" in reader.note_for("s.tar")
        assert reader.note == reader.note_for("s.tar")
        replaced(path, was)
        assert same(reader.original(*place), original)
        assert reader.note == reader.note_for("s.tar") == ""


def test_bytes_that_are_not_the_image_are_refused_even_if_the_shard_looks_the_same(tmp_path: Path) -> None:
    """The fingerprint covers both ends of a shard: what was replaced in its middle is noticed by the name there."""
    filler = [("big.jpg", jpeg(1) + b"\0" * 80_000)]
    files = [*filler, ("a.jpg", jpeg(3)), ("b.jpg", jpeg(3)), ("end.jpg", jpeg(1) + b"\0" * 80_000)]
    data = tar_data(tmp_path, tar_of(files))
    run = opened(tmp_path / "run", data)
    with ImageReader(run) as reader:
        assert reader.original("s.tar", "a") is not None
        swapped = [({"a": "b", "b": "a"}.get(name[0], name[0]) + name[1:] if len(name) == 5 else name, image)
                   for name, image in files]  # fmt: skip
        replaced(tmp_path / "s.tar", tar_of(swapped))
        assert reader.original("s.tar", "a") is None
        assert reader.note_for("s.tar") == ""
        assert "it is not where the run found it" in reader.note_for("s.tar", "a")
        files[1] = ("a.jpg", jpeg(3)[:-7])
        replaced(tmp_path / "s.tar", tar_of(files))
        assert reader.original("s.tar", "a") is None
        assert "bytes in the run, and has" in reader.note_for("s.tar", "a")


def test_a_place_outside_of_the_shard_is_refused(tmp_path: Path) -> None:
    run = opened(tmp_path / "run", in_tar(tmp_path))
    place = places_of(run)[1]
    extent = run.extents([place])[place]
    size = (tmp_path / "s.tar").stat().st_size
    with ImageReader(run) as reader:
        for wrong in (
            Extent(0, 1, None, -512, 1024), Extent(0, 1, None, 0, size + 1), Extent(0, 1, None, size, 1),
            Extent(0, 1, None, 0, -1), extent._replace(sample_bytes=1), extent._replace(sample_offset=512),
            extent._replace(sample_offset=7), run.extents(places_of(run))[places_of(run)[0]],
        ):  # fmt: skip
            assert reader.original(*place, wrong) is None
            assert reader.note_for(*place).startswith(f"'{place[1]}' cannot be shown")
        assert reader.original(*place, extent) is not None


@pytest.mark.parametrize("kind", ["tar", "table", "folder", "manifest"])
def test_hostile_names_are_images_that_are_not_there(tmp_path: Path, kind: str) -> None:
    run = opened(tmp_path / "run", CONTAINERS[kind](tmp_path))
    shard = places_of(run)[0][0]
    with ImageReader(run) as reader:
        for name in HOSTILE:
            assert reader.original(shard, name) is None
            assert reader.note_for(shard, name)
            assert reader.original(name, "000") is None
            assert reader.note_for(name) == f"The run has no shard '{name}'."
            assert reader.note == ""
        assert dict(reader.originals([(shard, name) for name in HOSTILE])) == {}


def test_an_image_that_failed_is_said_to_have_failed(tmp_path: Path) -> None:
    files = [*boxed_samples(), ("x.jpg", jpeg(1)[:300]), ("y.jpg", jpeg(2)), ("y.json", b"{")]
    run = opened(tmp_path / "run", tar_data(tmp_path, tar_of(files)))
    with ImageReader(run) as reader:
        assert reader.original("s.tar", "x") is None
        assert reader.note_for("s.tar", "x").startswith("'x' cannot be shown: ")
        assert reader.original("s.tar", "y") is None
        assert "it failed when it was read (read/labels)" in reader.note_for("s.tar", "y")


def test_a_run_whose_decoder_is_not_here_says_so(tmp_path: Path) -> None:
    run = opened(tmp_path / "run", in_tar(tmp_path))
    run.manifest.identity.data["decoder"] = {"name": "nowhere_at_all:decode", "source": "0"}
    with ImageReader(run) as reader:
        assert reader.original(*places_of(run)[0]) is None
        assert "nowhere_at_all" in reader.note
        assert reader.note_for("s.tar") == reader.note


def test_a_truncated_shard_of_which_the_rows_know_nothing_gives_what_is_left(tmp_path: Path) -> None:
    data = tar_of(boxed_samples())
    run = opened(tmp_path / "run", tar_data(tmp_path, data[:-12_000]), older=frozenset(range(9)))
    known = dict(originals(run.manifest, places_of(run)))
    with ImageReader(run) as reader:
        assert known
        assert all(same(reader.original(*place), original) for place, original in known.items())


def test_a_row_of_a_table_is_read_without_the_rows_before_its_group(tmp_path: Path) -> None:
    run = opened(tmp_path / "run", in_table(tmp_path))
    rows = run.extents(places_of(run))
    assert [rows["s.parquet", f"pic {i}.jpg"].image_row for i in range(10)] == list(range(10))
    with ImageReader(run) as reader:
        found = reader.original("s.parquet", "pic 9.jpg")
        assert same(found, expected(run)["s.parquet", "pic 9.jpg"])
        assert reader.original("s.parquet", "pic 9.jpg", Extent(image_row=8)) is None
        assert reader.original("s.parquet", "pic 9.jpg", Extent(image_row=10)) is None
        assert reader.original("s.parquet", "pic 9.jpg", Extent(image_row=-1)) is None


def test_reading_one_image_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    import subprocess
    import sys

    run = make_run(tmp_path / "run", in_tar(tmp_path))
    code = (
        "import sys\nfrom pipeline.results.query import open_run\n"
        "from pipeline.results.one_image import ImageReader\n"
        f"with open_run({str(run)!r}) as run, ImageReader(run) as reader:\n"
        "    assert reader.original('s.tar', '000') is not None\n"
        "assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[3])


def test_an_extent_that_says_nothing_is_looked_up(tmp_path: Path) -> None:
    run = opened(tmp_path / "run", in_tar(tmp_path))
    place = places_of(run)[0]
    assert run.extents([place, ("s.tar", "none"), ("other", "000")]).keys() == {place}
    with ImageReader(run) as reader:
        assert reader.original(*place, NOWHERE) is not None
        assert reader.remark == ""
