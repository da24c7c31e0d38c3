"""Tables of runs in a DuckDB that can do no harm: what questions to one run and to an atlas of runs have in common."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset

from pipeline.errors import ConfigError, DamagedRunError, StoreError, first_line, nearest
from pipeline.maps.codec import EncodedMap, FloatArray, decode, decode_stack
from pipeline.results.views import MAP_VALUES
from pipeline.storage.base import Store
from pipeline.storage.checksums import open_checksummed
from pipeline.storage.merged import Files, is_lost, narrowed
from pipeline.storage.parts import Footer, read_part
from pipeline.storage.store import is_unanswered

T = TypeVar("T")
_AT_ONCE = 16
"""Footers read at the same time."""
MAP_COLUMNS = ("map", "map_height", "map_width", "map_dtype", "map_min", "map_max")
_MISTAKES = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.PermissionException,
    duckdb.ConversionException,
    duckdb.NotImplementedException,
)
"""What DuckDB raises for a wrong question; anything else may come from a part that it could not read."""


@dataclass(frozen=True)
class RunFiles:
    """The files that a table is read from, and where they lie."""

    store: Store
    files: Files

    def refuse_damage(self) -> None:
        """Read every file once more; raises DamagedRunError for one that cannot be."""
        merged = frozenset(self.files.merged)
        for name in self.files.names:
            with damage_named(self.store, name):
                data = self.store.read(name)
                if name in merged:
                    open_checksummed(data).read()
                else:
                    read_part(data)


class Tables:
    """Questions to tables; close it, or use it as a context manager.

    Args:
        tables: what to ask, under names of our own.
        statements: what makes the views on them.
        views: their names, for messages.
    """

    def __init__(
        self, tables: Mapping[str, RunFiles | pa.Table], statements: Sequence[str], views: Sequence[str]
    ) -> None:
        self._views = f"views: {', '.join(views)}"
        self._files: dict[str, RunFiles] = {}
        self._opened: dict[str, pa.dataset.Dataset] = {}
        self._connection = duckdb.connect(
            ":memory:", config={"enable_external_access": "false", "python_enable_replacements": "false"}
        )
        for name, table in tables.items():
            self._hand_in(name, table)
        with self._refusals():
            for statement in (*MAP_VALUES, *statements, "SET lock_configuration = true"):
                self._connection.execute(statement)

    def sql(self, query: str, parameters: Sequence[object] | None = None) -> pd.DataFrame:
        """Answer a SQL question as a data frame; `?` in the query stands for the parameters.

        Raises:
            ConfigError: DuckDB refuses the query.
            DamagedRunError: a file cannot be read.
            StoreError: a store does not answer, or did not for a while.
        """
        frame: pd.DataFrame = self.arrow(query, parameters).to_pandas()
        return frame

    def arrow(self, query: str, parameters: Sequence[object] | None = None) -> pa.Table:
        """Answer a SQL question as an Arrow table; raises as `sql` does."""
        return self._asked(lambda: self._select(query, parameters))

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Give columns of `explanations` as an Arrow table.

        Args:
            columns: names; None gives all.
            where: a SQL condition, for example "method = 'gradcam' AND pointing_game = 0".
        """
        return self._asked(lambda: self._filtered(columns, where))

    def maps(self, where: str | None = None, size: tuple[int, int] | None = None) -> FloatArray:
        """Give the maps that meet a SQL condition, decoded, as (N, u, v) float32 in the order of `table`.

        Args:
            where: a SQL condition.
            size: (H, W) to enlarge the maps to, bilinearly, as heat maps are; the values stay raw. `torch.from_numpy`
                makes a tensor of them without a copy.

        Raises:
            ValueError: the maps do not all have the same grid; narrow the condition to one layer.
        """
        maps_Nuv = decode_table(self.table(MAP_COLUMNS, where))
        return maps_Nuv if size is None else _enlarged(maps_Nuv, size)

    def interrupt(self) -> None:
        """End the question that is being answered; for other threads than the one that asks."""
        self._connection.interrupt()

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def refuse_damage(self) -> None:
        """Read every file once more; raises DamagedRunError for one that cannot be."""
        for table in self._files.values():
            table.refuse_damage()

    def _hand_in(self, name: str, table: RunFiles | pa.Table) -> None:
        if isinstance(table, pa.Table):
            self._connection.register(name, table)
            return
        try:
            opened = narrowed(table.store.dataset(table.files.names), table.files)
            _refuse_misplaced(opened, table)
        except (pa.ArrowException, OSError) as error:
            if not is_lost(table.store, table.files):
                table.refuse_damage()
                raise DamagedRunError(unreadable(table.store, table.files.names[0], error)) from None
            self._hand_in(name, RunFiles(table.store, table.files.without_merged()))
        else:
            self._files[name], self._opened[name] = table, opened
            self._connection.register(name, opened)

    def _select(self, query: str, parameters: Sequence[object] | None) -> pa.Table:
        query.encode()  # what is no text cannot be a question
        statements = self._connection.extract_statements(query)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise ConfigError.one("SQL", "it takes exactly one SELECT", self._views)
        return self._connection.sql(query, params=parameters or None).to_arrow_table()

    def _filtered(self, columns: Sequence[str] | None, where: str | None) -> pa.Table:
        relation = self._connection.view("explanations")
        unknown = [name for name in columns or () if name not in relation.columns]
        if unknown:
            raise ConfigError.one("SQL", f"no column '{unknown[0]}'", nearest(unknown[0], relation.columns))
        relation = relation.filter(where) if where else relation
        return (relation.select(*map(duckdb.ColumnExpression, columns)) if columns else relation).to_arrow_table()

    def _asked(self, ask: Callable[[], T]) -> T:
        """Ask; once more when a merged copy was replaced by another compaction since it was opened."""
        with self._refusals():
            try:
                return ask()
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if isinstance(error, _MISTAKES) or not self._left_for_parts():
                    raise
                return ask()

    def _left_for_parts(self) -> bool:
        """Read parts, the same ones as before, where a merged copy is gone; False when none is."""
        gone = {name: table for name, table in self._files.items() if is_lost(table.store, table.files)}
        for name, table in gone.items():
            self._hand_in(name, RunFiles(table.store, table.files.without_merged()))
        return bool(gone)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what DuckDB and pyarrow raise into our sentences."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, UnicodeEncodeError) as error:
            if not isinstance(error, _MISTAKES):
                for table in self._files.values():
                    table.refuse_damage()
                    if f"{table.store.url}/" in str(error):  # as our sentences, and pyarrow's, name what was not read
                        raise StoreError(f"{first_line(error)}. It can be read again: ask again.") from None
            raise ConfigError.one("SQL", first_line(error), self._views) from None


def _refuse_misplaced(opened: pyarrow.dataset.Dataset, table: RunFiles) -> None:
    """Refuse a sound part under the name of another chunk, or of another run: its rows would be there twice.

    Their footers are read at once, and kept for the questions, which want them, too.
    """
    expected = {part.file: part for part in table.files.beside}
    fragments = [found for found in opened.get_fragments() if found.path.rpartition("/")[2] in expected]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for fragment, metadata in zip(fragments, pool.map(lambda found: found.metadata, fragments), strict=True):
            part = expected[fragment.path.rpartition("/")[2]]
            with damage_named(table.store, part.file):
                footer = Footer.from_metadata(metadata.metadata)
            if wrong := list(footer.contradictions(part, table.files.run_id)):
                raise DamagedRunError(f"{table.store.url}/{part.file} {'; '.join(wrong)}; run `camatlas verify`")


def decode_row(row: Mapping[str, Any]) -> FloatArray:
    """Decode the map of a row that has the map columns, (u, v)."""
    return decode(EncodedMap(*(row[name] for name in MAP_COLUMNS)))


def decode_table(table: pa.Table) -> FloatArray:
    """Decode the maps of a table that has the map columns, (N, u, v), in its order.

    Raises:
        ValueError: the maps do not all have the same grid and dtype.
    """
    if not table.num_rows:
        return np.empty((0, 0, 0), np.float32)
    kinds = {tuple(row.values()) for row in table.select(["map_height", "map_width", "map_dtype"]).to_pylist()}
    if len(kinds) > 1:
        raise ValueError("the maps have several grids or encodings; narrow the condition to one layer")
    ((height, width, dtype),) = kinds
    ranges_N2 = np.stack([table["map_min"].to_numpy(), table["map_max"].to_numpy()], axis=1)
    return decode_stack(table["map"].to_pylist(), height, width, dtype, ranges_N2)


@contextmanager
def damage_named(store: Store, name: str) -> Iterator[None]:
    """Name the file of a run that is damaged; that its store does not answer stays a StoreError."""
    try:
        yield
    except (ValueError, OSError, pa.ArrowException, StoreError) as error:
        if is_unanswered(error):
            raise
        raise DamagedRunError(unreadable(store, name, error)) from None


def unreadable(store: Store, name: str, error: BaseException) -> str:
    """Say that a file of a run cannot be read, and what to do."""
    return f"{store.url}/{name} cannot be read ({first_line(error)}); run `camatlas verify`"


def _enlarged(maps_Nuv: FloatArray, size: tuple[int, int]) -> FloatArray:
    import torch  # a reader of tables need not wait for it

    from pipeline.maps.heatmaps import upsample

    if not len(maps_Nuv):
        return np.empty((0, *size), np.float32)
    enlarged: FloatArray = upsample(torch.from_numpy(maps_Nuv)[:, None], size)[:, 0].numpy()
    return enlarged
