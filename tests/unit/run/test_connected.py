"""Joining or starting a cluster, with a fake Ray."""

import socket
import threading
from typing import NoReturn

import pytest
import ray

from pipeline.errors import ConfigError, StalledError, StoreError
from pipeline.run import cluster
from pipeline.run.cluster import check_reachable, connected
from pipeline.run.reasons import unwrapped


@pytest.fixture
def ray_options(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Record the options that Ray is started with, and let every start fail."""
    calls: list[dict[str, object]] = []

    def refuse(**options: object) -> None:
        calls.append(options)
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "check_reachable", lambda address: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return calls


@pytest.mark.parametrize(("address", "environment"), [("10.0.0.1:6379", None), (None, "10.0.0.1:6379")])
def test_a_cluster_that_does_not_answer_is_named(
    address: str | None, environment: str | None, ray_options: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with (
        pytest.raises(StalledError, match=r"cannot join the Ray cluster at '10\.0\.0\.1:6379': .*nobody"),
        connected(address),
    ):
        pass
    assert [call["address"] for call in ray_options] == [address or "auto"]


def test_a_local_ray_never_joins_another_cluster(ray_options: list[dict[str, object]]) -> None:
    with pytest.raises(StalledError, match="did not start on this machine"), connected(None, cpus=4):
        pass
    assert [(call["address"], call["num_cpus"]) for call in ray_options] == [("local", 4)]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:port"])
def test_an_address_that_nothing_listens_at_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ConfigError, match="nothing answers at"), connected(address):
        pass


@pytest.mark.parametrize(
    ("address", "port"), [("head", 6379), ("ray://head", 10001), ("head:7", 7), ("ray://head:7", 7)]
)
def test_an_address_without_a_port_gets_the_default_port_of_ray(
    address: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def create_connection(place: object, timeout: float) -> NoReturn:
        tried.append(place)
        raise OSError("refused")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    with pytest.raises(ConfigError, match="nothing answers"):
        check_reachable(address)
    assert tried == [("head", port)]


def test_an_error_wrapped_by_ray_is_unwrapped_to_the_original_one() -> None:
    ours = StoreError("cannot read s3://bucket/key. Run the same command again.")

    class RayTaskError(StoreError):
        """As Ray makes them: derived from our class, with a traceback as the message."""

        cause = ours

    assert unwrapped(RayTaskError("ray::Read() Traceback ...")) is ours


def test_a_local_ray_starts_without_the_processes_that_a_run_does_not_need(
    ray_options: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private.node import Node

    before = {name: vars(Node)[name] for name in cluster._HELPERS}
    during: dict[str, object] = {}

    def note(**_: object) -> NoReturn:
        during.update({name: vars(Node)[name] for name in cluster._HELPERS})
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", note)
    with pytest.raises(StalledError), connected(None):
        pass
    assert all(found is cluster._start_nothing for found in during.values())
    assert {name: vars(Node)[name] for name in cluster._HELPERS} == before


def test_a_ray_without_these_methods_is_started_as_it_is(
    ray_options: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_HELPERS", ("start_something_else",))
    with pytest.raises(StalledError, match="nobody answers"), connected(None):
        pass
    assert len(ray_options) == 1


def test_threads_of_ray_data_end_before_ray() -> None:
    told = threading.Event()
    executor = threading.Thread(target=told.wait, name="StreamingExecutor-dataset_1", daemon=True)
    executor.start()
    threading.Timer(0.2, told.set).start()
    cluster._wait_for_executors()
    assert not executor.is_alive()
