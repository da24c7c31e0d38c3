"""How a run joins a cluster or starts its own, without starting either."""

import socket
from typing import NoReturn

import pytest
import ray

from pipeline.errors import ConfigError, StalledError, StoreError
from pipeline.run import cluster
from pipeline.run.cluster import connected, reach
from pipeline.run.dataflow import _told


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What Ray is asked for; nobody answers."""
    calls: list[dict[str, object]] = []

    def refuse(**options: object) -> None:
        calls.append(options)
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "reach", lambda address: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return calls


@pytest.mark.parametrize(("address", "environment"), [("10.0.0.1:6379", None), (None, "10.0.0.1:6379")])
def test_a_cluster_that_does_not_answer_is_named(
    address: str | None, environment: str | None, asked: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with (
        pytest.raises(StalledError, match=r"cannot join the Ray cluster at '10\.0\.0\.1:6379': .*nobody"),
        connected(address),
    ):
        pass
    assert [call["address"] for call in asked] == [address or "auto"]


def test_a_ray_of_our_own_never_joins_another(asked: list[dict[str, object]]) -> None:
    with pytest.raises(StalledError, match="did not start here"), connected(None, cpus=4):
        pass
    assert [(call["address"], call["num_cpus"]) for call in asked] == [("local", 4)]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:port"])
def test_an_address_that_nothing_listens_at_is_refused_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ConfigError, match="nothing answers at"), connected(address):
        pass


@pytest.mark.parametrize(
    ("address", "port"), [("head", 6379), ("ray://head", 10001), ("head:7", 7), ("ray://head:7", 7)]
)
def test_the_port_is_rays_own_where_none_is_named(address: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def create_connection(place: object, timeout: float) -> NoReturn:
        tried.append(place)
        raise OSError("nothing there")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    with pytest.raises(ConfigError, match="nothing answers"):
        reach(address)
    assert tried == [("head", port)]


def test_of_an_error_that_ray_wrapped_our_sentence_is_told_and_not_its_traceback() -> None:
    ours = StoreError("cannot read s3://bucket/key. Run the same command again.")

    class RayTaskError(StoreError):
        """As Ray makes them: of our kind, with a traceback for a message."""

        cause = ours

    assert _told(RayTaskError("ray::Read() Traceback ...")) is ours
