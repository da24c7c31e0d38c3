"""A client of the viewer without a server: requests go straight to the pages."""

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from pipeline.viewer.app import application
from pipeline.viewer.library import Library, find_runs

PORT, TOKEN = 1234, "secret"


@contextmanager
def viewing(*runs: str | Path) -> Iterator[TestClient]:
    """Open runs and return a client that is let in."""
    library = Library(find_runs([str(run) for run in runs]))
    try:
        yield client(library)
    finally:
        library.close()


def client(library: Library, **options: Any) -> TestClient:
    """Return a client of a library's pages, with the cookie unless told otherwise."""
    options = {"cookies": {f"camatlas_view_{PORT}": TOKEN}} | options
    return TestClient(
        application(library, PORT, TOKEN), base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False,
        follow_redirects=False, **options,
    )  # fmt: skip


def keys(page: str) -> list[str]:
    """Return the picks of the tiles of a page, SHARD/KEY, in order."""
    return [html.unescape(value) for value in re.findall(r'name="pick" value="([^"]*)"', page)]


def text(page: str) -> str:
    """Return the text of a page in one line."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page[page.find("<body") :]).split()))


def addresses(page: str, attribute: str = "src") -> Sequence[str]:
    """Return the addresses of a page."""
    return [html.unescape(value) for value in re.findall(rf'{attribute}="([^"]*)"', page)]
