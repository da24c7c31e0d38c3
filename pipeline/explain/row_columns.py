"""Makes tables of explanations column by column: the same rows as one by one, in a small part of the time.

The worker makes them while its model already explains the next chunk, so this module does not import torch.

Legend: B pairs of an image and a target, M methods, R = B * M rows, those of one pair adjacent; (u, v) grid, S points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.data.sources.shards import Extent
from pipeline.explain.rows import NONFINITE, MethodFacts, PairFacts, Row, joined_pairs, to_table
from pipeline.maps.codec import EncodedStack, FloatArray, encode_stack
from pipeline.maps.dtypes import MapDtype
from schemas.explanation import METADATA_FIELD, SHARD_STAGE

Flags = npt.NDArray[np.bool_]
Columns = dict[str, Any]
"""Arrow arrays by the name of their column."""


@dataclass(frozen=True)
class Explained:
    """The rows of some (image, target) pairs, one of each method, on the host and in memory of their own.

    Attributes:
        pairs: what the methods' rows of a pair share.
        methods: what the pairs' rows of a method share.
        maps: per method (B, u, v).
        metrics: per metric and method (B,), or (B, S) for a curve; NaN where it does not apply.
        failures: code and detail of rows that failed, by (method, pair); so does a map that is not finite.
        dtype: encoding of the maps.
    """

    pairs: PairFacts
    methods: tuple[MethodFacts, ...]
    maps: Mapping[str, FloatArray]
    metrics: Mapping[str, Mapping[str, FloatArray]]
    failures: Mapping[tuple[str, int], tuple[str, str]]
    dtype: MapDtype

    @property
    def nbytes(self) -> int:
        """Return the bytes of the maps."""
        return sum(map_Buv.nbytes for map_Buv in self.maps.values())

    @property
    def kind(self) -> tuple[Any, ...]:
        """Return what explanations that become one table have in common: their methods and grids, and predictions."""
        grids = tuple((method.method, self.maps[method.method].shape[1:]) for method in self.methods)
        return grids, self.pairs.predicted_B is None

    def table(self, schema: pa.Schema) -> pa.Table:
        """Make the table of the rows."""
        kept = {method.method: self._kept(method.method) for method in self.methods}
        kept_R = _rows(list(kept.values()))
        columns = self._shared(schema) | self._maps(schema, kept, kept_R) | self._metrics(schema, kept_R)
        columns |= self._errors(schema, kept_R)
        arrays = [
            columns[field.name] if field.name in columns else pa.nulls(len(kept_R), field.type) for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _kept(self, label: str) -> Flags:
        """Return which pairs have a finite map of a method that did not fail, (B,)."""
        kept_B: Flags = np.asarray(np.isfinite(self.maps[label]).all((1, 2)))
        failed = [pair for method, pair in self.failures if method == label]
        kept_B[failed] = False
        return kept_B

    def _shared(self, schema: pa.Schema) -> Columns:
        """Return the columns that are the same for all methods, or for all pairs."""
        pairs, methods = len(self.pairs.samples), len(self.methods)
        pair_R, method_R = pa.array(np.repeat(np.arange(pairs), methods)), pa.array(np.tile(np.arange(methods), pairs))
        columns = _pair_columns(self.pairs, schema)
        if methods > 1:
            columns = {name: values.take(pair_R) for name, values in columns.items()}
        for field in fields(MethodFacts):
            values = [getattr(method, field.name) for method in self.methods]
            columns[field.name] = pa.array(values, schema.field(field.name).type).take(method_R)
        columns["shard"] = pa.repeat(pa.scalar(self.pairs.shard, schema.field("shard").type), len(pair_R))
        columns["chunk"] = pa.repeat(pa.scalar(self.pairs.chunk, schema.field("chunk").type), len(pair_R))
        return columns

    def _maps(self, schema: pa.Schema, kept: Mapping[str, Flags], kept_R: Flags) -> Columns:
        """Return the columns of the maps, null where there is none."""
        rows, methods = len(kept_R), len(self.methods)
        cells: list[bytes | None] = [None] * rows
        lows_R, highs_R = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        for place, (label, kept_B) in enumerate(kept.items()):
            found = self._encoded(label, kept_B)
            taken = (np.flatnonzero(kept_B) * methods + place).tolist()
            lows_R[taken], highs_R[taken] = found.low_N, found.high_N
            for row, data in zip(taken, found.data, strict=True):
                cells[row] = data
        sizes_M2 = np.array([self.maps[method.method].shape[1:] for method in self.methods], np.int32)
        heights_R, widths_R = (np.tile(sizes_M, len(self.pairs.samples)) for sizes_M in sizes_M2.T)
        numbers = {
            "map_height": heights_R, "map_width": widths_R, "map_min": lows_R, "map_max": highs_R,
            "degenerate": lows_R == highs_R,
        }  # fmt: skip
        columns = {name: pa.array(numbers_R, mask=~kept_R) for name, numbers_R in numbers.items()}
        first_R = pa.array(np.zeros(rows, np.int64), mask=~kept_R)
        columns["map_dtype"] = pa.array([self.dtype], schema.field("map_dtype").type).take(first_R)
        return columns | {"map": pa.array(cells, schema.field("map").type)}

    def _encoded(self, label: str, kept_B: Flags) -> EncodedStack:
        maps_Buv = self.maps[label]
        return encode_stack(maps_Buv if kept_B.all() else maps_Buv[kept_B], self.dtype)

    def _metrics(self, schema: pa.Schema, kept_R: Flags) -> Columns:
        """Return the columns of the metrics, null where one is not finite or the row failed."""
        columns: Columns = {}
        for name, by_method in self.metrics.items():
            values_BM = np.stack([by_method[method.method] for method in self.methods], 1).astype(np.float32)
            values_RS = values_BM.reshape(len(kept_R), -1)
            given_R = kept_R & np.isfinite(values_RS).all(1)
            kind = schema.field(name).type
            columns[name] = _lists(values_RS, given_R, kind) if values_BM.ndim > 2 else _numbers(values_RS, given_R)
        return columns

    def _errors(self, schema: pa.Schema, kept_R: Flags) -> Columns:
        """Return the columns of what failed; none if nothing did."""
        if kept_R.all():
            return {}
        failed = np.flatnonzero(~kept_R).tolist()
        reasons: list[tuple[str | None, str | None]] = [(None, None)] * len(kept_R)
        for row in failed:
            pair, place = divmod(row, len(self.methods))
            reasons[row] = self.failures.get((self.methods[place].method, pair), NONFINITE)
        codes, details = zip(*reasons, strict=True)
        stages = [None if kept else "explain" for kept in kept_R.tolist()]
        found = {"error_stage": stages, "error_code": codes, "error_detail": details}
        return {name: pa.array(values, schema.field(name).type) for name, values in found.items()}


Made: TypeAlias = Explained | Row
"""What rows are made of: those of pairs and methods, or one of a failure."""


class UnmadeRows(NamedTuple):
    """Rows of some images that are not a table yet."""

    made: tuple[Made, ...]
    schema: pa.Schema

    @property
    def nbytes(self) -> int:
        """Return the bytes of the maps."""
        return sum(part.nbytes for part in self.made if isinstance(part, Explained))

    @property
    def images(self) -> int:
        """Return the number of images; damage to a shard is none."""
        keys = set[str]()
        for part in self.made:
            if isinstance(part, Explained):
                keys.update(sample.key for sample in part.pairs.samples)
            elif part["error_stage"] != SHARD_STAGE:
                keys.add(part["image_key"])
        return len(keys)


def table_of(batches: Iterable[UnmadeRows], schema: pa.Schema) -> pa.Table:
    """Make one table of several batches: their explanations, then their failures."""
    made = [part for batch in batches for part in batch.made]
    groups: dict[Any, list[Explained]] = {}
    for part in made:
        if isinstance(part, Explained):
            groups.setdefault(part.kind, []).append(part)
    tables = [_joined(group).table(schema) for group in groups.values()]
    if failures := [part for part in made if not isinstance(part, Explained)]:
        tables.append(to_table(failures, schema))
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def _joined(group: Sequence[Explained]) -> Explained:
    """Join explanations of one kind: every column costs the same few microseconds, whatever its length."""
    if len(group) == 1:
        return group[0]
    first, failures, pairs = group[0], dict[tuple[str, int], tuple[str, str]](), 0
    for part in group:
        failures |= {(label, pair + pairs): reason for (label, pair), reason in part.failures.items()}
        pairs += len(part.pairs.samples)
    maps = {label: np.concatenate([part.maps[label] for part in group]) for label in first.maps}
    metrics = {
        name: {label: np.concatenate([part.metrics[name][label] for part in group]) for label in by_method}
        for name, by_method in first.metrics.items()
    }
    return Explained(joined_pairs([part.pairs for part in group]), first.methods, maps, metrics, failures, first.dtype)


def _rows(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Interleave what each method has of each pair, (B,), to what each row has, (R,)."""
    return np.stack(columns, 1).reshape(-1)


def _numbers(values_R1: FloatArray, given_R: Flags) -> pa.Array:
    return pa.array(values_R1[:, 0], pa.float32(), mask=~given_R)


def _lists(values_RS: FloatArray, given_R: Flags, kind: pa.DataType) -> pa.Array:
    """Return the curves of the rows that have one."""
    ends_R = np.cumsum(given_R * values_RS.shape[1])
    offsets = pa.array(np.concatenate([[0], ends_R]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(values_RS[given_R].ravel()), mask=pa.array(~given_R))
    return lists.cast(kind)


def _pair_columns(pairs: PairFacts, schema: pa.Schema) -> Columns:
    """Return the columns that differ from pair to pair, (B,)."""
    samples = pairs.samples
    lists: dict[str, Sequence[Any]] = {
        "image_key": [sample.key for sample in samples],
        "image_height": [sample.size[0] for sample in samples],
        "image_width": [sample.size[1] for sample in samples],
        "label": [sample.label for sample in samples],
        "target_rule": pairs.rules,
    }
    if METADATA_FIELD.name in schema.names:
        lists[METADATA_FIELD.name] = [sample.metadata for sample in samples]
    lists |= {name: [getattr(sample.extent, name) for sample in samples] for name in Extent._fields}
    columns = {name: pa.array(values, schema.field(name).type) for name, values in lists.items()}
    columns["target"] = pa.array(pairs.targets_B.astype(np.int32))
    if pairs.predicted_B is not None:
        columns["predicted"] = pa.array(pairs.predicted_B.astype(np.int32))
    else:
        columns["predicted"] = pa.nulls(len(samples), pa.int32())
    numbers = {
        "confidence": pairs.confidences_B, "target_confidence": pairs.target_confidences_B,
        "target_logit": pairs.target_logits_B,
    }  # fmt: skip
    for name, numbers_B in numbers.items():
        columns[name] = pa.array(numbers_B.astype(np.float32), mask=np.isnan(numbers_B))
    return columns
