"""The viewer under hostile names, hostile SQL, and runs that break while one looks."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from handmade import PARTS, RunMaker
from security.test_audit_page import PAYLOADS, Parsed
from starlette.testclient import TestClient
from viewing import addresses, client, keys, text, viewing

from pipeline.errors import StoreError
from pipeline.storage.local_store import LocalStore
from pipeline.storage.run_folder import PartName
from pipeline.viewer.engine import Engine
from pipeline.viewer.library import Library, find_runs
from schemas.explanation import explanation_schema
from schemas.manifest import RunManifest

HOSTILE = [payload.replace("\x00", "") for payload in PAYLOADS] + [
    "../../etc/passwd", "=1+1", "a'b\"c", "x\ny\tz", "?", "%s {0} {{x}}", "\ud800", "&run=two&label=3#x", "a/b\\c",
]  # fmt: skip
NAMES = [name for name in HOSTILE if "\ud800" not in name and len(name) < 500]


STRIDE = 6
"""Hostile names are joined to this many."""


class HostileRun(RunMaker):
    """A run whose names are all hostile: shards, keys, methods, metrics, classes and metadata."""

    @property
    def manifest(self) -> RunManifest:
        return super().manifest.model_copy(update={"classes": tuple(HOSTILE)})

    @property
    def identity(self) -> Any:
        identity = super().identity
        return identity.model_copy(update={"data": identity.data | {"metadata": NAMES[:5]},
                                           "model": identity.model | {"name": HOSTILE[0]}})  # fmt: skip

    @property
    def schema(self) -> pa.Schema:
        fields = [pa.field(name, pa.float32(), metadata={"unit": HOSTILE[2], "meaning": HOSTILE[1]})
                  for name in sorted(self.metrics)]  # fmt: skip
        return explanation_schema(fields, has_metadata=True)

    def rows(self, part: PartName) -> Any:
        metadata = [(name, NAMES[place]) for place, name in enumerate(NAMES[:5])]
        return [{**row, "metadata": metadata} for row in super().rows(part)]


def hostile(folder: Path, first: int) -> HostileRun:
    payload = "".join(NAMES[first::STRIDE])
    return HostileRun(folder, shards=(payload + "1", payload + "2"), methods=(payload + "m", payload + "n"),
                      metrics=(payload + "x", payload + "y"), prefix=payload).complete()  # fmt: skip


@pytest.mark.parametrize("first", range(STRIDE))
def test_hostile_names_stay_text_on_every_page_and_every_link_works(tmp_path: Path, first: int) -> None:
    with viewing(hostile(tmp_path / "run", first).folder) as visitor:
        grid = visitor.get("/")
        assert len(keys(grid.text)) == 5
        image = next(link for link in addresses(grid.text, "href") if link.startswith("/image"))
        column = re.search(r'name="(min\.[^"]*x)"', grid.text)
        assert column is not None
        pages = ["/", image, "/classes", "/class?class=1", "/takeaway", "/?label=0&right=wrong", "/nowhere%3Cscript%3E"]
        pages += [link for link in addresses(grid.text, "href") if link.startswith("/?")][:4]
        for link in pages:
            answer = visitor.get(link)
            assert answer.status_code in (200, 404), (link, text(answer.text))
            parsed = Parsed(answer.text)
            assert parsed.handlers == []
            assert parsed.inline_styles == 0
            assert not parsed.tags & {"iframe", "object", "embed", "base", "style", "math", "animate"}
            assert parsed.counts["script"] == 1
            assert all(re.match(r"#|/(?!/)", address) for address in parsed.addresses), parsed.addresses
        pictures = [
            source for source in addresses(visitor.get(image).text) if source.startswith(("/overlay", "/ground"))
        ]
        assert pictures
        assert all(visitor.get(source).status_code == 200 for source in pictures)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return RunMaker(tmp_path_factory.mktemp("plain") / "run").complete().folder


@pytest.fixture(scope="module")
def visitor(plain: Path) -> Iterator[TestClient]:
    with viewing(plain) as opened:
        yield opened


@pytest.mark.parametrize(
    "sql",
    [
        "1 = 1) UNION SELECT 1 FROM rows_0 WHERE (1 = 1", "TRUE; DROP TABLE rows_0", "DROP TABLE rows_0",
        "(DELETE FROM rows_0)", "TRUE, FALSE", "SELECT TRUE", "", "  ;", "TRUE --\n; DROP TABLE rows_0",
        "EXISTS (SELECT 1 FROM read_csv('/etc/passwd'))", "EXISTS (FROM '/etc/passwd')", "EXISTS (FROM glob('/*'))",
        "(SELECT content FROM read_text('/etc/hostname')) = 'x'", "EXISTS (FROM read_parquet('https://x.example/a'))",
        "COPY rows_0 TO 'x.csv'", "(COPY rows_0 TO 'x.csv')", "ATTACH 'x.db'", "INSTALL httpfs", "LOAD httpfs",
        "PRAGMA database_list", "SET threads = 1", "EXPORT DATABASE 'x'", "CALL pragma_version()",
        "getenv('HOME') = 'x'",
        "nextval('s') > 0", "confidence = ?", "confidence = $1", "\ud800", "confidence > 'abc'", "no_such_function(1)",
        "EXISTS (SELECT 1 FROM query('DROP TABLE rows_0'))", "(" * 2000 + "1" + ")" * 2000, "sum(confidence) > 1",
        "unnest([TRUE, FALSE])", "len(range(1000000000)) > 1", "len(repeat('x', 2000000000)) > 1",
        "len(list_transform(range(1000000000), lambda x: x * 2)) > 1", "len([x FOR x IN range(9)]) > 1",
        "EXISTS (WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) FROM t)",
        "rpad('x', 2000000000, 'x') = 'x'", "EXISTS (FROM range(9))", "TRUE OR " * 2000 + "TRUE",
        "count(*) OVER () > 1 OR sniff_csv('/etc/passwd') IS NULL",
    ],
)  # fmt: skip
def test_sql_that_writes_or_reads_files_is_refused_and_nothing_changes(
    visitor: TestClient, plain: Path, sql: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state(plain)
    answer = visitor.get("/", params={"where": sql.encode("utf-8", "replace").decode()})
    assert answer.status_code == (200 if not sql.strip() else 400), text(answer.text)
    assert len(keys(visitor.get("/").text)) == 5
    assert state(plain) == before
    assert list(tmp_path.iterdir()) == []


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file of a folder."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_a_condition_that_runs_on_is_stopped_while_others_are_answered(plain: Path) -> None:
    library = Library(find_runs([str(plain)]))
    library.engine.seconds = 0.5
    visitor, answers = client(library), []
    tables = ", ".join(f"explanations t{place}" for place in range(16))
    every = ", ".join(f"t{place}.image_key" for place in range(16))
    endless = f"(SELECT max(hash(concat({every}))) FROM {tables}) IS NULL"
    running = threading.Thread(target=lambda: answers.append(visitor.get("/", params={"where": endless})))
    running.start()
    other = client(library).get("/?label=dog")
    running.join()
    assert other.status_code == 200
    assert answers[0].status_code == 400
    limits = ("stopped after 0.5 s", "needs more memory than the viewer may use")  # whichever comes first
    assert any(limit in text(answers[0].text) for limit in limits)
    assert visitor.get("/").status_code == 200
    library.close()


def test_a_condition_that_floods_memory_is_a_sentence(plain: Path) -> None:
    flood = "EXISTS (SELECT a.image_key FROM " + ", ".join(f"explanations {name}" for name in "abcdefghi") + (
        " GROUP BY ALL HAVING count(*) < 0)")  # fmt: skip
    library = Library(find_runs([str(plain)]))
    library.engine.seconds = 0.5
    answer = client(library).get("/", params={"where": flood})
    assert answer.status_code == 400
    assert client(library).get("/").status_code == 200
    library.close()


def test_the_engine_writes_no_temporary_files() -> None:
    assert Engine().sql("SELECT current_setting('temp_directory') AS folder")["folder"].to_pylist() == [""]


def test_a_run_that_grows_says_so_and_shows_it_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = RunMaker(tmp_path / "run").owned().publish(PARTS[0])
    monkeypatch.setattr("pipeline.viewer.library._LISTING_SECONDS", -1)
    with viewing(maker.folder) as visitor:
        assert "2 of 2 images" in text(visitor.get("/").text)
        maker.publish(*PARTS[1:])
        words = text(visitor.get("/?label=dog").text)
        assert "2 new chunks since the run was opened" in words
        assert "1 of 2 images" in words, "the page stays as it was until it is reloaded"
        answer = visitor.get("/reload?label=dog")
        assert (answer.status_code, answer.headers["location"]) == (303, "/?method=gradcam&label=dog")
        assert "3 of 5 images" in text(visitor.get("/?label=dog").text)
        assert "new chunk" not in text(visitor.get("/").text)


@pytest.mark.parametrize("harm", ["truncate", "garbage", "delete", "swap"])
def test_a_part_that_is_damaged_while_one_looks_costs_its_own_maps(tmp_path: Path, harm: str) -> None:
    maker = RunMaker(tmp_path / "run").complete()
    part = maker.folder / PARTS[0].file
    with viewing(maker.folder) as visitor:
        assert visitor.get("/").status_code == 200
        data = part.read_bytes()
        if harm == "delete":
            part.unlink()
        elif harm == "swap":
            part.write_bytes((maker.folder / PARTS[2].file).read_bytes())
        else:
            part.write_bytes(data[:100] if harm == "truncate" else b"\xff" * len(data))
        broken = visitor.get("/overlay?in=a.tar&image=0-0-0&target=0&method=gradcam")
        assert broken.status_code in (500, 503)
        assert PARTS[0].file in broken.text
        assert visitor.get("/overlay?in=b.tar&image=1-0-0&target=0&method=gradcam").status_code == 200
        assert visitor.get("/image?in=a.tar&image=0-0-0").status_code == 200
        assert visitor.get("/sheet?in=a.tar&image=0-0-0").status_code == 200
        if harm != "swap":
            assert visitor.get("/reload").status_code in (400, 500, 503)
        assert len(keys(visitor.get("/").text)) == 5, "the run stays as it was opened"
        part.write_bytes(data)
        assert visitor.get("/overlay?in=a.tar&image=0-0-0&target=0&method=gradcam").status_code == 200


def test_a_store_that_goes_down_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = RunMaker(tmp_path / "run").complete()
    monkeypatch.setattr("pipeline.viewer.library._LISTING_SECONDS", -1)
    with viewing(maker.folder) as visitor:
        assert visitor.get("/").status_code == 200

        def down(*_: object) -> list[str]:
            raise StoreError("cannot list s3://bucket/run: connection refused")

        monkeypatch.setattr(LocalStore, "names", down)
        answer = visitor.get("/")
        assert answer.status_code == 200, "what is in memory is still shown"
        assert "connection refused" in text(answer.text)
        reloaded = visitor.get("/reload")
        assert reloaded.status_code == 503
        assert "connection refused" in text(reloaded.text)
        monkeypatch.undo()
        assert visitor.get("/reload").status_code == 303


@pytest.mark.parametrize(
    "query", ["a=" + "b" * 60_000, "&".join(f"x{i}=1" for i in range(3000)), "label=%ff%fe", "%00=%00"]
)
def test_odd_addresses_get_an_answer(visitor: TestClient, query: str) -> None:
    assert visitor.get(f"/?{query}").status_code in (400, 403)


def test_looking_writes_nothing(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = state(plain)
    with viewing(plain) as visitor:
        for link in (
            "/",
            "/classes",
            "/class?class=dog",
            "/takeaway",
            "/keys.csv",
            "/image?in=a.tar&image=0-0-0",
            "/reload",
        ):
            visitor.get(link)
    assert state(plain) == before
    assert list(tmp_path.iterdir()) == []
