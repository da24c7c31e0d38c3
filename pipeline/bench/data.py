"""The rest of the way, measured without Ray: decoding, committing, and asking a finished run."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.data.decode import decode_chunk
from pipeline.data.sources import Chunk, chunked, read_shard
from pipeline.errors import ConfigError
from pipeline.explain.explainer import Explainer
from pipeline.results.query import open_run
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.run.worker import footer_of, sorted_rows
from pipeline.settings.run_file import RunConfig
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import publish_part

_ASKED = 20
"""Questions of one kind; their median is told."""


@dataclass
class _Spent:
    """Seconds of each step so far."""

    reading: float = 0.0
    decoding: float = 0.0
    explaining: float = 0.0
    committing: float = 0.0
    images: int = 0
    rows: int = 0
    bytes: int = 0


def data_rows(config: RunConfig, images: int = 128) -> list[dict[str, Any]]:
    """Take some images of a run all the way in one process, then ask about them: rates, sizes, times."""
    with tempfile.TemporaryDirectory() as folder:
        output = config.output.model_copy(update={"path": f"{folder}/run"})
        data = config.data.model_copy(update={"limit": images})
        run = prepare(config.model_copy(update={"output": output, "data": data}))
        take_ownership(run.store, run.manifest)
        spent = _taken_through(run)
        return [*_step_rows(spent), *_question_rows(run.store.url)]


def _taken_through(run: PreparedRun) -> _Spent:
    explainer = Explainer(run.loaded.model, run.explainer_spec("cpu", 1))
    spent = _Spent()
    for shard in run.shards:
        chunks = chunked(read_shard(shard, run.reading), shard, run.config.data.chunk_images)
        while (found := _timed(lambda: next(chunks, None)))[1] is not None:  # noqa: B023 - called at once
            spent.reading += found[0]
            _one(run, explainer, found[1], spent)
    return spent


def _one(run: PreparedRun, explainer: Explainer, chunk: Chunk, spent: _Spent) -> None:
    seconds, decoded = _timed(lambda: decode_chunk(chunk, run.loaded.preprocess, run.limits))
    spent.decoding += seconds
    seconds, table = _timed(lambda: sorted_rows(explainer.tables(decoded)))
    spent.explaining += seconds
    seconds, receipt = _timed(lambda: publish_part(run.store, table, footer_of(decoded, run.manifest.run_id)))
    spent.committing += seconds
    spent.images += len(decoded.samples)
    spent.rows += table.num_rows
    spent.bytes += receipt.size if receipt else 0


def _step_rows(spent: _Spent) -> list[dict[str, Any]]:
    images = max(1, spent.images)
    return [
        {"what": "read a shard", "value": images / spent.reading, "unit": "images/s"},
        {"what": "decode and resize", "value": images / spent.decoding, "unit": "images/s"},
        {"what": "explain", "value": images / spent.explaining, "unit": "images/s"},
        {"what": "encode and commit", "value": spent.rows / spent.committing, "unit": "rows/s"},
        {"what": "bytes of a row on disk", "value": spent.bytes / max(1, spent.rows), "unit": "bytes"},
    ]


def _question_rows(url: str) -> list[dict[str, Any]]:
    with open_run(url) as run:
        keys = run.arrow("SELECT DISTINCT image_key FROM explanations LIMIT 20")["image_key"].to_pylist()
        if not keys:
            raise ConfigError.one("data.shards", "none of the images that were tried could be explained")
        lookups = [_timed(lambda k=key: run.arrow(_LOOKUP, [k]))[0] for key in keys]  # type: ignore[misc]
        boards = [_timed(lambda: run.arrow("SELECT * FROM leaderboard"))[0] for _ in range(_ASKED)]
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
