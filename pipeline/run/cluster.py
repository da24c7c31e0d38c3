"""Connects to Ray: joins a cluster, or starts a local one that ends with the run."""

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import ray

from pipeline.errors import ConfigError, StalledError
from pipeline.run.placement import WORKER_ENVIRONMENT, gpu_shortage, gpus_for, logical_cpus, workers_for
from pipeline.run.reasons import reason_of
from pipeline.settings.precision import check_cpu_precision
from pipeline.settings.run_file import ComputeConfig

_LOCAL_HEAD = {
    "gcs_rpc_server_reconnect_timeout_s": 20,  # a local head that died does not come back
    "prestart_worker_first_driver": False,  # the driver would wait for them, holding the GIL
}
_HELPERS = ("start_monitor", "start_log_monitor", "start_api_server")
"""Methods of Ray's node that start the autoscaler, the forwarder of logs, and the dashboard: a local run needs none."""

_EXECUTOR = "StreamingExecutor"
"""First word in the names of the threads in which Ray Data runs a graph; they have been told to end by then."""
_EXECUTOR_SECONDS = 20


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[str | None]:
    """Join the cluster at `address` (or in RAY_ADDRESS), or start a local one that ends with this block.

    Yields the URL of the dashboard of a cluster that was joined; a local one has none. A local one gets `cpus` logical
    CPUs, or by default those of the machine. An existing connection is used, and left open.

    Raises:
        ConfigError: nothing answers at the address.
        StalledError: the cluster cannot be joined, or Ray does not start here.
    """
    if ray.is_initialized():
        yield None
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        stack.callback(_wait_for_executors)
        if requested := address or os.environ.get("RAY_ADDRESS"):
            check_reachable(requested)
            yield _connect(f"cannot join the Ray cluster at '{requested}'", address=address or "auto")
        else:
            stack.enter_context(_environment(WORKER_ENVIRONMENT))  # inherited by all processes of the cluster
            size = {"num_cpus": cpus or logical_cpus(), "include_dashboard": False}
            with _without_helpers():
                # "local": otherwise Ray would join any cluster that is still running on this machine
                _connect("Ray did not start on this machine", address="local", _system_config=_LOCAL_HEAD, **size)
            yield None


def _wait_for_executors() -> None:
    """Wait until the threads of Ray Data have ended, which an interrupted run leaves behind for a moment.

    One that still asks Ray for something after `ray.shutdown` ends this process with exit code 1, in native code.
    """
    for thread in threading.enumerate():
        if thread.name.startswith(_EXECUTOR):
            thread.join(_EXECUTOR_SECONDS)


def check_reachable(address: str) -> None:
    """Check within seconds that something listens at an address; Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    url = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host_port = (url.hostname or "", url.port or (10001 if "://" in address else 6379))  # Ray's default ports
        with socket.create_connection(host_port, timeout=5):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError.one(
            "compute.address",
            f"nothing answers at '{address}' ({error})",
            "check that the head runs, and that its port can be reached from this machine",
        ) from None


def _connect(failure: str, **options: Any) -> str | None:  # noqa: ANN401 - the options of ray.init
    """Connect to Ray, and return the URL of its dashboard if there is one."""
    try:
        joined: Any = ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # Ray raises many types, also where its version or Python's differs
        advice = "" if options["address"] == "local" else f" --address {options['address']}"
        raise StalledError(f"{failure}: {reason_of(error)}. Try `camatlas doctor{advice}`.") from error
    url: str | None = joined.address_info.get("webui_url")
    return url


@contextmanager
def _without_helpers() -> Iterator[None]:
    """Start no helper processes inside this block; ray.init waits for two of them, and has no options for that.

    A method that another version of Ray does not have is left alone: then its process starts, as usual.
    """
    from unittest.mock import patch

    from ray._private.node import Node

    with ExitStack() as stack:
        for name in _HELPERS:
            if name in vars(Node):
                stack.enter_context(patch.object(Node, name, _start_nothing))
        yield


def _start_nothing(*_: object, **__: object) -> None:
    """Stand in for a method of Ray's node that starts a process."""


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def worker_count(compute: ComputeConfig) -> int:
    """Choose the number of workers: as requested, or as many as the connected cluster has room for."""
    if compute.workers != "auto":
        return compute.workers
    resources = cluster_resources()
    device, gpus = worker_device(compute.device), resources.get("GPU", 0)
    return workers_for(device, resources["CPU"], gpus, compute.gpus_per_worker)


def missing_gpus(compute: ComputeConfig, workers: int) -> str:
    """Say how many GPUs of the connected cluster the workers wait for; empty if they compute on CPUs or all are there.

    Raises:
        ConfigError: the cluster is one of this machine, which gets no more, or cannot compute as requested.
    """
    if worker_device(compute.device) == "cpu":
        check_cpu_precision(compute.precision)
        return ""
    found = gpu_shortage(workers, compute.gpus_per_worker, cluster_resources().get("GPU", 0))
    if found and not compute.joins_cluster:
        raise ConfigError.one(
            "compute.workers",
            f"{workers} workers need {gpus_for(workers, compute.gpus_per_worker)} GPUs, and this machine has "
            f"{cluster_resources().get('GPU', 0):g}",
            "leave it out for one worker per GPU, or set compute.gpus_per_worker to share them",
        )
    return found


def worker_device(requested: str) -> str:
    """Choose the device of the workers: as requested, or GPUs when the cluster has any."""
    if requested != "auto":
        return requested
    return "cuda" if cluster_resources().get("GPU", 0) >= 1 else "cpu"


def cluster_resources() -> dict[str, float]:
    """Return CPUs, GPUs and memory of the connected cluster."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources
