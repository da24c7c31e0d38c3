"""A local S3 server (moto), and a proxy in front of it that loses, delays and corrupts responses."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import boto3
import pytest
from faults.s3_environment import BUCKET, SECRET, environment
from moto.server import ThreadedMotoServer

__all__ = ["BUCKET", "SECRET", "Accident", "Proxy", "Strike", "s3_server", "use"]

Accident = Literal[
    "slow_down", "internal", "forbidden", "reset", "lost", "stall", "error_body", "unconditional", "cut", "short"
]
"""What happens to a request, in order: status 503, 500 and 403; the connection ends before, or after, the request is
processed; the response is seconds late; status 200 with an error as the body; the condition of a put or get is dropped;
the connection ends within the body; half the body, as if it were complete."""
Strike = Callable[[str, str], Accident | None]
"""Chooses from method and path which accident happens to a request."""

_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>simulated by the test</Message></Error>"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Run a server with one bucket, and yield its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        options = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=url, **options).create_bucket(Bucket=BUCKET)
        yield url
    finally:
        server.stop()


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the environment at a server, as a user would."""
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)


@dataclass
class Proxy:
    """Forwards requests, except those to which an accident happens."""

    target: str
    strike: Strike
    requests: list[tuple[str, str, Accident | None]] = field(default_factory=list)
    stall: float = 5
    port: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve on loopback, and yield the URL."""
        handler = type("Handler", (_Handler,), {"proxy": self})
        server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        accident = self.proxy.strike(self.command, self.path)
        self.proxy.requests.append((self.command, self.path, accident))
        if accident == "slow_down":
            self._answer(503, _ERROR % b"SlowDown", {})
        elif accident == "internal":
            self._answer(500, _ERROR % b"InternalError", {})
        elif accident == "forbidden":
            self._answer(403, _ERROR % b"AccessDenied", {})
        elif accident == "error_body":
            self._answer(200, _ERROR % b"InternalError", {})
        elif accident == "reset":
            self._hang_up()
        else:
            if accident == "stall":
                time.sleep(self.proxy.stall)
            status, answer, headers = self._forwarded(body, conditional=accident != "unconditional")
            if accident == "lost":
                self._hang_up()
            elif accident == "cut":
                self._answer(status, answer, headers, sent=len(answer) // 2)
                self._hang_up()
            elif accident == "short":
                self._answer(status, answer[: len(answer) // 2], headers)
            else:
                self._answer(status, answer, headers)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _forwarded(self, body: bytes, *, conditional: bool) -> tuple[int, bytes, dict[str, str]]:
        conditions = ("if-none-match", "if-match")
        headers = {name: value for name, value in self.headers.items() if conditional or name.lower() not in conditions}
        connection = http.client.HTTPConnection(self.proxy.target.removeprefix("http://"), timeout=30)
        try:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        with contextlib.suppress(OSError):  # the client did not wait
            self.send_response(status)
            length = headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
            dropped = {"content-length", "connection", "transfer-encoding", "server", "date"}
            for name, value in headers.items():
                if name.lower() not in dropped:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:sent])

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
