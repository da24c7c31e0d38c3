"""The output of a failing command contains no secrets of the environment or of addresses."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.demo.data import run_file, write_demo
from pipeline.storage import object_store

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED1",
    "AWS_SECRET_ACCESS_KEY": "planted-2",
    "AWS_SESSION_TOKEN": "planted-3",
    "HF_TOKEN": "planted-4",
    "AWS_ENDPOINT_URL": "http://me:planted-5@127.0.0.1:9",
}
WORDS = ("AKIAPLANTED1", "planted-")


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file over two demonstration scenes."""
    folder = tmp_path_factory.mktemp("demo")
    return write_demo(folder, scenes=2, scenes_per_shard=2)


def failing(code: int, *words: object) -> str:
    """Run a command that must exit with a code; returns its output, and what an unhandled error would show."""
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code, done.output
    assert done.stderr
    return done.output + done.stderr + repr(done.exception)


def found_in(text: str) -> list[str]:
    return [word for word in WORDS if word in text]


class _Echo(BaseHTTPRequestHandler):
    """Refuses every request with an S3 error that repeats the access key and all request headers."""

    def do_GET(self) -> None:
        headers = "".join(f"<{name}>{value}</{name}>" for name, value in self.headers.items())
        key = SECRETS["AWS_ACCESS_KEY_ID"]
        body = f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{key}</AWSAccessKeyId>{headers}</Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_PUT = do_HEAD = do_DELETE = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def echoing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that refuses every request and repeats the request headers in its response."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()
    thread.join()


VERBS = ("status", "verify", "query", "agreement", "compact")
RUN_FILE_OPTIONS = (("--out", "s3://bucket/run"), ("--set", "data.shards=s3://bucket/a.tar"))


@pytest.mark.parametrize("verb", VERBS)
def test_an_unreachable_store_is_reported_without_keys(verb: str) -> None:
    assert found_in(failing(5, verb, "s3://bucket/run")) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_store_that_repeats_keys_is_reported_without_them(echoing: None, verb: str) -> None:
    assert found_in(failing(5, verb, "s3://bucket/run")) == []


@pytest.mark.parametrize("options", RUN_FILE_OPTIONS, ids=["output", "shards"])
def test_a_run_with_an_unreachable_store_fails_without_showing_keys(demo: Path, options: tuple[str, str]) -> None:
    assert found_in(failing(5, "explain", demo, *options)) == []


@pytest.mark.parametrize("options", RUN_FILE_OPTIONS, ids=["output", "shards"])
def test_a_run_refused_by_its_store_fails_without_showing_keys(
    echoing: None, demo: Path, options: tuple[str, str]
) -> None:
    assert found_in(failing(5, "explain", demo, *options)) == []


@pytest.mark.parametrize(
    "setting",
    [
        "output.path=s3://AKIAPLANTED1:planted-2@bucket/run",
        "data.shards=https://me:planted-5@host/a.tar?X-Amz-Signature=planted-3",
        "data.labels=s3://bucket/l.csv?token=planted-4",
        "data.classes=s3://me:planted-5@bucket/c.csv",
        "model.weights=w.safetensors?api_key=planted-4",
        "compute.address=ray://me:planted-5@127.0.0.1:9",
    ],
)
def test_a_run_file_with_secrets_is_refused_without_repeating_them(demo: Path, tmp_path: Path, setting: str) -> None:
    assert found_in(failing(2, "explain", demo, "--set", setting)) == []
    section, _, name = setting.partition("=")[0].partition(".")
    fields = run_file(demo.parent)
    fields[section] = {**fields.get(section, {}), name: setting.partition("=")[2]}  # type: ignore[dict-item]
    written = tmp_path / "run.yaml"
    written.write_text(yaml.safe_dump(fields), encoding="utf-8")
    assert found_in(failing(2, "plan", written)) == []
    assert not (demo.parent / "run").exists()
