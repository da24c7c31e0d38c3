"""Runs the judge: draws scenes, measures them in several processes, and makes the record."""

import functools
import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError, Mistake, nearest
from pipeline.judge import record
from pipeline.judge.measuring import METHODS, Measured, applicable, measured
from pipeline.judge.pieces import Pieces, joined, read_piece, write_piece
from pipeline.metrics import METRICS, build_metrics
from pipeline.model.weights import digest
from pipeline.run.provenance import package_versions
from pipeline.settings.registry import Spec
from pipeline.truth.networks import NETWORKS
from pipeline.truth.shards import Known, Network, open_network, right_scenes
from schemas.judged import VERSION

BLOCK = 4
"""Scenes that are measured together."""
FEWER: Mapping[str, dict[str, Any]] = {"max_sensitivity": {"samples": 1}}
"""Metrics that compute every map again many times are judged with fewer passes."""

_MEASURING = ("cams", "explain", "maps", "metrics", "model", "truth")
"""Packages whose code determines the measured values."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A network with the scenes to judge on, and the methods that it allows."""

    network: Network
    known: Sequence[Known]
    accuracy: float
    methods: Sequence[Spec]
    left_out: Mapping[str, str]


def judge(
    folder: Path,
    networks: Sequence[str],
    scenes: int,
    seed: int,
    processes: int,
    report: Report,
    methods: Sequence[Spec] = METHODS,
    metrics: Sequence[Spec] | None = None,
) -> dict[str, Any]:
    """Judge all metrics, and return the record.

    Args:
        folder: where finished blocks are kept.
        networks: names of the networks.
        scenes: number of scenes, shared out evenly among the networks, each of which classifies its own rightly.
        seed: of the scenes, the random candidates and the intervals.
        processes: number of processes.
        report: function that shows progress.
        methods: the methods whose maps the metrics order.
        metrics: the metrics to judge, among them mass and rank; None takes all that give one number per map.

    Raises:
        ConfigError: a network is unknown, or classifies too few scenes rightly; nothing is judged then.
    """
    _check_names(networks)
    wanted = [open_network(name) for name in dict.fromkeys(networks)]
    opened = [_open(network, math.ceil(scenes / len(wanted)), seed, report, methods) for network in wanted]
    specs = judged_metrics() if metrics is None else metrics
    pieces = Pieces(folder, _identity(opened, specs, seed))
    found = dict(_measured(opened, specs, seed, pieces, processes, report))
    return {
        "version": VERSION,
        "seed": seed,
        "versions": _versions(),
        "networks": {
            one.network.name: {
                "scenes": len(one.known),
                "accuracy": one.accuracy,
                "weights_sha256": digest(one.network.model),
                "own_share": record.own_share(found[one.network.name]),
                "left_out": dict(one.left_out),
            }
            for one in opened
        },
        "rules": record.rules(found),
        "candidates": record.candidates(found),
        "metrics": record.judge_metrics(found, build_metrics(specs), seed),
        "methods": record.judge_methods(found, seed),
    }


def _check_names(names: Sequence[str]) -> None:
    """Raise ConfigError for every name that is not a trained network; that of closed form needs no judge."""
    unknown = [name for name in dict.fromkeys(names) if name not in NETWORKS]
    if unknown or not names:
        raise ConfigError(
            Mistake("--networks", f"'{name}' is no network to judge on", nearest(name, NETWORKS))
            for name in unknown or [""]
        )


def judged_metrics() -> list[Spec]:
    """Return the metrics that give one number per map."""
    return [{name: FEWER.get(name, {})} for name, kind in METRICS.items() if not kind.curve]


def _open(network: Network, scenes: int, seed: int, report: Report, methods: Sequence[Spec]) -> Opened:
    name = network.name
    report(f"{name}: drawing scenes and computing exact values")
    known, accuracy = right_scenes(network, scenes, seed)
    allowed, left_out = applicable(network, known[0], methods)
    for method, reason in left_out.items():
        report(f"{name}: without {method}: {reason}")
    return Opened(network, known, accuracy, allowed, left_out)


def _measured(
    opened: Sequence[Opened], metrics: Sequence[Spec], seed: int, pieces: Pieces, processes: int, report: Report
) -> Iterator[tuple[str, Measured]]:
    """Yield what was measured on each network, from stored pieces where there are any."""
    blocks = [(one, start) for one in opened for start in range(0, len(one.known), BLOCK)]
    paths = {(one.network.name, start): _path(pieces, one, start) for one, start in blocks}
    missing = [(one, start) for one, start in blocks if read_piece(paths[one.network.name, start]) is None]
    if len(missing) < len(blocks):
        report(f"{len(blocks) - len(missing)} of {len(blocks)} blocks were measured before")
    if missing:
        _measure_all(missing, paths, metrics, seed, processes, report)
    for one in opened:
        stored = [read_piece(paths[one.network.name, start]) for start in range(0, len(one.known), BLOCK)]
        yield one.network.name, joined([piece for piece in stored if piece is not None])


def _measure_all(
    missing: Sequence[tuple[Opened, int]],
    paths: Mapping[tuple[str, int], Path],
    metrics: Sequence[Spec],
    seed: int,
    processes: int,
    report: Report,
) -> None:
    pool = ProcessPoolExecutor(
        min(processes, len(missing)), mp_context=get_context("forkserver"), initializer=_prepare_worker
    )
    with pool:
        futures: list[Future[None]] = [
            pool.submit(
                _measure_block, one.network.name, one.known[start : start + BLOCK], one.methods, metrics, seed,
                paths[one.network.name, start],
            )
            for one, start in missing
        ]  # fmt: skip
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                report(f"{done} of {len(missing)} blocks of up to {BLOCK} scenes measured")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_worker() -> None:
    torch.set_num_threads(1)  # the same sums on every machine, and the cores are used by other processes
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the command is killed; otherwise it would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@functools.lru_cache
def _network(name: str) -> Network:
    return open_network(name)


def _measure_block(
    name: str, known: Sequence[Known], methods: Sequence[Spec], metrics: Sequence[Spec], seed: int, path: Path
) -> None:
    write_piece(path, measured(_network(name), known, methods, metrics, seed))


def _path(pieces: Pieces, one: Opened, start: int) -> Path:
    return pieces.path(one.network.name, start // BLOCK, min(BLOCK, len(one.known) - start))


def _identity(opened: Sequence[Opened], metrics: Sequence[Spec], seed: int) -> dict[str, Any]:
    built = build_metrics(metrics)
    return {
        "version": VERSION,
        "seed": seed,
        "weights": {one.network.name: digest(one.network.model) for one in opened},
        "methods": {one.network.name: [repr(spec) for spec in one.methods] for one in opened},
        "metrics": {name: asdict(metric) for name, metric in built.items()},  # type: ignore[call-overload]
        "versions": _versions(),
        "block": BLOCK,
        "source": _source_digest(),
    }


def _source_digest() -> str:
    """Return the digest of the code that determines the measured values."""
    root = Path(__file__).parents[1]
    found = [path for package in _MEASURING for path in (root / package).rglob("*.py")]
    found += [root / "judge" / "candidates.py", root / "judge" / "measuring.py"]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = package_versions()
    return {name: versions[name] for name in ("camatlas", "numpy", "scipy", "torch") if name in versions}
