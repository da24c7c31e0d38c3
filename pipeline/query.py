"""Questions to a run: DuckDB over its parts, read-only, and maps back as arrays.

Views: `explanations` (one row per image, target and method), `images` (one row per image), `failures` (one row
per image, method or shard that failed), `leaderboard` (per method: images, share of degenerate maps, mean of
each metric), `sanity` (what `camatlas sanity` found). DuckDB never opens a file itself: its access to files and
the network is off and its configuration locked, the parts are handed to it by pyarrow.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from pipeline.codec import EncodedMap, FloatArray, decode, decode_stack
from pipeline.errors import ConfigError, DamagedRunError, StoreError, first_line, nearest
from pipeline.parts import read_part
from pipeline.run_folder import PartName, part_names, read_manifest
from pipeline.store import Store, open_store
from schemas.explanation import CURVE_SUFFIX, ERROR_FIELDS, IDENTITY_FIELDS, MAP_FIELDS, SHARD_STAGE, is_curve
from schemas.manifest import RunManifest
from schemas.sanity import SANITY_FOLDER, SANITY_SCHEMA

VIEWS = ("explanations", "images", "failures", "leaderboard", "sanity")
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

_FIXED = ", ".join(f"'{field.name}'" for field in (*IDENTITY_FIELDS, *MAP_FIELDS, *ERROR_FIELDS))

# The SQL of the views is constant but for the names of our own columns; no word of the data goes into it.
_EXPLANATIONS = "CREATE VIEW explanations AS SELECT * FROM parts WHERE method IS NOT NULL AND error_code IS NULL"
_FAILURES = "CREATE VIEW failures AS SELECT * FROM parts WHERE error_code IS NOT NULL"
_IMAGES = f"""
CREATE VIEW images AS
SELECT shard, image_key, any_value(chunk) AS chunk, any_value(image_height) AS image_height,
  any_value(image_width) AS image_width, any_value(label) AS label, any_value(predicted) AS predicted,
  any_value(confidence) AS confidence, any_value(predicted = label) AS correct, count(map) AS maps,
  any_value(error_stage) AS error_stage, any_value(error_code) AS error_code
FROM parts WHERE error_stage IS DISTINCT FROM '{SHARD_STAGE}' GROUP BY shard, image_key
"""  # noqa: S608 - constants only
_LEADERBOARD = f"""
CREATE VIEW leaderboard AS
SELECT method, target_rule, count(DISTINCT (shard, image_key)) AS images, avg(degenerate::INT) AS degenerate,
  avg(COLUMNS(lambda name: name NOT IN ({_FIXED}) AND NOT ends_with(lower(name), '{CURVE_SUFFIX}'))) AS '\\0'
FROM explanations GROUP BY method, target_rule ORDER BY method, target_rule
"""  # noqa: S608 - constants only
_BARE_LEADERBOARD = """
CREATE VIEW leaderboard AS
SELECT method, target_rule, count(DISTINCT (shard, image_key)) AS images, avg(degenerate::INT) AS degenerate
FROM explanations GROUP BY method, target_rule ORDER BY method, target_rule
"""


class Run:
    """An open run folder, with the parts that it held when it was opened; close it, or use it as a context manager."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.manifest: RunManifest = read_manifest(store)
        self.parts = part_names(store)
        rows = _dataset(store, self.parts)
        self.schema: pa.Schema = rows.schema
        self._connection = duckdb.connect(
            ":memory:", config={"enable_external_access": "false", "python_enable_replacements": "false"}
        )
        self._connection.register("parts", rows)
        self._connection.register("sanity", _sanity(store))
        numbers = [name for name in self.manifest.identity.metrics if not is_curve(name)]
        leaderboard = _LEADERBOARD if numbers else _BARE_LEADERBOARD
        for statement in (_EXPLANATIONS, _FAILURES, _IMAGES, leaderboard, "SET lock_configuration = true"):
            self._connection.execute(statement)

    def sql(self, query: str, parameters: Sequence[object] | None = None) -> pd.DataFrame:
        """Answer a SQL question as a data frame; `?` in the query stands for the parameters.

        Raises:
            ConfigError: DuckDB refuses the query.
            DamagedRunError: a part cannot be read.
        """
        frame: pd.DataFrame = self.arrow(query, parameters).to_pandas()
        return frame

    def arrow(self, query: str, parameters: Sequence[object] | None = None) -> pa.Table:
        """Answer a SQL question as an Arrow table; raises as `sql` does."""
        with self._refusals():
            query.encode()  # what is no text cannot be a question
            statements = self._connection.extract_statements(query)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ConfigError.one("SQL", "it takes exactly one SELECT", f"views: {', '.join(VIEWS)}")
            return self._connection.sql(query, params=parameters or None).to_arrow_table()

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Give columns of `explanations` as an Arrow table.

        Args:
            columns: names; None gives all.
            where: a SQL condition, for example "method = 'gradcam' AND pointing_game = 0".
        """
        with self._refusals():
            relation = self._connection.view("explanations")
            unknown = [name for name in columns or () if name not in relation.columns]
            if unknown:
                raise ConfigError.one("SQL", f"no column '{unknown[0]}'", nearest(unknown[0], relation.columns))
            relation = relation.filter(where) if where else relation
            return (relation.select(*map(duckdb.ColumnExpression, columns)) if columns else relation).to_arrow_table()

    def maps(self, where: str | None = None) -> FloatArray:
        """Give the maps that meet a SQL condition, decoded, as (N, u, v) float32 in the order of `table`.

        Raises:
            ValueError: the maps do not all have the same grid; narrow the condition to one layer.
        """
        return decode_table(self.table(MAP_COLUMNS, where))

    def tables(self) -> Iterator[tuple[PartName, pa.Table]]:
        """Give all rows part by part, failures included, in the order of the parts.

        Raises:
            DamagedRunError: a part cannot be read.
        """
        for part in self.parts:
            try:
                table, _ = read_part(self.store.read(part.file))
            except (ValueError, StoreError, FileNotFoundError) as error:
                raise DamagedRunError(_unreadable(self.store, part.file, error)) from None
            yield part, table

    def close(self) -> None:
        """Let go of the parts."""
        self._connection.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what DuckDB and pyarrow raise into our sentences."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, UnicodeEncodeError) as error:
            if not isinstance(error, _MISTAKES):
                self._refuse_damage()
            raise ConfigError.one("SQL", first_line(error), f"views: {', '.join(VIEWS)}") from None

    def _refuse_damage(self) -> None:
        """Read every part once more, to see whether one of them was the reason."""
        for _ in self.tables():
            pass


def open_run(path: str | Path) -> Run:
    """Open a run folder for questions.

    Raises:
        ConfigError: there is no run.
        DamagedRunError: its manifest or a part is damaged.
    """
    return Run(open_store(str(path)))


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


def _dataset(store: Store, parts: Sequence[PartName]) -> pa.dataset.Dataset:
    """All parts as one dataset with the schema of the first."""
    names = [part.file for part in parts]
    if not names:
        raise ConfigError.one("RUN", f"'{store.url}' holds no finished chunk yet", "run `camatlas explain` first")
    try:
        return store.dataset(names)
    except (pa.ArrowException, OSError) as error:
        raise DamagedRunError(_unreadable(store, names[0], error)) from None


def _sanity(store: Store) -> pa.Table:
    """The tables of all sanity checks of the run."""
    names = [name for name in store.names(SANITY_FOLDER) if name.endswith(".parquet") and not name.startswith(".")]
    found = [SANITY_SCHEMA.empty_table()]
    for name in names:
        try:
            found.append(pq.read_table(io.BytesIO(store.read(f"{SANITY_FOLDER}/{name}"))).cast(SANITY_SCHEMA))
        except (ValueError, OSError, pa.ArrowException) as error:
            raise DamagedRunError(_unreadable(store, f"{SANITY_FOLDER}/{name}", error)) from None
    return pa.concat_tables(found)


def _unreadable(store: Store, name: str, error: BaseException) -> str:
    return f"{store.url}/{name} cannot be read ({first_line(error)}); run `camatlas verify`"
