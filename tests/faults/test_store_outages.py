"""A store that stops answering while a run is read: that is neither damage nor absence, and deletes nothing."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from faults.s3 import Accident, Proxy, Strike, use
from handmade import RunMaker
from typer.testing import CliRunner

from jobs.support.console import EXIT_STORE
from jobs.verify import verify as verify_verb
from pipeline.errors import DamagedRunError, StoreError
from pipeline.results.query import open_run
from pipeline.results.status import status
from pipeline.results.summary import totals
from pipeline.results.verify import verify
from pipeline.storage import object_store
from pipeline.storage.compaction import compact
from pipeline.storage.object_store import ObjectStore

Reader = Callable[[ObjectStore], object]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.02)


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    """A finished run in the store."""
    RunMaker(tmp_path / "run").work(store)
    return store


def querying(sql: str) -> Reader:
    def read(store: ObjectStore) -> object:
        with open_run(store.url) as opened:
            return opened.arrow(sql)

    return read


def at_parts(accident: Accident) -> Strike:
    return lambda _verb, path: accident if "/part-" in path else None


READERS: dict[str, Reader] = {
    "verify": verify,
    "totals": totals,
    "status": lambda store: status(store, now=0.0),
    "compact": compact,
    "rows": querying("SELECT * FROM explanations"),
    "count": querying("SELECT count(*) FROM explanations WHERE method = 'gradcam'"),
    "tables": lambda store: list(open_run(store.url).tables()),
}


@pytest.mark.parametrize("accident", ["slow_down", "forbidden"])
@pytest.mark.parametrize("reader", READERS)
def test_readers_report_an_outage_and_not_damage(
    run: ObjectStore, monkeypatch: pytest.MonkeyPatch, reader: str, accident: Accident
) -> None:
    with Proxy(os.environ["AWS_ENDPOINT_URL"], at_parts(accident)).running() as url:
        use(url, monkeypatch)
        with pytest.raises(StoreError, match=r"cannot (read|get metadata of) s3://"):
            READERS[reader](ObjectStore(run.url))


def test_repair_deletes_nothing_during_an_outage(run: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    app.command()(verify_verb)
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"], at_parts("slow_down"))
    with proxy.running() as url:
        use(url, monkeypatch)
        assert CliRunner().invoke(app, [run.url, "--repair"]).exit_code == EXIT_STORE
    assert {verb for verb, _, _ in proxy.requests} <= {"GET", "HEAD"}


def test_a_part_that_disappears_while_totals_are_counted_is_reported(
    run: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = run.names()
    run.delete(next(name for name in names if name.startswith("part-")))
    monkeypatch.setattr(run, "names", lambda folder="": names if not folder else [])
    with pytest.raises(DamagedRunError, match=r"part-.* cannot be read: it is missing"):
        totals(run)


def test_accidents_change_no_result(run: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    query = querying("SELECT * FROM parts ORDER BY ALL")
    expected, chance = query(run), random.Random(0)
    kinds: list[Accident | None] = [*9 * [None], "slow_down", "reset", "cut"]
    strike: Strike = lambda _verb, path: chance.choice(kinds) if "/part-" in path else None  # noqa: E731
    with Proxy(os.environ["AWS_ENDPOINT_URL"], strike).running() as url:
        use(url, monkeypatch)
        assert query(ObjectStore(run.url)) == expected
        assert totals(ObjectStore(run.url)).images == 5
