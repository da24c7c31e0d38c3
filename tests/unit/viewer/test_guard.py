"""Who is let in: the token, the Host, reading methods; and the headers of every answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import RunMaker
from viewing import PORT, TOKEN, client

from pipeline.viewer.library import Library, find_runs

COOKIE = f"camatlas_view_{PORT}"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder: Path = RunMaker(tmp_path_factory.mktemp("run")).complete().folder
    opened = Library(find_runs([str(folder)]))
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", f"0.0.0.0:{PORT}", "",
             f"127.0.0.1:{PORT}.evil.example", f"localhost:{PORT}, evil.example"]
)  # fmt: skip
def test_a_forged_host_is_refused_even_with_the_cookie(library: Library, host: str) -> None:
    answer = client(library).get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "gradcam" not in answer.text


def test_localhost_is_this_machine(library: Library) -> None:
    assert client(library).get("/", headers={"host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize("cookies", [{}, {COOKIE: ""}, {COOKIE: "wrong"}, {COOKIE: TOKEN[:-1]}, {"other": TOKEN}])
@pytest.mark.parametrize("path", ["/", "/tiles", "/image", "/tile", "/static/view.css", "/nowhere", "/?token=wrong"])
def test_without_the_token_nothing_is_shown(library: Library, cookies: dict[str, str], path: str) -> None:
    answer = client(library, cookies=cookies).get(path)
    assert answer.status_code == 403
    assert "camatlas view" in answer.text


def test_the_token_of_the_address_becomes_a_cookie_and_leaves_the_address(library: Library) -> None:
    visitor = client(library, cookies={})
    answer = visitor.get(f"/?token={TOKEN}&label=dog")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert 'url=/?label=dog"' in answer.text
    assert TOKEN not in answer.text
    assert visitor.get("/?label=dog").status_code == 200


@pytest.mark.parametrize("query", ["%22%3E%3Cscript%3Ealert(1)%3C/script%3E=1", "x=%22%3E%3Cscript%3E"])
def test_the_entrance_escapes_what_it_passes_on(library: Library, query: str) -> None:
    answer = client(library, cookies={}).get(f"/?token={TOKEN}&{query}")
    assert "<script" not in answer.text


@pytest.mark.parametrize("path", ["//evil.example/", "/nowhere", "/reload"])
def test_the_entrance_leads_to_pages_only(library: Library, path: str) -> None:
    answer = client(library, cookies={}).get(f"http://127.0.0.1:{PORT}{path}?token={TOKEN}")
    assert 'url=/"' in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_only_reading_methods_are_answered(library: Library, method: str) -> None:
    answer = client(library).request(method, "/")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_answered_without_a_body(library: Library) -> None:
    answer = client(library).head("/")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/nowhere", "/?label=zebra", "/static/view.js", "/image?image=x", "/tile"])
def test_every_answer_has_the_strict_headers(library: Library, path: str) -> None:
    headers = client(library).get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_static_files_are_two_and_no_path_leads_out(library: Library) -> None:
    visitor = client(library)
    assert visitor.get("/static/view.css").headers["content-type"].startswith("text/css")
    for name in ("../rendering.py", "..%2frendering.py", "%2e%2e/rendering.py", "view.py", ""):
        assert visitor.get(f"/static/{name}").status_code == 404
