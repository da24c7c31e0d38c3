"""All export targets: the run does not change, nothing is overwritten, and no partial export is left."""

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
def test_the_run_does_not_change(pictured: PicturedRun, dest: Path, target: str) -> None:
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
def test_damage_found_while_reading_rows_leaves_an_empty_folder_empty(
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
def test_a_full_disk_is_reported_and_leaves_nothing_behind(
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


def delete(part: Path) -> None:
    part.unlink()


def truncate(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-20])


def make_unreadable(part: Path) -> None:
    """Replace a part by a dangling link, which is as unreadable as a file of another user."""
    part.rename(part.with_suffix(".away"))
    part.symlink_to(part.with_suffix(".away").name + "s")


@each_target
@pytest.mark.parametrize("harm", [delete, truncate, make_unreadable])
def test_unreadable_parts_are_reported_as_damage_and_not_as_errors_of_the_destination(
    pictured: PicturedRun,
    dest: Path,
    target: str,
    harm: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run is damaged while it is exported."""
    honest = TARGETS[target].write

    def write(run: Run, folder: Path) -> Sequence[str]:
        harm(pictured.folder / PARTS[1].file)
        return honest(run, folder)

    monkeypatch.setitem(TARGETS, target, replace(TARGETS[target], write=write))
    with pytest.raises(DamagedRunError, match=PARTS[1].file):
        export_run(str(pictured.folder), target, dest)
    assert not dest.exists()


def test_permission_errors_are_reported_for_the_destination_if_the_run_is_sound(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "hf", replace(TARGETS["hf"], write=failing(13)))
    with pytest.raises(ConfigError, match=r"DEST: cannot write to .*: Permission denied"):
        export_run(str(pictured.folder), "hf", dest)
    assert not dest.exists()


def test_an_interrupt_leaves_nothing_behind(pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> list[str]:
        (dest / "half").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setitem(TARGETS, "hf", replace(TARGETS["hf"], write=stop))
    with pytest.raises(KeyboardInterrupt):
        export_run(str(pictured.folder), "hf", dest)
    assert not dest.exists()


@pytest.mark.parametrize("place", ["run", "run/_export", "run/sub/er", "link/x", "a%20b", "a?b", "a#b", "a\\b", "data"])
def test_unsuitable_destinations_are_refused(pictured: PicturedRun, tmp_path: Path, place: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    before = everything_in(tmp_path)
    with pytest.raises(ConfigError, match=r"^DEST: "):
        export_run(str(pictured.folder), "delta", Path(tmp_path, place))
    assert everything_in(tmp_path) == before


def test_a_destination_in_an_object_store_is_refused(
    pictured: PicturedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = everything_in(tmp_path)
    with pytest.raises(ConfigError, match=r"^DEST: 's3://bucket/x' is not a local folder"):
        export_run(str(pictured.folder), "hf", "s3://bucket/x")
    assert everything_in(tmp_path) == before


def test_a_destination_that_is_a_file_is_refused(pictured: PicturedRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for place in ("file", "file/below"):
        with pytest.raises(ConfigError, match=r"^DEST: "):
            export_run(str(pictured.folder), "hf", tmp_path / place)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_destination_that_cannot_be_written_to_is_reported(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(30))
    with pytest.raises(ConfigError, match=r"DEST: cannot write to .*: Read-only file system"):
        export_run(str(pictured.folder), "hf", dest)


@pytest.mark.parametrize(("target", "package"), PACKAGES.items())
def test_a_missing_package_is_reported(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch, target: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"--to: .* is not installed \(pip install 'camatlas\[export\]'\)"):
        export_run(str(pictured.folder), target, dest)
    assert not dest.exists()


def test_an_unknown_target_is_reported(pictured: PicturedRun, dest: Path) -> None:
    with pytest.raises(ConfigError, match=r"--to: unknown target 'icebreg' \(did you mean 'iceberg'\?\)"):
        export_run(str(pictured.folder), "icebreg", dest)


@each_target
def test_a_run_without_an_explanation_is_refused(tmp_path: Path, dest: Path, target: str) -> None:
    class Failed(PicturedRun):
        def table(self, part: PartName) -> pa.Table:
            failure = Failure(self.image(part, 0), self.shards[part.shard], "decode", "truncated", "")
            return to_table([failure_row(failure, part.chunk)], self.schema)

    run = Failed(tmp_path / "run").complete()
    with pytest.raises(ConfigError, match="RUN: the run holds no explanations"):
        export_run(str(run.folder), target, dest)
    assert not dest.exists()


@each_target
def test_an_unfinished_run_is_exported_as_it_is_so_far(tmp_path: Path, dest: Path, target: str) -> None:
    run = PicturedRun(tmp_path / "run").complete()
    for name in (PARTS[2].file, PARTS[2].receipt):
        (run.folder / name).unlink()
    assert export_run(str(run.folder), target, dest)[0].startswith("5 explanations; 1 failures")
