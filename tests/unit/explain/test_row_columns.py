"""Tables made column by column are those of the rows one by one, whatever failed or does not apply."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from explaining import chunk, spec
from nets import ToyNet
from reference.rows import explanation_row

from pipeline.data.decode import DecodedSample
from pipeline.data.sources import Failure
from pipeline.data.sources.shards import NOWHERE, Extent
from pipeline.explain import row_columns
from pipeline.explain.explainer import Explainer
from pipeline.explain.row_columns import Explained, Made, UnmadeRows, table_of
from pipeline.explain.rows import MethodFacts, PairFacts, failure_row, to_table
from pipeline.maps.codec import MAP_DTYPES
from pipeline.maps.dtypes import MapDtype
from schemas.explanation import described, explanation_schema

METHODS = (MethodFacts("gradcam", '{"steps":1}', "layer4"), MethodFacts("scorecam", "{}", "layer4"))
FIELDS = [described("drop", pa.float32(), "", ""), described("kept_curve", pa.list_(pa.float32()), "", "")]
SCHEMA = explanation_schema(FIELDS)
WITH_METADATA = explanation_schema(FIELDS, has_metadata=True)
SAMPLE = DecodedSample("gone", None, None, (30, 40))
FAILED = {("scorecam", 1): ("method_error", "said no"), ("gradcam", 4): ("stored", "no such key")}


def explained(
    pairs: int = 6,
    *,
    seed: int = 0,
    dtype: MapDtype = "u8",
    grids: Sequence[tuple[int, int]] = ((7, 7), (7, 7)),
    raw: bool = False,
    failures: dict[tuple[str, int], tuple[str, str]] | None = None,
) -> Explained:
    """Return explanations with constant maps, values that do not apply, and, in the last pair, a map with NaN."""
    random = np.random.default_rng(seed)
    labels = [method.method for method in METHODS]
    maps = {
        label: random.standard_normal((pairs, *grid), np.float32) for label, grid in zip(labels, grids, strict=True)
    }
    maps["gradcam"][0] = 0.25
    maps["gradcam"][pairs - 1, 0, 0] = np.nan
    metrics = {
        "drop": {label: random.random(pairs, np.float32) for label in labels},
        "kept_curve": {label: random.random((pairs, 5), np.float32) for label in labels},
    }
    metrics["drop"]["gradcam"][1] = np.nan
    metrics["drop"]["scorecam"][2] = np.inf
    metrics["kept_curve"]["gradcam"][3, 2] = np.nan
    samples = tuple(
        DecodedSample(
            f"k{seed}-{i // 2}",
            None if i % 3 else i,
            None,
            (30, 40 + i),
            metadata=(("camera", f"c{i}"),) * (i % 2),
            extent=Extent(512 * i, None if i % 2 else 7 + i, i, 9_000_000_000 + i, 3) if i else NOWHERE,
        )
        for i in range(pairs)
    )
    numbers = [np.full(pairs, np.nan, np.float32) if raw else random.random(pairs, np.float32) for _ in range(2)]
    facts = PairFacts(
        "s.tar", 3, samples, tuple("top" for _ in samples), random.integers(0, 9, pairs),
        None if raw else random.integers(0, 9, pairs), *numbers, random.standard_normal(pairs, np.float32),
    )  # fmt: skip
    return Explained(facts, METHODS, maps, metrics, failures or {}, dtype)


def one_by_one(batch: Explained, schema: pa.Schema) -> pa.Table:
    rows = [
        explanation_row(
            image, method, batch.maps[method.method][pair],
            {name: by_method[method.method][pair].tolist() for name, by_method in batch.metrics.items()},
            batch.dtype, batch.failures.get((method.method, pair)),
        )
        for pair, image in enumerate(batch.pairs.each())
        for method in METHODS
    ]  # fmt: skip
    return to_table(rows, schema)


def bits(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows in which numbers are told apart that are equal but not the same bits."""
    return [{name: repr(value) for name, value in row.items()} for row in table.to_pylist()]


CASES: dict[str, Callable[[], Explained]] = {
    **{dtype: lambda dtype=dtype: explained(dtype=dtype) for dtype in MAP_DTYPES},
    "raw outputs": lambda: explained(raw=True),
    "failures": lambda: explained(failures=FAILED),
    "grids of two sizes": lambda: explained(grids=((7, 7), (3, 5)), failures=FAILED),
    "only failures": lambda: explained(failures={(m.method, i): ("some", "NaN") for m in METHODS for i in range(6)}),
}


@pytest.mark.parametrize("schema", [SCHEMA, WITH_METADATA], ids=["", "metadata"])
@pytest.mark.parametrize("case", CASES)
def test_rows_by_columns_are_those_one_by_one(case: str, schema: pa.Schema) -> None:
    batch = CASES[case]()
    found, expected = table_of([UnmadeRows((batch,), schema)], schema), one_by_one(batch, schema)
    found.validate(full=True)
    assert found.schema.equals(schema, check_metadata=True)
    assert found.equals(expected)
    assert bits(found) == bits(expected)


@pytest.mark.parametrize("dtype", MAP_DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_signs_of_zeros_are_those_of_each_map_alone(dtype: MapDtype, order: Any) -> None:
    batch = explained(20, dtype=dtype)
    zeros = np.random.default_rng(1).choice(np.array([0.0, -0.0, 1.0], np.float32), (20, 7, 7), p=[0.49, 0.49, 0.02])
    batch = replace(batch, maps={"gradcam": zeros.swapaxes(1, 2) if order == "F" else zeros, "scorecam": zeros})
    assert bits(batch.table(SCHEMA)) == bits(one_by_one(batch, SCHEMA))


def test_batches_of_one_kind_become_one_table_and_failures_follow() -> None:
    failure = failure_row(Failure("bad", "s.tar", "decode", "corrupt", "broken"), 3)
    first, second = explained(5, failures=FAILED), explained(6, seed=1, failures=FAILED)
    other = explained(5, seed=2, grids=((7, 7), (3, 5)))
    batches: list[tuple[Made, ...]] = [(first, failure), (second,), (other,)]
    found = table_of([UnmadeRows(made, SCHEMA) for made in batches], SCHEMA)
    expected = [*(one_by_one(batch, SCHEMA) for batch in (first, second, other)), to_table([failure], SCHEMA)]
    assert found.equals(pa.concat_tables(expected))
    assert all(column.num_chunks == 1 for column in found.columns)


def test_a_chunk_is_made_rows_by_one_table_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    table = Explained.table
    monkeypatch.setattr(
        Explained, "table", lambda self, schema: sizes.append(len(self.pairs.samples)) or table(self, schema)
    )
    explainer = Explainer(ToyNet(0), spec())
    batches = list(explainer.explained(chunk(37)))
    assert [len(part.pairs.samples) for batch in batches for part in batch.made if isinstance(part, Explained)] == [
        16,
        16,
        5,
    ]
    found = table_of(batches, explainer.spec.schema)
    assert sizes == [37]
    assert found.equals(pa.concat_tables(Explainer(ToyNet(0), spec()).tables(chunk(37))))


def test_rows_that_are_not_made_yet_share_no_memory_with_the_maps_of_a_method() -> None:
    explainer = Explainer(ToyNet(0), spec())
    kept: list[np.ndarray[Any, Any]] = []
    (batch, _) = explainer.explained(chunk(3))
    (made,) = batch.made
    assert isinstance(made, Explained)
    kept += made.maps.values()
    assert all(map_Buv.flags.owndata for map_Buv in kept)


def test_the_images_of_rows_are_counted_once_and_damage_is_none() -> None:
    damage = failure_row(Failure("s.tar@5", "s.tar", "shard", "truncated", "cut"), 3)
    bad = failure_row(Failure("bad", "s.tar", "decode", "corrupt", "broken"), 3)
    assert UnmadeRows((explained(6), bad, damage), SCHEMA).images == 4
    assert row_columns.UnmadeRows((), SCHEMA).images == 0


def test_rows_say_where_their_images_lie_also_those_that_failed() -> None:
    extent = Extent(512, 7, None, 0, 519)
    failed = [failure_row(Failure("bad", "s.tar", "decode", "corrupt", "broken", extent=extent), 3)]
    lost = failure_row(Failure("gone", "s.tar", "explain", "label", "no"), 3, replace(SAMPLE, extent=extent))
    batch = explained(failures=FAILED)
    found = table_of([UnmadeRows((batch, *failed, lost), SCHEMA)], SCHEMA)
    by_key = {row["image_key"]: Extent.of(row) for row in found.to_pylist()}
    assert by_key.pop("bad") == by_key.pop("gone") == extent
    assert set(by_key.values()) < {sample.extent for sample in batch.pairs.samples}
    assert len(by_key) == 3
