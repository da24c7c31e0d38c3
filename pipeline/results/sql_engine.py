"""Sandboxed SQL on the tables of one run or of an atlas: DuckDB without access to files or the network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset

from pipeline.errors import ConfigError, DamagedRunError, StoreError, first_line, nearest
from pipeline.maps.codec import FloatArray
from pipeline.results.map_tables import MAP_COLUMNS, decode_table, enlarged_maps
from pipeline.results.views import MAP_VALUES
from pipeline.storage.base import Store
from pipeline.storage.checksums import open_checksummed
from pipeline.storage.merged import Files, is_lost, rows_of
from pipeline.storage.parts import Footer, read_part
from pipeline.storage.store import is_unanswered

T = TypeVar("T")
SqlParameters = Sequence[object] | Mapping[str, object] | None
"""The values of `?` in a query, in order, or of `$name`, by name."""
_PARALLEL_READS = 16
"""Footers read in parallel."""
SCRATCH_LIMIT = "1500MB"
"""Memory of the queries of a connection that may write intermediate results to a folder."""
_LONGEST_PROBLEM = 2000
"""Characters of an error message of DuckDB."""
_USAGE_ERRORS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.PermissionException,
    duckdb.ConversionException,
    duckdb.NotImplementedException,
)
"""Errors that DuckDB raises for an invalid query; other errors may come from a file that could not be read."""


def quoted(name: str) -> str:
    """Quote the name of a column for SQL."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class RunFiles:
    """The files of a table and the store that holds them."""

    store: Store
    files: Files

    def refuse_damage(self) -> None:
        """Read every file completely; raise DamagedRunError if one is damaged."""
        merged = frozenset(self.files.merged)
        for name in self.files.names:
            with damage_named(self.store, name):
                data = self.store.read(name)
                if name in merged:
                    open_checksummed(data).read()
                else:
                    read_part(data)


class Tables:
    """Tables and views that can be queried; close it, or use it as a context manager.

    Args:
        tables: the tables by name; names must be constants, as they are part of SQL statements.
        statements: SQL statements that create the views.
        views: names of the views, for messages.
        scratch: an empty folder for large intermediate results. With it, queries hold at most SCRATCH_LIMIT in memory.
    """

    def __init__(
        self, tables: Mapping[str, RunFiles | pa.Table], statements: Sequence[str], views: Sequence[str],
        scratch: str | None = None,
    ) -> None:  # fmt: skip
        self._views = f"views: {', '.join(views)}"
        self._files: dict[str, RunFiles] = {}
        self._opened: dict[str, pa.dataset.Dataset] = {}
        spilling = {} if scratch is None else {"temp_directory": scratch, "memory_limit": SCRATCH_LIMIT}
        self._connection = duckdb.connect(
            ":memory:", config={"enable_external_access": "false", "python_enable_replacements": "false", **spilling}
        )
        for name, table in tables.items():
            self._register(name, table)
        with self._translated_errors():
            for statement in (*MAP_VALUES, *statements, "SET lock_configuration = true"):
                self._connection.execute(statement)

    def sql(self, query: str, parameters: SqlParameters = None) -> pd.DataFrame:
        """Run a SELECT statement and return a data frame; each `?` (or `$name`) stands for a parameter.

        Raises:
            ConfigError: the query is invalid.
            DamagedRunError: a file cannot be read.
            StoreError: a store does not respond, or failed temporarily.
        """
        frame: pd.DataFrame = self.arrow(query, parameters).to_pandas()
        return frame

    def arrow(self, query: str, parameters: SqlParameters = None) -> pa.Table:
        """Run a SELECT statement and return an Arrow table; raises the same errors as `sql`."""
        return self._run_query(lambda: self._relation(query, parameters).to_arrow_table())

    def columns(self, query: str) -> dict[str, str]:
        """Return the columns of a SELECT statement with their SQL types, without running it; raises as `sql` does."""
        with self._translated_errors():
            relation = self._relation(query, None)
            return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def batches(self, query: str, parameters: Sequence[object] | None = None, rows: int = 4096) -> Iterator[pa.Table]:
        """Run a SELECT statement and yield its rows in batches, before any other query; raises the errors of `sql`."""
        with self._translated_errors():
            reader = self._run_query(lambda: self._relation(query, parameters).to_arrow_reader(rows))
            with reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])

    def keep(self, view: str) -> None:
        """Compute a view once, so that later queries read its rows instead; its name must be a constant."""
        with self._translated_errors():
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {view} AS SELECT * FROM memory.main.{view}")  # noqa: S608

    @contextmanager
    def with_table(self, name: str, table: pa.Table) -> Iterator[None]:
        """Let queries read a small table by a name, which must be a constant."""
        self._connection.register(name, table)
        try:
            yield
        finally:
            self._connection.unregister(name)

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Return columns of `explanations` as an Arrow table.

        Args:
            columns: names of the columns; None for all.
            where: a SQL condition, for example "method = 'gradcam' AND pointing_game = 0".
        """
        return self._run_query(lambda: self._filtered(columns, where))

    def maps(self, where: str | None = None, size: tuple[int, int] | None = None) -> FloatArray:
        """Return the decoded maps that meet a SQL condition, as (N, u, v) float32 in the order of `table`.

        `torch.from_numpy` makes a tensor of them without a copy.

        Args:
            where: a SQL condition.
            size: (H, W) to upsample the maps to, bilinearly, like heat maps; values are not scaled to [0, 1].

        Raises:
            ValueError: the maps do not all have the same grid; narrow the condition to one layer.
        """
        maps_Nuv = decode_table(self.table(MAP_COLUMNS, where))
        return maps_Nuv if size is None else enlarged_maps(maps_Nuv, size)

    def interrupt(self) -> None:
        """Interrupt the running query; call this from another thread."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the connection and release the files."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def refuse_damage(self) -> None:
        """Read every file completely; raise DamagedRunError if one is damaged."""
        for table in self._files.values():
            table.refuse_damage()

    def _register(self, name: str, table: RunFiles | pa.Table) -> None:
        if isinstance(table, pa.Table):
            self._connection.register(name, table)
            return
        try:
            opened = rows_of(table.store.dataset(table.files.names), table.files)
            _refuse_misplaced_parts(opened, table)
        except (pa.ArrowException, OSError) as error:
            if not is_lost(table.store, table.files):
                table.refuse_damage()
                raise DamagedRunError(unreadable(table.store, table.files.names[0], error)) from None
            self._register(name, RunFiles(table.store, table.files.without_merged()))
        else:
            self._files[name], self._opened[name] = table, opened
            self._connection.register(name, opened)

    def _relation(self, query: str, parameters: SqlParameters) -> duckdb.DuckDBPyRelation:
        query.encode()  # raises UnicodeEncodeError for lone surrogates
        without_tabs = query.replace("\t", " ")  # DuckDB leaves tabs out when it places carets
        try:
            statements = self._connection.extract_statements(query)
        except duckdb.ParserException:
            self._connection.extract_statements(without_tabs)
            raise
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise ConfigError.one("SQL", "the query must be exactly one SELECT", self._views)
        try:
            return self._connection.sql(query, params=parameters or None)
        except (duckdb.BinderException, duckdb.CatalogException):
            self._connection.execute(without_tabs, parameters or None)  # raises the same, with its line and carets
            raise

    def _filtered(self, columns: Sequence[str] | None, where: str | None) -> pa.Table:
        relation = self._connection.view("explanations")
        unknown = [name for name in columns or () if name not in relation.columns]
        if unknown:
            raise ConfigError.one("SQL", f"no column '{unknown[0]}'", nearest(unknown[0], relation.columns))
        relation = relation.filter(where) if where else relation
        return (relation.select(*map(duckdb.ColumnExpression, columns)) if columns else relation).to_arrow_table()

    def _run_query(self, execute: Callable[[], T]) -> T:
        """Execute a query, and again from parts if a compaction replaced the merged copy since it was opened."""
        with self._translated_errors():
            try:
                return execute()
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if isinstance(error, _USAGE_ERRORS) or not self._fall_back_to_parts():
                    raise
                return execute()

    def _fall_back_to_parts(self) -> bool:
        """Switch tables whose merged copy was deleted to their parts; return False if there are none."""
        gone = {name: table for name, table in self._files.items() if is_lost(table.store, table.files)}
        for name, table in gone.items():
            self._register(name, RunFiles(table.store, table.files.without_merged()))
        return bool(gone)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Turn errors of DuckDB and pyarrow into ConfigError, DamagedRunError or StoreError."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, UnicodeEncodeError) as error:
            if not isinstance(error, _USAGE_ERRORS):
                for table in self._files.values():
                    table.refuse_damage()
                    if f"{table.store.url}/" in str(error):  # the error names a file, which is readable now
                        raise StoreError(
                            f"{first_line(error)}. The file can be read now: run the query again."
                        ) from None
            raise ConfigError.one("SQL", _sql_problem(error), self._views) from None


def _sql_problem(error: BaseException) -> str:
    """Format an error of a query; those of DuckDB keep their lines, since a line of carets marks the place."""
    if not isinstance(error, duckdb.Error):
        return first_line(error)
    lines = [line.rstrip() for line in str(error).splitlines()]
    return "\n".join(line for line in lines if line)[:_LONGEST_PROBLEM]


def _refuse_misplaced_parts(opened: pyarrow.dataset.Dataset, table: RunFiles) -> None:
    """Raise DamagedRunError for an intact part of another chunk or run, whose rows would be duplicates.

    Footers are read in parallel, and pyarrow keeps them for later queries.
    """
    expected = {part.file: part for part in table.files.unmerged}
    fragments = [found for found in opened.get_fragments() if found.path.rpartition("/")[2] in expected]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        for fragment, metadata in zip(fragments, pool.map(lambda found: found.metadata, fragments), strict=True):
            part = expected[fragment.path.rpartition("/")[2]]
            with damage_named(table.store, part.file):
                footer = Footer.from_metadata(metadata.metadata)
            if wrong := list(footer.contradictions(part, table.files.run_id, table.files.earlier)):
                raise DamagedRunError(f"{table.store.url}/{part.file} {'; '.join(wrong)}; run `camatlas verify`")


@contextmanager
def damage_named(store: Store, name: str) -> Iterator[None]:
    """Turn read errors into a DamagedRunError that names the file; outages of the store stay StoreError."""
    try:
        yield
    except (ValueError, OSError, pa.ArrowException, StoreError) as error:
        if is_unanswered(error):
            raise
        raise DamagedRunError(unreadable(store, name, error)) from None


def unreadable(store: Store, name: str, error: BaseException) -> str:
    """Format the message that a file of a run cannot be read."""
    return f"{store.url}/{name} cannot be read ({first_line(error)}); run `camatlas verify`"
