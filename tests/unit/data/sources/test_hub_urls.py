"""Datasets by hf:// URLs: fetched from a stub of the hub on loopback, one split at a time, and kept for offline use."""

import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.sources import Reading, Sample, read_shard
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError, StoreError

SHA = "a" * 40


class Hub(http.server.ThreadingHTTPServer):
    """A hub with one dataset, `me/photos`, that counts the files it sends."""

    files: dict[str, bytes]
    sent: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/api/datasets/me/photos", f"/api/datasets/me/photos/revision/{SHA}"):
            names = [{"rfilename": name} for name in self.server.files]
            self._send(200, json.dumps({"id": "me/photos", "sha": SHA, "siblings": names}).encode())
        elif path.startswith("/api/datasets/me/photos/revision/"):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/datasets/me/photos/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": name.encode().hex()[:40]}
                for name, data in self.server.files.items()
            ]
            self._send(200, json.dumps(entries).encode())
        elif path.startswith(f"/datasets/me/photos/resolve/{SHA}/"):
            name = path.partition(f"/{SHA}/")[2]
            self.server.sent += [name] if self.command == "GET" else []
            data = self.server.files[name]
            self._send(200, data, {"ETag": f'"{name.encode().hex()[:40]}"', "X-Repo-Commit": SHA})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def table(*keys: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [key.encode() for key in keys], "key": list(keys)}), buffer)
    return buffer.getvalue()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(("127.0.0.1", 0), Handler)
    hub.sent = []
    hub.files = {
        "README.md": b"# photos",
        "data/train-00000-of-00002.parquet": table("a", "b"),
        "data/train-00001-of-00002.parquet": table("c"),
        "data/test-00000-of-00001.parquet": table("d"),
        "loader.py": b"raise SystemExit",
    }
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


def keys(spec: str, split: str | None = None) -> list[str]:
    shards = list_shards(spec, split=split)
    return [item.key for shard in shards for item in read_shard(shard, Reading()) if isinstance(item, Sample)]


@pytest.mark.parametrize("spec", ["hf://datasets/me/photos/train", f"hf://datasets/me/photos@{SHA}/train"])
def test_one_split_is_fetched_and_read(hub: Hub, spec: str) -> None:
    assert keys(spec) == ["a", "b", "c"]
    assert sorted(hub.sent) == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    assert keys(spec) == ["a", "b", "c"]
    assert len(hub.sent) == 2, "the second time, they are in the cache"


def test_the_split_may_stand_in_the_run_file(hub: Hub) -> None:
    assert keys("hf://datasets/me/photos", split="test") == ["d"]


def test_several_splits_are_refused_before_anything_is_fetched(hub: Hub) -> None:
    with pytest.raises(ConfigError, match=r"several splits: test \(1 files\), train \(2 files\)"):
        keys("hf://datasets/me/photos")
    with pytest.raises(ConfigError, match="no split 'dev', but test"):
        keys("hf://datasets/me/photos/dev")
    assert hub.sent == []


@pytest.mark.parametrize("spec", ["hf://datasets/me/other/train", "hf://datasets/me/photos@v9/train"])
def test_what_the_hub_does_not_have_is_named(hub: Hub, spec: str) -> None:
    with pytest.raises(ConfigError, match="the hub has no such dataset"):
        keys(spec)


@pytest.mark.parametrize("spec", ["hf://me/photos", "hf://datasets/photos", "hf://datasets/me/photos/a/b", "hf://x"])
def test_other_urls_are_refused_with_the_form(spec: str) -> None:
    with pytest.raises(ConfigError, match="OWNER/NAME@REVISION/SPLIT"):
        keys(spec)


def test_a_hub_that_is_down_is_a_problem_of_the_store(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="cannot fetch hf://datasets/me/photos/train"):
        keys("hf://datasets/me/photos/train")
