"""What holds for every target: the run stays as it is, nothing is written over, and nothing half is left."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disk import everything_in, failing
from handmade import PARTS
from pictured import PicturedRun

from pipeline.data.sources.shards import Failure
from pipeline.errors import ConfigError, DamagedRunError
from pipeline.explain.rows import failure_row, to_table
from pipeline.export import TARGETS, export_run
from pipeline.results.query import Run
from pipeline.results.verify import verify
from pipeline.storage.run_folder import PartName

each_target = pytest.mark.parametrize("target", TARGETS)
PACKAGES = {"delta": "deltalake", "hf": "datasets", "iceberg": "pyiceberg.catalog.sql"}


def content(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@each_target
def test_the_run_stays_as_it_is(pictured: PicturedRun, dest: Path, target: str) -> None:
    before = content(pictured.folder)
    notes = export_run(str(pictured.folder), target, dest)
    assert notes == [f"7 explanations; 3 failures: {TARGETS[target].failures}"]
    assert content(pictured.folder) == before
    assert verify(pictured.store).problems == []


@each_target
def test_a_second_export_is_refused_and_changes_nothing(pictured: PicturedRun, dest: Path, target: str) -> None:
    export_run(str(pictured.folder), target, dest)
    before = content(dest)
    with pytest.raises(ConfigError, match=r"DEST: .* is not an empty folder"):
        export_run(str(pictured.folder), target, dest)
    assert content(dest) == before


@each_target
def test_a_damaged_part_leaves_nothing_behind(pictured: PicturedRun, dest: Path, target: str) -> None:
    part = pictured.folder / PARTS[1].file
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DamagedRunError, match=PARTS[1].file):
        export_run(str(pictured.folder), target, dest)
    assert not dest.exists()


@pytest.mark.parametrize("target", ["fiftyone", "hf", "spotlight"])
def test_damage_that_shows_only_in_the_rows_leaves_an_empty_folder_empty(
    pictured: PicturedRun, dest: Path, target: str
) -> None:
    part = pictured.folder / PARTS[2].file
    column = pq.read_metadata(part).row_group(0).column(pictured.schema.names.index("map"))
    data = bytearray(part.read_bytes())
    data[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = bytes(
        column.total_compressed_size
    )
    part.write_bytes(data)
    dest.mkdir(parents=True)
    with pytest.raises(DamagedRunError, match=PARTS[2].file):
        export_run(str(pictured.folder), target, dest)
    assert everything_in(dest) == []


@each_target
def test_a_full_disk_is_told_and_leaves_nothing_behind(
    pictured: PicturedRun, dest: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = TARGETS[target].write

    def write(run: Run, folder: Path) -> list[str]:
        honest(run, folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(TARGETS, target, replace(TARGETS[target], write=write))
    with pytest.raises(ConfigError, match=r"DEST: cannot write to .*: No space left on device"):
        export_run(str(pictured.folder), target, dest)
    assert not dest.exists()
    assert dest.parent.is_dir()


def taken_away(part: Path) -> None:
    part.unlink()


def broken_off(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-20])


def closed_to_us(part: Path) -> None:
    """A link is as unreadable to us as a file of another user."""
    part.rename(part.with_suffix(".away"))
    part.symlink_to(part.with_suffix(".away").name + "s")


@each_target
@pytest.mark.parametrize("harm", [taken_away, broken_off, closed_to_us])
def test_what_cannot_be_read_of_the_run_is_no_trouble_of_the_destination(
    pictured: PicturedRun,
    dest: Path,
    target: str,
    harm: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run is harmed while it is exported."""
    honest = TARGETS[target].write

    def write(run: Run, folder: Path) -> Sequence[str]:
        harm(pictured.folder / PARTS[1].file)
        return honest(run, folder)

    monkeypatch.setitem(TARGETS, target, replace(TARGETS[target], write=write))
    with pytest.raises(DamagedRunError, match=PARTS[1].file):
        export_run(str(pictured.folder), target, dest)
    assert not dest.exists()


def test_a_folder_that_refuses_is_told_of_the_destination_though_the_run_is_read_once_more(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "hf", replace(TARGETS["hf"], write=failing(13)))
    with pytest.raises(ConfigError, match=r"DEST: cannot write to .*: Permission denied"):
        export_run(str(pictured.folder), "hf", dest)
    assert not dest.exists()


def test_a_stop_leaves_nothing_behind(pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> list[str]:
        (dest / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setitem(TARGETS, "hf", replace(TARGETS["hf"], write=stop))
    with pytest.raises(KeyboardInterrupt):
        export_run(str(pictured.folder), "hf", dest)
    assert not dest.exists()


@pytest.mark.parametrize("place", ["run", "run/_export", "run/sub/er", "link/x", "a%20b", "a?b", "a#b", "a\\b", "data"])
def test_places_that_do_not_suit_are_refused(pictured: PicturedRun, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    before = everything_in(tmp_path)
    with pytest.raises(ConfigError, match=r"^DEST: "):
        export_run(str(pictured.folder), "delta", Path(tmp_path, place))
    assert everything_in(tmp_path) == before


def test_a_place_in_an_object_store_is_refused(
    pictured: PicturedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = everything_in(tmp_path)
    with pytest.raises(ConfigError, match=r"^DEST: 's3://bucket/x' is no local folder"):
        export_run(str(pictured.folder), "hf", "s3://bucket/x")
    assert everything_in(tmp_path) == before


def test_a_file_in_the_way_is_refused(pictured: PicturedRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for place in ("file", "file/below"):
        with pytest.raises(ConfigError, match=r"^DEST: "):
            export_run(str(pictured.folder), "hf", tmp_path / place)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_place_that_cannot_be_written_to_is_told(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(30))
    with pytest.raises(ConfigError, match=r"DEST: cannot write to .*: Read-only file system"):
        export_run(str(pictured.folder), "hf", dest)


@pytest.mark.parametrize(("target", "package"), PACKAGES.items())
def test_a_missing_package_is_told(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch, target: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"--to: .* is not installed \(pip install 'camatlas\[export\]'\)"):
        export_run(str(pictured.folder), target, dest)
    assert not dest.exists()


def test_an_unknown_target_is_told(pictured: PicturedRun, dest: Path) -> None:
    with pytest.raises(ConfigError, match=r"--to: unknown target 'icebreg' \(did you mean 'iceberg'\?\)"):
        export_run(str(pictured.folder), "icebreg", dest)


@each_target
def test_a_run_without_an_explanation_is_refused(tmp_path: Path, dest: Path, target: str) -> None:
    class Failed(PicturedRun):
        def table(self, part: PartName) -> pa.Table:
            failure = Failure(self.image(part, 0), self.shards[part.shard], "decode", "truncated", "")
            return to_table([failure_row(failure, part.chunk)], self.schema)

    run = Failed(tmp_path / "run").complete()
    with pytest.raises(ConfigError, match="RUN: it holds no explanation"):
        export_run(str(run.folder), target, dest)
    assert not dest.exists()


@each_target
def test_a_run_that_is_not_finished_is_exported_as_far_as_it_is(tmp_path: Path, dest: Path, target: str) -> None:
    run = PicturedRun(tmp_path / "run").complete()
    for name in (PARTS[2].file, PARTS[2].receipt):
        (run.folder / name).unlink()
    assert export_run(str(run.folder), target, dest)[0].startswith("5 explanations; 1 failures")
