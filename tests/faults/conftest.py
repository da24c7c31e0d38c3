"""Fixtures of the fault tests."""

import uuid
from collections.abc import Iterator

import pyarrow as pa
import pytest
import ray.cloudpickle
from faults.s3 import BUCKET, Proxy, s3_server, use

from pipeline.storage import parts
from pipeline.storage.object_store import ObjectStore
from pipeline.storage.parts import Footer


@pytest.fixture
def encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode each part only once, to save time: the same rows always give the same bytes."""
    encode, cache = parts.encode_part, dict[Footer, bytes]()

    def encode_once(table: pa.Table, footer: Footer) -> bytes:
        if footer not in cache:
            cache[footer] = encode(table, footer)
        return cache[footer]

    monkeypatch.setattr(parts, "encode_part", encode_once)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run an S3 server with one bucket, and yield its URL."""
    with s3_server() as url:
        yield url


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty store on that server."""
    use(server, monkeypatch)
    return ObjectStore(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture
def proxied(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Put a proxy in front of the server; it causes no faults until a test sets `strike`."""
    proxy = Proxy(server, lambda _verb, _path: None)
    with proxy.running() as url:
        use(url, monkeypatch)
        yield proxy


@pytest.fixture
def travels_whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pickle what a test module defines by value, because workers cannot import tests."""
    ray.cloudpickle.register_pickle_by_value(request.module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(request.module)
