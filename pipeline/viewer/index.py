"""One run as the viewer reads it: a narrow table in memory, and the place of each map in the run's files.

A part that was damaged or deleted later costs its own maps only; the table was read before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ConfigError, StoreError
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.viewer.columns import Columns
from pipeline.viewer.engine import Engine
from pipeline.viewer.loading import ONE_TARGET, clean, named_view, read_rows, refined_rows
from schemas.explanation import SHARD_STAGE
from schemas.manifest import RunManifest

Ids = npt.NDArray[np.int64]
_RULES = "SELECT DISTINCT target_rule AS value FROM {table} WHERE target_rule IS NOT NULL ORDER BY 1"
_SHARDS = "SELECT DISTINCT shard AS value FROM {table} ORDER BY 1"
_FAILURES = (
    "SELECT error_stage || '/' || error_code AS value, count(DISTINCT (shard, image_key)) AS images FROM {table} "
    "WHERE error_code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
)


@dataclass(frozen=True)
class RunIndex:
    """The rows of a run without maps, as the table `rows_N` and the view `explanations_N`.

    Attributes:
        ordinal: N.
        name: how the run is called in addresses and on pages.
        run: the open run; maps are read from its files.
        engine: holds the tables.
    """

    ordinal: int
    name: str
    run: Run
    engine: Engine

    @classmethod
    def build(cls, ordinal: int, name: str, run: Run, engine: Engine) -> "RunIndex":
        """Read the narrow columns of all parts into memory."""
        index = cls(ordinal, name, run, engine)
        try:
            engine.create(index.table, read_rows(run), "SELECT * FROM source")
        except ConfigError as error:  # a file that cannot be read, since the statement is the viewer's own
            run.refuse_damage()
            raise StoreError(f"{error}. The files can be read now: try again.") from None
        engine.refine(index.table, refined_rows(index.table, run.manifest))
        pa.default_memory_pool().release_unused()
        names = [clean(class_name) for class_name in run.manifest.classes]
        classes = pa.table({"number": pa.array(range(len(names)), pa.int32()), "name": pa.array(names, pa.string())})
        engine.create(f"classes_{ordinal}", classes, "SELECT * FROM source")
        engine.execute(named_view(ordinal))
        return index

    @property
    def table(self) -> str:
        """Return the name of the table."""
        return f"rows_{self.ordinal}"

    @property
    def manifest(self) -> RunManifest:
        """Return the manifest of the run."""
        return self.run.manifest

    @cached_property
    def columns(self) -> Columns:
        """Return the columns that can be filtered."""
        return Columns.of(self.run.schema)

    @cached_property
    def kind(self) -> OutputKind:
        """Return what the outputs of the model mean."""
        return OutputKind.of(self.manifest)

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods of the run."""
        return tuple(self.manifest.identity.methods)

    @property
    def has_one_target(self) -> bool:
        """Return whether each image has one target."""
        return self.manifest.identity.targets in ONE_TARGET

    @cached_property
    def rules(self) -> tuple[str, ...]:
        """Return the target rules that occur."""
        return self._values(_RULES)

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """Return the shards that occur."""
        return self._values(_SHARDS)

    @cached_property
    def failures(self) -> Mapping[str, int]:
        """Return the codes of failures, with the number of their images."""
        rows = self.engine.sql(_FAILURES.format(table=self.table)).to_pylist()
        return {row["value"]: row["images"] for row in rows}

    @cached_property
    def images(self) -> int:
        """Return the number of images, explained or failed."""
        query = f"SELECT count(DISTINCT (shard, image_key)) AS images FROM {self.table} WHERE {_IMAGES}"  # noqa: S608
        return int(self.engine.sql(query)["images"][0].as_py())

    @cached_property
    def damaged_shards(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows that report damage to a shard, at most twenty."""
        query = f"SELECT shard, error_code, error_detail FROM {self.table} WHERE NOT ({_IMAGES}) LIMIT 20"  # noqa: S608
        rows: list[dict[str, Any]] = self.engine.sql(query).to_pylist()
        return rows

    @cached_property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """Return the values of each further column, the most frequent first, at most 200."""
        if not self.columns.has_metadata:
            return {}
        return {name: self._metadata_values(name) for name in self.manifest.identity.data["metadata"]}

    @cached_property
    def duplicate_names(self) -> frozenset[str]:
        """Return the names that several classes share."""
        return frozenset(name for name, count in Counter(self.manifest.classes).items() if count > 1)

    def class_name(self, number: int | None) -> str:
        """Return the name of a class, or its number."""
        return "–" if number is None else self.manifest.class_name(number)

    def class_address(self, number: int) -> str:
        """Return how a class is written in addresses: its name if that is clear, else its number."""
        name = self.class_name(number)
        return str(number) if name in self.duplicate_names or not name or name[0].isdigit() else name

    def rows(self, ids: Sequence[int] | Ids) -> list[dict[str, Any]]:
        """Return rows by their ids, in the order of the ids; numbers and texts, no maps."""
        query = f"SELECT * FROM {self.table} WHERE viewer_id IN (SELECT unnest(?::BIGINT[]))"  # noqa: S608
        found = {row["viewer_id"]: row for row in self.engine.sql(query, [list(map(int, ids))]).to_pylist()}
        return [found[int(number)] for number in ids if int(number) in found]

    def image_rows(self, shard: str, key: str) -> list[dict[str, Any]]:
        """Return all rows of one image, by target and method."""
        query = (
            f"SELECT * FROM {self.table} WHERE image_key = ? AND shard = ? "  # noqa: S608
            "ORDER BY target_confidence DESC, target, method"
        )
        rows: list[dict[str, Any]] = self.engine.sql(query, [key, shard]).to_pylist()
        return rows

    def nearest_key(self, key: str) -> str:
        """Return the image key that is most similar to a text."""
        query = f"SELECT image_key FROM {self.table} ORDER BY jaro_winkler_similarity(image_key, ?) DESC LIMIT 1"  # noqa: S608
        found = self.engine.sql(query, [key]).to_pylist()
        return str(found[0]["image_key"]) if found else ""

    def drop(self) -> None:
        """Free the tables, once a newer index has taken their place."""
        self.engine.execute(f"DROP VIEW explanations_{self.ordinal}")
        self.engine.execute(f"DROP TABLE {self.table}")
        self.engine.execute(f"DROP TABLE classes_{self.ordinal}")
        self.run.close()

    def _values(self, query: str) -> tuple[str, ...]:
        return tuple(self.engine.sql(query.format(table=self.table))["value"].to_pylist())

    def _metadata_values(self, name: str) -> Sequence[str]:
        query = f"SELECT metadata[?] AS value FROM {self.table} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 201"  # noqa: S608
        return [value for value in self.engine.sql(query, [name])["value"].to_pylist() if value is not None]


_IMAGES = f"error_stage IS DISTINCT FROM '{SHARD_STAGE}'"
