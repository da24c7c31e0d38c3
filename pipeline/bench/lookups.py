"""Measures how fast the rows of one image are found in a large run, before and after compaction."""

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.results.query import Run, open_run
from pipeline.storage.base import Store
from pipeline.storage.compaction import compact
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import Footer, publish_part
from schemas.explanation import ERROR_FIELDS, SCHEMA_VERSION, SOURCE_FIELDS, described, explanation_schema
from schemas.manifest import RunIdentity, RunManifest, ShardEntry

METHODS = tuple(f"method_{number:02d}" for number in range(32))
METRICS = ("average_drop", "increase", "insertion", "deletion", "pointing_game", "energy_in_box")
SCHEMA = explanation_schema([described(name, pa.float32(), "", name) for name in METRICS])
LOOKUP = "SELECT * FROM explanations WHERE image_key = ?"
_IMAGES = 128
"""Images per part, the default of `data.chunk_images`."""
_GRID = 7
_LOOKUPS, _WARM_UP = 50, 3


@dataclass(frozen=True)
class LookupCost:
    """Milliseconds to find all rows of one image in a run that is open and warm.

    Attributes:
        rows, parts: numbers of rows and parts in the run.
        parts_ms, merged_ms: median before and after compaction.
        worst_ms: the slowest lookup after compaction.
        compaction_seconds: time to write the merged copy.
    """

    rows: int
    parts: int
    parts_ms: float
    merged_ms: float
    worst_ms: float
    compaction_seconds: float


def lookup_cost(rows: int = 1_000_000) -> LookupCost:
    """Write a run of 32 methods and 6 metrics with 7 x 7 maps and shuffled images, and time lookups in it."""
    order = random.Random(0)  # noqa: S311 - no secret
    keys = [f"image_{number:08d}" for number in range(-(-rows // len(METHODS)))]
    order.shuffle(keys)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder) / "run")
        parts = _write_run(store, keys)
        wanted = order.sample(keys, min(len(keys), _LOOKUPS + _WARM_UP))
        before = _lookups(store, wanted)
        began = time.perf_counter()
        written = compact(store)
        seconds = time.perf_counter() - began
        after = _lookups(store, wanted)
    return LookupCost(
        written.record.rows, parts, statistics.median(before), statistics.median(after), max(after), seconds
    )


def _lookups(store: Store, keys: Sequence[str]) -> list[float]:
    """Time each lookup in milliseconds, and leave out the first ones, which warm up."""
    with open_run(store.url) as run:
        return [_lookup(run, key) for key in keys][_WARM_UP:]


def _lookup(run: Run, key: str) -> float:
    began = time.perf_counter()
    rows = run.sql(LOOKUP, [key])
    milliseconds = 1000 * (time.perf_counter() - began)
    assert len(rows) == len(METHODS), f"{len(rows)} rows of {key}"
    return milliseconds


def _write_run(store: Store, keys: Sequence[str]) -> int:
    """Write a run of one shard with these images, and return the number of its parts."""
    manifest = _manifest()
    take_ownership(store, manifest)
    starts = range(0, len(keys), _IMAGES)
    for chunk, start in enumerate(starts):
        images = keys[start : start + _IMAGES]
        last = start + _IMAGES >= len(keys)
        publish_part(store, _rows(images, chunk), Footer(manifest.run_id, 0, chunk, last, len(images)))
    return len(starts)


def _rows(images: Sequence[str], chunk: int) -> pa.Table:
    """Make rows like those of a run, one per image and method, with random numbers and maps."""
    numbers = np.random.default_rng(chunk)
    count = len(images) * len(METHODS)
    fixed = {
        "shard": "images.tar", "chunk": chunk, "image_height": 375, "image_width": 500, "target_rule": "predicted",
        "method_params": '{"num_steps": 20}', "layer": "layer4", "map_height": _GRID, "map_width": _GRID,
        "map_dtype": "u8", "degenerate": False,
    }  # fmt: skip
    columns = {name: pa.array([value] * count, SCHEMA.field(name).type) for name, value in fixed.items()}
    columns["image_key"] = pa.array(np.repeat(np.asarray(images, object), len(METHODS)))
    columns["method"] = pa.array(METHODS * len(images))
    columns["map"] = pa.array([maps.tobytes() for maps in numbers.integers(0, 256, (count, _GRID**2), np.uint8)])
    classes = pa.array(numbers.integers(0, 1000, len(images)).repeat(len(METHODS)), pa.int32())
    columns |= dict.fromkeys(("label", "predicted", "target"), classes)
    columns |= {field.name: pa.nulls(count, field.type) for field in (*ERROR_FIELDS, *SOURCE_FIELDS)}
    rest = [name for name in SCHEMA.names if name not in columns]
    columns |= {name: pa.array(numbers.random(count), pa.float32()) for name in rest}
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _manifest() -> RunManifest:
    identity = RunIdentity(
        code_version="0", schema_version=SCHEMA_VERSION,
        shards=(ShardEntry(name="images.tar", kind="tar", size=0, fingerprint=""),), chunk_images=_IMAGES, data={},
        model={"name": "none"}, targets="predicted", methods={name: {} for name in METHODS},
        metrics={name: {} for name in METRICS}, seed=0, precision="fp32", maps="u8",
    )  # fmt: skip
    return RunManifest(identity=identity, locations=("",), config={}, packages={}, code={}, started_at="")
