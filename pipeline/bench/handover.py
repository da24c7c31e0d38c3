"""Measures what surrounds the model in a worker: receiving work units, and making rows."""

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.data.arena import Arena
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.data.sources import Chunk, Shard
from pipeline.explain.row_columns import Explained, UnmadeRows, table_of
from pipeline.explain.rows import MethodFacts, PairFacts
from pipeline.metrics import build_metrics, metric_fields
from pipeline.run.blocks import Block, pack, unpack
from schemas.explanation import explanation_schema

_SHARD = Shard(0, "made.tar", "tar", "/nowhere/made.tar", 1, "")
_CHUNK_IMAGES = 128
_CHUNKS = 6
"""Chunks of 128 images of 224 pixels in a full work unit."""
_WINDOW_SECONDS = 0.25
_ROUNDS = 6
_SIZES = ((1, ()), (8, ("average_drop", "insertion", "deletion")))
"""Numbers of methods, and metrics, for which rows are made."""


def handover_rows() -> list[dict[str, Any]]:
    """Measure the time of a row, and what a launching thread keeps of its rate while work units are unpacked."""
    rows = [
        {
            "what": f"make a row, {methods} x {len(metrics)} values",
            "value": 1e6 * row_seconds(methods, metrics),
            "unit": "us",
        }
        for methods, metrics in _SIZES
    ]
    kept = 100 * kept_rate(full_unit(), unpack)
    return [*rows, {"what": "rate a launching thread keeps beside unpacking", "value": kept, "unit": "%"}]


def row_seconds(methods: int, metrics: tuple[str, ...], images: int = _CHUNK_IMAGES) -> float:
    """Return the least CPU time of a row among several tables of the rows of a chunk."""
    schema = explanation_schema(metric_fields(build_metrics(metrics)))
    unmade = [UnmadeRows((random_maps(methods, metrics, images),), schema)]
    return min(_cpu_seconds(lambda: table_of(unmade, schema)) for _ in range(40)) / (methods * images)


def full_unit() -> Block:
    """Pack a work unit of several chunks, whose pixels fill a block."""
    arena = Arena(_CHUNKS * _CHUNK_IMAGES * 224 * 224 * 3)
    return pack([_chunk(ordinal, arena) for ordinal in range(_CHUNKS)])


def kept_rate(block: Block, unpacking: Callable[[Block], Any]) -> float:
    """Return the share of its rate that a thread keeps which launches small operations, while another unpacks.

    The other unpacks a full work unit every quarter of a second, so several times as often as a fast GPU asks for one.
    """
    torch.zeros(1).add_(1)
    alone, beside = [], []
    for _ in range(_ROUNDS):
        alone.append(_launches())
        other = threading.Thread(target=lambda: list(unpacking(block)))
        other.start()
        beside.append(_launches())
        other.join()
    return statistics.median(beside) / statistics.median(alone)


def random_maps(methods: int, metrics: tuple[str, ...], images: int) -> Explained:
    """Return explanations of images with random maps and values."""
    random = np.random.default_rng(0)
    labels = [f"method_{i}" for i in range(methods)]
    numbers = [random.random(images, np.float32) for _ in range(3)]
    classes = random.integers(0, 1000, images)
    pairs = PairFacts("made.tar", 0, _samples(images), ("predicted",) * images, classes, classes, *numbers)
    maps = {label: random.random((images, 7, 7), np.float32) for label in labels}
    values = {name: {label: random.random(images, np.float32) for label in labels} for name in metrics}
    return Explained(pairs, tuple(MethodFacts(label, "{}", "layer4") for label in labels), maps, values, {}, "u8")


def _launches(seconds: float = _WINDOW_SECONDS) -> int:
    """Count the operations that this thread starts in some time."""
    tensor, count = torch.zeros(1), 0
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        tensor.add_(1)
        count += 1
    return count


def _cpu_seconds(work: Callable[[], pa.Table]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _chunk(ordinal: int, arena: Arena) -> DecodedChunk:
    pixels_NHWC = arena.room((_CHUNK_IMAGES, 224, 224, 3), np.dtype(np.uint8))
    pixels_NHWC[:] = ordinal
    return DecodedChunk(Chunk(_SHARD, ordinal, last=False), _samples(_CHUNK_IMAGES), pixels_NHWC, ())


def _samples(images: int) -> tuple[DecodedSample, ...]:
    return tuple(DecodedSample(f"image_{i:08d}", i, ((1.0, 1.0, 99.0, 99.0),), (375, 500)) for i in range(images))
