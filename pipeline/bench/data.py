"""Measures the rest of the path without Ray: decoding, committing, and querying a finished run."""

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.bench.handover import handover_rows
from pipeline.data.decode import Frame, decode_chunk
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.plain import decoded_jpeg, plain_header
from pipeline.data.sources import Chunk, chunked, read_shard
from pipeline.errors import ConfigError
from pipeline.explain.explainer import Explainer
from pipeline.results.query import open_run
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.run.worker import footer_of, sorted_rows
from pipeline.settings.run_file import RunConfig
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import publish_part

_QUERIES = 20
"""Queries of one kind; their median is reported."""


@dataclass
class _Totals:
    """Seconds of each step so far, and what they produced."""

    reading: float = 0.0
    decoding: float = 0.0
    photographs: float = 0.0
    photographs_alone: float = 0.0
    explaining: float = 0.0
    committing: float = 0.0
    images: int = 0
    rows: int = 0
    bytes: int = 0


def data_rows(config: RunConfig, images: int = 128) -> list[dict[str, Any]]:
    """Take some images through all steps in one process, then query them: rates, sizes, times."""
    with tempfile.TemporaryDirectory() as folder:
        output = config.output.model_copy(update={"path": f"{folder}/run"})
        data = config.data.model_copy(update={"limit": images})
        run = prepare(config.model_copy(update={"output": output, "data": data}))
        take_ownership(run.store, run.manifest)
        totals = _run_steps(run)
        return [*_step_rows(totals), *handover_rows(), *_query_rows(run.store.url)]


def _run_steps(run: PreparedRun) -> _Totals:
    explainer = Explainer(run.loaded.model, run.explainer_spec("cpu", 1))
    totals = _Totals()
    with closing(DecodeSandbox(decoder=run.limits.decoder)) as sandbox:
        for shard in run.shards:
            chunks = chunked(read_shard(shard, run.reading), shard, run.config.data.chunk_images)
            while (read := _timed(lambda: next(chunks, None)))[1] is not None:  # noqa: B023 - called at once
                totals.reading += read[0]
                _run_chunk(run, explainer, read[1], sandbox.frame, totals)
    return totals


def _run_chunk(run: PreparedRun, explainer: Explainer, chunk: Chunk, frame: Frame, totals: _Totals) -> None:
    seconds, decoded = _timed(lambda: decode_chunk(chunk, run.loaded.preprocess, run.limits, frame))
    totals.decoding += seconds
    _time_photographs(run, chunk, frame, totals)
    seconds, table = _timed(lambda: sorted_rows(explainer.tables(decoded)))
    totals.explaining += seconds
    seconds, receipt = _timed(lambda: publish_part(run.store, table, footer_of(decoded, run.manifest.run_id)))
    totals.committing += seconds
    totals.images += len(decoded.samples)
    totals.rows += table.num_rows
    totals.bytes += receipt.size if receipt else 0


def _time_photographs(run: PreparedRun, chunk: Chunk, frame: Frame, totals: _Totals) -> None:
    """Time plain photographs on their way to the model's input, and their decoding alone."""
    if run.limits.decoder is not None:
        return
    for data in (sample.image for sample in chunk.samples if plain_header(sample.image) is not None):
        alone, pixels_HWC = _timed(partial(decoded_jpeg, data, grey=False))
        if pixels_HWC is not None:
            totals.photographs_alone += alone
            totals.photographs += _timed(partial(frame, data, None, run.loaded.preprocess, run.limits))[0]


def _step_rows(totals: _Totals) -> list[dict[str, Any]]:
    images = max(1, totals.images)
    return [
        {"what": "read a shard", "value": images / totals.reading, "unit": "images/s"},
        {"what": "decode and resize", "value": images / totals.decoding, "unit": "images/s"},
        *_rows_of_photographs(totals),
        {"what": "explain", "value": images / totals.explaining, "unit": "images/s"},
        {"what": "encode and commit", "value": totals.rows / totals.committing, "unit": "rows/s"},
        {"what": "bytes of a row on disk", "value": totals.bytes / max(1, totals.rows), "unit": "bytes"},
    ]


def _rows_of_photographs(totals: _Totals) -> list[dict[str, Any]]:
    if not totals.photographs:
        return []
    share = 100 * totals.photographs_alone / totals.photographs
    return [{"what": "rate of decoding alone that photographs keep", "value": share, "unit": "%"}]


def _query_rows(url: str) -> list[dict[str, Any]]:
    with open_run(url) as run:
        keys = run.arrow("SELECT DISTINCT image_key FROM explanations LIMIT 20")["image_key"].to_pylist()
        if not keys:
            raise ConfigError.one("data.shards", "none of the images in the sample could be explained")
        lookups = [_timed(lambda k=key: run.arrow(_LOOKUP, [k]))[0] for key in keys]  # type: ignore[misc]
        boards = [_timed(lambda: run.arrow("SELECT * FROM leaderboard"))[0] for _ in range(_QUERIES)]
        method = run.arrow("SELECT method FROM explanations LIMIT 1")["method"].to_pylist()[0]
        seconds, maps = _timed(lambda: run.maps(f"method = '{method}'"))
    return [
        {"what": "look an image up by its key", "value": 1000 * statistics.median(lookups), "unit": "ms"},
        {"what": "leaderboard", "value": 1000 * statistics.median(boards), "unit": "ms"},
        {"what": "read maps back", "value": len(maps) / seconds, "unit": "maps/s"},
    ]


_LOOKUP = "SELECT method, map FROM explanations WHERE image_key = ?"


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done
