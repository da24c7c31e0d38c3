"""Where Ray runs: a cluster to join, or a local one that lives as long as it is needed."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import ray

from pipeline.errors import ConfigError, StalledError, first_line
from pipeline.model.memory import FREED_MEMORY_IS_KEPT
from pipeline.run.placement import logical_cpus, workers_for


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[str | None]:
    """Join the cluster at `address` (or in RAY_ADDRESS), or start a local one that ends with this block.

    Gives where the dashboard of a cluster that was joined listens; a local one has none. A local one has as many
    logical CPUs as asked, or as the machine has. A connection that is there already is used and left open.

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
        if asked := address or os.environ.get("RAY_ADDRESS"):
            reach(asked)
            yield _begin(f"cannot join the Ray cluster at '{asked}'", address=address or "auto")
        else:
            stack.enter_context(_environment(FREED_MEMORY_IS_KEPT))  # of all processes of the cluster
            patience = {"gcs_rpc_server_reconnect_timeout_s": 20}  # a head of our own that died does not come back
            size = {"num_cpus": cpus or logical_cpus(), "include_dashboard": False}
            # "local": without it, Ray would join any cluster that somebody has left running on this machine
            _begin("Ray did not start here", address="local", _system_config=patience, **size)
            yield None


def reach(address: str) -> None:
    """Refuse an address that nothing listens at, in seconds; Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    found = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        place = (found.hostname or "", found.port or (10001 if "://" in address else 6379))  # Ray's own defaults
        with socket.create_connection(place, timeout=5):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError.one(
            "compute.address", f"nothing answers at '{address}' ({error})", "is the head up, and its port open to here?"
        ) from None


def _begin(trouble: str, **options: Any) -> str | None:  # noqa: ANN401 - what Ray takes
    """Connect; gives where a dashboard listens."""
    try:
        joined: Any = ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # Ray's own, of many types; among them another version of Ray or Python
        advice = "" if options["address"] == "local" else f" --address {options['address']}"
        raise StalledError(f"{trouble}: {first_line(error)}. Try `camatlas doctor{advice}`.") from error
    url: str | None = joined.address_info.get("webui_url")
    return url


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for as long as this lasts."""
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


def worker_count(asked: str | int, device: str) -> int:
    """Choose the number of actors: as asked, or what the cluster that is connected holds."""
    if asked != "auto":
        return int(asked)
    resources = cluster_resources()
    return workers_for(worker_device(device), resources["CPU"], resources.get("GPU", 0))


def worker_device(asked: str) -> str:
    """Choose where the actors run: on GPUs when the cluster has any."""
    if asked != "auto":
        return asked
    return "cuda" if cluster_resources().get("GPU", 0) >= 1 else "cpu"


def cluster_resources() -> dict[str, float]:
    """CPUs, GPUs and memory of the cluster that is connected."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found
