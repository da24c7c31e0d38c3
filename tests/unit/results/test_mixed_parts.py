"""A folder may hold parts of this version and of earlier ones, which do not say where images lie."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from handmade import PARTS, RunMaker
from located import boxed_samples, make_run, older_part
from tars import tar_of
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.audit.facts import audit
from pipeline.export import export_run
from pipeline.results.agreement import agreement
from pipeline.results.atlas import open_atlas
from pipeline.results.query import Run, open_run
from pipeline.results.verify import verify
from pipeline.storage.compaction import compact
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import Footer, read_part
from schemas.explanation import METADATA_FIELD, SOURCE_FIELDS, explanation_schema, metric_names, with_source

NAMES = [field.name for field in SOURCE_FIELDS]
MIXTURES = {"none": frozenset[int](), "first": frozenset((0,)), "last": frozenset((1,)), "all": frozenset((0, 1))}
Make = Callable[[str], Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Write a run of two parts with four images, of which an earlier version wrote some."""
    (tmp_path / "s.tar").write_bytes(tar_of(boxed_samples()))
    data = {"shards": str(tmp_path / "s.tar")}
    return lambda mixture: make_run(tmp_path / "runs" / mixture, data, older=MIXTURES[mixture])


def rows_of(run: Run, columns: str = "*") -> pa.Table:
    return run.arrow(f"SELECT {columns} FROM parts ORDER BY ALL")


@pytest.mark.parametrize("mixture", MIXTURES)
def test_all_rows_are_read_with_one_schema(made: Make, mixture: str) -> None:
    with open_run(made("none")) as whole, open_run(made(mixture)) as run:
        assert run.schema.equals(explanation_schema())
        older = f"* EXCLUDE ({', '.join(NAMES)})"
        assert rows_of(run, older).equals(rows_of(whole, older))
        places = run.arrow("SELECT chunk, image_offset, sample_bytes FROM images").to_pylist()
        assert {place["chunk"] for place in places if place["image_offset"] is None} == MIXTURES[mixture]
        assert {place["chunk"] for place in places if place["sample_bytes"] is None} == MIXTURES[mixture]
        assert run.table().num_rows == run.table(["image_row"]).num_rows == 8
        assert all(table.schema.equals(explanation_schema()) for _, table in run.tables())
        assert agreement(run).num_rows


@pytest.mark.parametrize("mixture", MIXTURES)
def test_it_verifies_and_is_compacted_without_a_change_of_its_rows(made: Make, mixture: str) -> None:
    store = LocalStore(made(mixture))
    with open_run(store.folder) as run:
        before = rows_of(run)
    assert not (findings := verify(store)).problems
    assert (findings.images, findings.rows) == (4, 8)
    assert compact(store).new
    assert not compact(store).new
    assert not verify(store).problems
    with open_run(store.folder) as run:
        assert rows_of(run).equals(before)
        places = {("s.tar", f"{i:03d}") for i in range(4)}
        known = {key for _, key in run.extents(places)}
    assert known == {f"{i:03d}" for i in range(4) if i // 3 not in MIXTURES[mixture]}


@pytest.mark.parametrize("target", ["hf", "delta", "iceberg"])
@pytest.mark.parametrize("mixture", ["first", "last"])
def test_it_is_exported(made: Make, tmp_path: Path, target: str, mixture: str) -> None:
    export_run(str(made(mixture)), target, str(tmp_path / "out"))
    if target == "delta":
        from deltalake import DeltaTable

        table = DeltaTable(str(tmp_path / "out")).to_pyarrow_table()
    elif target == "iceberg":
        from pyiceberg.catalog.sql import SqlCatalog

        catalog = SqlCatalog("camatlas", uri=f"sqlite:///{tmp_path}/out/catalog.db")
        table = catalog.load_table("camatlas.parts").scan().to_arrow()
        catalog.close()
    else:
        import pyarrow.dataset as ds

        table = ds.dataset(tmp_path / "out" / "explanations").to_table()
    assert table.num_rows == 8
    assert pc.count(table["image_offset"]).as_py() == {"first": 2, "last": 6}[mixture]


@pytest.mark.parametrize("mixture", ["first", "all"])
def test_it_is_shown(made: Make, tmp_path: Path, mixture: str) -> None:
    shown = CliRunner().invoke(app, ["show", str(made(mixture)), "000", "003", "--out", str(tmp_path / "s.png")])
    assert (shown.exit_code, shown.stderr) == (0, "")


def mixed(maker: RunMaker) -> RunMaker:
    """Let the first part of a run be one of an earlier version."""
    maker.owned().publish(*PARTS[1:])
    maker.store.publish(PARTS[0].file, older_part(maker.table(PARTS[0]), maker.footer(PARTS[0])))
    return maker


def test_it_is_audited_like_a_run_of_one_kind(maker: RunMaker, tmp_path: Path) -> None:
    with open_run(mixed(maker).folder) as run, open_run(RunMaker(tmp_path / "other").complete().folder) as other:
        mine, theirs = audit(run, run).facts, audit(other, other).facts
    assert mine["leaderboard"]["rows"] == theirs["leaderboard"]["rows"]


def test_runs_that_differ_in_their_columns_are_one_atlas(tmp_path: Path) -> None:
    mixed(RunMaker(tmp_path / "atlas" / "a"))
    RunMaker(tmp_path / "atlas" / "b", seed=5).complete()
    with open_atlas(tmp_path / "atlas") as atlas:
        counts = atlas.arrow("SELECT run, count(*) AS n FROM images GROUP BY 1").to_pylist()
        assert [row["n"] for row in counts] == [5, 5]
        assert atlas.arrow("SELECT sample_offset FROM explanations").num_rows == 14


@pytest.mark.parametrize("has_metadata", [False, True])
def test_the_missing_columns_are_added_at_their_place(*, has_metadata: bool) -> None:
    fields = [pa.field("drop", pa.float32())]
    today = explanation_schema(fields, has_metadata=has_metadata)
    older = pa.schema([field for field in today if field.name not in NAMES])
    assert with_source(older.empty_table()).schema.equals(today)
    assert metric_names(older) == metric_names(today) == ["drop"]
    assert (today.names[-1] == METADATA_FIELD.name) == has_metadata


def test_a_part_of_an_earlier_version_is_not_changed_by_reading(made: Make) -> None:
    part = made("all") / "part-00000-000.parquet"
    table, footer = read_part(part.read_bytes())
    assert isinstance(footer, Footer)
    assert not set(NAMES) & set(table.column_names)
