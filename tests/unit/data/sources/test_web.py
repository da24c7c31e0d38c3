"""Shards of a web server on loopback: ranged requests, pinned versions, and what cannot be read in one sentence."""

import gzip
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tars import tar_of, three_samples

from pipeline.data.sources import Reading, Sample, read_shard
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError, StoreError


class Server(http.server.ThreadingHTTPServer):
    """Serves the files of a folder, with ranges and ETags, and counts its requests."""

    folder: Path
    ranges = etags = True
    requests = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.server.requests += 1
        path = self.server.folder / self.path.lstrip("/").replace("%20", " ")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, etag = path.read_bytes(), f'"{hash(path.read_bytes())}"'
        if self.headers.get("If-Match") not in (None, etag) and self.server.etags:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range") if self.server.ranges else None
        start, stop = map(int, asked.removeprefix("bytes=").split("-")) if asked else (0, len(data) - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop}/{len(data)}")
        if self.server.etags:
            self.send_header("ETag", etag)
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.send_header("Content-Length", str(stop + 1 - start))
        self.end_headers()
        if body:
            self.wfile.write(data[start : stop + 1])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("pipeline.storage.object_store._pauses", lambda: iter([0.0]))
    for name in ("a.tar", "b c.tar"):
        (tmp_path / name).write_bytes(tar_of(three_samples()))
    server = Server(("127.0.0.1", 0), Handler)
    server.folder = tmp_path
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url(server: Server, name: str = "") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_a_tar_is_the_same_as_on_a_disk(server: Server) -> None:
    (shard,) = list_shards(url(server, "a.tar"))
    (local,) = list_shards(str(server.folder / "a.tar"))
    assert (shard.name, shard.size, shard.fingerprint) == (local.name, local.size, local.fingerprint)
    assert list(read_shard(shard, Reading())) == list(read_shard(local, Reading()))
    assert server.requests == 3, "one HEAD and one range to list it, one range to read it"


def test_names_with_spaces_and_braces(server: Server) -> None:
    assert [shard.name for shard in list_shards(url(server, "{a,b%20c}.tar"))] == ["a.tar", "b c.tar"]


def test_a_table_is_read_and_counted(server: Server) -> None:
    pq.write_table(pa.table({"image": [b"1", b"2"], "key": ["x", "y"]}), server.folder / "t.parquet")
    (shard,) = list_shards(url(server, "t.parquet"))
    assert shard.images == 2
    assert [item.key for item in read_shard(shard, Reading()) if isinstance(item, Sample)] == ["x", "y"]


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_is_replaced_is_not_read(server: Server, etags: bool) -> None:
    server.etags = etags
    (shard,) = list_shards(url(server, "a.tar"))
    path = server.folder / "a.tar"
    before = path.stat().st_mtime
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, (before + 10, before + 10))
    with pytest.raises(StoreError, match="was replaced during the run"):
        list(read_shard(shard, Reading()))


def test_a_missing_file_is_named(server: Server) -> None:
    with pytest.raises(ConfigError, match=r"no object .*gone\.tar"):
        list_shards(url(server, "gone.tar"))


@pytest.mark.parametrize("name", ["", "d/", "*.tar"])
def test_a_server_does_not_list(server: Server, name: str) -> None:
    with pytest.raises(ConfigError, match="does not list its files"):
        list_shards(url(server, name))


def test_a_server_without_ranges_is_a_problem_of_the_store(server: Server) -> None:
    (shard,) = list_shards(url(server, "a.tar"))
    server.ranges = False
    with pytest.raises(StoreError, match=r"a\.tar"):
        list(read_shard(shard, Reading()))


@pytest.mark.parametrize(
    "spec", ["http://example.invalid/a.tar", "https://me:secret@host/a.tar", "https://host/a.tar?sig=1"]
)
def test_unencrypted_urls_and_credentials_are_refused_without_a_request(spec: str) -> None:
    with pytest.raises(ConfigError) as caught:
        list_shards(spec)
    assert "secret" not in str(caught.value)


def test_an_arrow_file_is_refused_because_what_its_labels_mean_lies_elsewhere(server: Server) -> None:
    (server.folder / "t.arrow").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(ConfigError, match=r"t.arrow' is an Arrow file, which is read from a disk alone \(copy the"):
        list_shards(url(server, "t.arrow"))


def test_a_compressed_tar_is_read(server: Server) -> None:
    (server.folder / "c.tgz").write_bytes(gzip.compress(tar_of(three_samples())))
    shards = list_shards([url(server, "c.tgz")])
    found = [item.key for shard in shards for item in read_shard(shard, Reading()) if isinstance(item, Sample)]
    assert found == ["a", "b", "c"]


def test_all_shards_that_are_something_else_are_named_at_once(server: Server) -> None:
    for name in ("p.tar", "q.tar"):
        (server.folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    with pytest.raises(ConfigError) as caught:
        list_shards(url(server, "{a,p,q}.tar"))
    assert len(caught.value.mistakes) == 2
