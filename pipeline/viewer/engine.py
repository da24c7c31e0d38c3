"""The tables that the viewer filters: DuckDB in memory, without files or network, each query with a time limit."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from pipeline.errors import ConfigError, first_line

SECONDS = 5.0
"""Time after which a query is interrupted."""
_BASE_MB, _ROW_BYTES = 300, 1000
"""Memory that DuckDB may use: for itself and for queries, and for each row of its tables."""


class Engine:
    """Narrow tables in memory; queries of several threads run side by side, each on its own cursor.

    The user's text reaches DuckDB as one parsed expression only, so no statement, and no setting, can come from it.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._rows = 0
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "enable_external_access": "false", "python_enable_replacements": "false",
                "temp_directory": "", "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
                "threads": "2",
            },
        )  # fmt: skip

    def create(self, name: str, source: pa.Table | pa.RecordBatchReader, select: str) -> None:
        """Make the table `name` by a SELECT over `source`; both texts are the viewer's own.

        Raises:
            ConfigError: the source cannot be read.
        """
        self._connection.register("source", source)
        try:
            self._connection.execute(f"CREATE TABLE {name} AS {select}")
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise ConfigError.one("RUN", first_line(error)) from None
        finally:
            self._connection.unregister("source")
        self._rows += self._connection.table(name).shape[0]
        self._connection.execute(f"SET memory_limit = '{_BASE_MB + self._rows * _ROW_BYTES // 1_000_000}MB'")

    def refine(self, name: str, select: str) -> None:
        """Replace a table by a SELECT over it."""
        self._connection.execute(f"CREATE TABLE refined AS {select}")
        self._connection.execute(f"DROP TABLE {name}")
        self._connection.execute(f"ALTER TABLE refined RENAME TO {name}")

    def execute(self, statement: str) -> None:
        """Run one of the viewer's own statements."""
        self._connection.execute(statement)

    def arrow(self, build: Callable[[duckdb.DuckDBPyConnection], duckdb.DuckDBPyRelation]) -> pa.Table:
        """Build a relation on a cursor of its own, and return its rows.

        Raises:
            ConfigError: the condition is invalid, takes too long, or needs too much memory.
        """
        cursor = self._connection.cursor()
        with translated_errors(self.seconds), _limited(cursor, self.seconds):
            return build(cursor).to_arrow_table()

    def sql(self, query: str, parameters: list[object] | None = None) -> pa.Table:
        """Run one of the viewer's own queries; values come as parameters."""
        return self.arrow(lambda cursor: cursor.sql(query, params=parameters or None))

    def close(self) -> None:
        """Free the tables."""
        self._connection.close()


@contextmanager
def _limited(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        cursor.close()


@contextmanager
def translated_errors(seconds: float) -> Iterator[None]:
    """Turn errors of DuckDB into ConfigError, with the time limit that was exceeded."""
    try:
        yield
    except duckdb.InterruptException:
        hint = "make it simpler, or run it with `camatlas query`, which has no limit"
        raise ConfigError.one("WHERE", f"stopped after {seconds:g} s", hint) from None
    except (duckdb.OutOfMemoryException, MemoryError):
        raise ConfigError.one("WHERE", "needs more memory than the viewer may use", "make it simpler") from None
    except (duckdb.Error, UnicodeEncodeError, RuntimeError) as error:
        raise ConfigError.one("WHERE", _message(error)) from None


def _message(error: BaseException) -> str:
    """Return what DuckDB says, with its lines and its caret."""
    return str(error).strip()[:2000]
