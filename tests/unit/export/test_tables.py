"""Iceberg and Delta tables: they use the files of the run, and have the rows that pyarrow reads from it."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from disk import failing
from e2e.runs import table_of
from faults.s3 import BUCKET, s3_server, use
from handmade import PARTS
from pictured import PicturedRun
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from pipeline.errors import ConfigError
from pipeline.export import export_run
from pipeline.storage.object_store import ObjectStore

FILES = [part.file for part in PARTS]


def in_order(table: pa.Table) -> list[dict[str, object]]:
    keys = [(key, "ascending") for key in ("shard", "image_key", "target", "method")]
    return table.sort_by(keys).to_pylist()


def moved(pictured: PicturedRun, folder: Path) -> Path:
    """Move the run into another folder, and return its new path."""
    folder.mkdir()
    return pictured.folder.rename(folder / "run")


def loaded(folder: Path) -> tuple[SqlCatalog, Table]:
    catalog = SqlCatalog("camatlas", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    return catalog, catalog.load_table("camatlas.parts")


@pytest.mark.parametrize("name", ["export", "é x", "a+b&c", "'; DROP TABLE x --", "[a]*{b}", "$HOME", "~x", "a:b"])
def test_iceberg_refers_to_the_files_of_the_run(pictured: PicturedRun, tmp_path: Path, name: str) -> None:
    run, dest = moved(pictured, tmp_path / name), tmp_path / name / "table"
    export_run(str(run), "iceberg", dest)
    catalog, table = loaded(dest)
    try:
        assert in_order(table.scan().to_arrow()) == in_order(table_of(run))
        assert table.scan(row_filter="method = 'gradcam' AND error_code IS NULL").to_arrow().num_rows == 4
        assert table.scan(selected_fields=("insertion_curve",)).to_arrow().num_rows == 10
        assert sorted(table.inspect.files()["file_path"].to_pylist()) == [f"file://{run}/{file}" for file in FILES]
        assert table.schema().find_field("target_logit").doc == "pre-softmax output of the target [logit]"
        assert table.schema().find_field("image_key").required
        assert table.properties["camatlas.run_id"] == pictured.manifest.run_id
    finally:
        catalog.close()
    assert list(dest.rglob("*.parquet")) == []


@pytest.mark.parametrize("name", ["a%20b", "a#b", "a?b", "a\\b"])
def test_iceberg_refuses_a_run_with_a_path_it_would_misread(
    pictured: PicturedRun, tmp_path: Path, dest: Path, name: str
) -> None:
    run = moved(pictured, tmp_path / name)
    with pytest.raises(ConfigError, match=r"RUN: .* contains one of % \? # "):
        export_run(str(run), "iceberg", dest)
    assert not dest.exists()


@pytest.mark.parametrize("name", ["export", "é x", "a+b&c", "[a]*{b}", "a:b"])
def test_delta_holds_the_files_of_the_run_as_links(pictured: PicturedRun, tmp_path: Path, name: str) -> None:
    run, dest = moved(pictured, tmp_path / name), tmp_path / name / "table"
    assert len(export_run(str(run), "delta", dest)) == 1
    table = DeltaTable(dest)
    assert in_order(pa.table(table.to_pyarrow_table())) == in_order(table_of(run))
    assert sorted(Path(uri).name for uri in table.file_uris()) == FILES
    assert all((dest / file).samefile(run / file) for file in FILES)
    assert table.version() == 0
    assert table.metadata().description == f"run {pictured.manifest.run_id}"
    fields = {field.name: field for field in table.schema().fields}
    assert fields["target_logit"].metadata == {"unit": "logit", "meaning": "pre-softmax output of the target"}


def test_delta_never_changes_a_file_that_the_run_shares(pictured: PicturedRun, dest: Path) -> None:
    before = {file: (pictured.folder / file).read_bytes() for file in FILES}
    export_run(str(pictured.folder), "delta", dest)
    table = DeltaTable(dest)
    table.delete("method = 'gradcam'")
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert DeltaTable(dest).to_pyarrow_table().num_rows == 6
    assert {file: (pictured.folder / file).read_bytes() for file in FILES} == before


def test_delta_has_statistics_to_skip_files_but_none_of_maps(pictured: PicturedRun, dest: Path) -> None:
    export_run(str(pictured.folder), "delta", dest)
    log = (dest / "_delta_log" / "00000000000000000000.json").read_text(encoding="utf-8")
    assert '\\"numRecords\\":4' in log
    assert '\\"minValues\\":' in log
    assert '\\"map_min\\"' not in log.partition('"add"')[2]


def test_delta_copies_and_reports_parts_that_cannot_be_linked(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(18))
    notes = export_run(str(pictured.folder), "delta", dest)
    assert notes[1:] == ["3 parts were copied, because they cannot be hard-linked"]
    assert in_order(pa.table(DeltaTable(dest).to_pyarrow_table())) == in_order(table_of(pictured.folder))


def test_a_run_in_an_object_store_is_copied_or_refused(
    pictured: PicturedRun, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/run"
    with s3_server() as server:
        use(server, monkeypatch)
        pictured.work(ObjectStore(url))
        with pytest.raises(ConfigError, match=f"RUN: '{url}' is not a local folder"):
            export_run(url, "iceberg", dest)
        assert export_run(url, "delta", dest)[1:] == ["3 parts were copied, because they cannot be hard-linked"]
        export_run(url, "hf", dest.with_name("hf"))
    assert in_order(pa.table(DeltaTable(dest).to_pyarrow_table())) == in_order(table_of(pictured.folder))
    found = [pq.read_table(path).num_rows for path in dest.with_name("hf").rglob("*.parquet")]
    assert sum(found) == 10
