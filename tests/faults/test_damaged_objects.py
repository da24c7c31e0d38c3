"""Damaged parts in an object store are handled like those on a disk, and the check costs no extra request."""

import os
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from damage import flipped
from faults.s3 import Accident, Proxy, use
from handmade import PARTS, RunMaker
from typer.testing import CliRunner

from jobs import query
from jobs import verify as verify_verb
from pipeline.errors import DamagedRunError, StoreError
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage import object_file, object_store
from pipeline.storage.checksums import checksummed
from pipeline.storage.compaction import compact
from pipeline.storage.merged import merged_path
from pipeline.storage.object_store import TRIES, ObjectStore

QUERY = "SELECT * FROM parts ORDER BY ALL"


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    """A finished run in the store."""
    RunMaker(tmp_path / "run").work(store)
    return store


def replaced(store: ObjectStore, name: str, data: bytes) -> None:
    store.delete(name)
    assert store.publish(name, data)


@pytest.mark.parametrize("merged", [False, True])
def test_no_flipped_bit_in_an_object_changes_an_answer(run: ObjectStore, *, merged: bool) -> None:
    names = [part.file for part in PARTS]
    if merged:
        names = [merged_path(file.name) for file in compact(run).record.files]
    with open_run(run.url) as opened:
        truth = opened.arrow(QUERY)
    chance, found = random.Random(0), Counter[str]()
    for number in range(10):
        name = chance.choice(names)
        sound = run.read(name)
        replaced(run, name, flipped(sound, chance, footer=number % 2 == 0))
        try:
            with open_run(run.url) as opened:
                found["same" if opened.arrow(QUERY).equals(truth) else "another answer"] += 1
        except DamagedRunError as error:
            found["refused" if f"{run.url}/{name} cannot be read" in str(error) else str(error)] += 1
        replaced(run, name, sound)
    assert set(found) <= {"same", "refused"}
    assert found["refused"] >= 5


@pytest.mark.parametrize("footer", [False, True])
def test_verify_names_a_damaged_object_and_its_shard(run: ObjectStore, *, footer: bool) -> None:
    name, chance = PARTS[1].file, random.Random(1)
    for _ in range(2):
        sound = run.read(name)
        replaced(run, name, flipped(sound, chance, footer=footer))
        found = verify(run)
        assert found.damaged == [name]
        (problem,) = found.problems
        assert problem.startswith(f"{name}: changed after it was published")
        assert "it belongs to shard 0 (a.tar)" in problem
        replaced(run, name, sound)
    assert verify(run).problems == []


def test_the_verbs_end_with_exit_code_4(run: ObjectStore) -> None:
    replaced(run, PARTS[2].file, flipped(run.read(PARTS[2].file), random.Random(2), footer=True))
    app = typer.Typer()
    app.command()(query.query)
    app.command()(verify_verb.verify)
    for verb in ("query", "verify"):
        answer = CliRunner().invoke(app, [verb, run.url])
        assert (answer.exit_code, PARTS[2].file in answer.output + answer.stderr) == (4, True)


def test_checking_footers_costs_no_request(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count one request for the size and those of pyarrow for the bytes, the same as without the check."""
    noise = random.Random(0)
    rows = pa.table({"image_key": [str(n) for n in range(300)], "map": [noise.randbytes(1000) for _ in range(300)]})
    store.publish("short.parquet", checksummed(rows))
    store.publish("long.parquet", checksummed(rows, row_group_size=1))
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"], lambda _verb, _path: None)
    with proxy.running() as url:
        use(url, monkeypatch)
        for name in ("short.parquet", "long.parquet"):
            proxy.requests.clear()
            assert ObjectStore(store.url).dataset([name]).to_table(columns=["image_key"]).num_rows == 300
            checked = len(proxy.requests)
            with monkeypatch.context() as patch:
                patch.setattr(object_file, "check_end", lambda *_: True)
                assert ObjectStore(store.url).dataset([name]).to_table(columns=["image_key"]).num_rows == 300
            assert checked == len(proxy.requests) - checked


def test_a_query_ends_while_many_files_are_opened(run: ObjectStore) -> None:
    """Regression test: reading through Python files could deadlock, more often if one of them is damaged."""
    replaced(run, PARTS[1].file, flipped(run.read(PARTS[1].file), random.Random(3), footer=True))
    for _ in range(10):
        with pytest.raises(DamagedRunError), open_run(run.url) as opened:
            opened.arrow(QUERY)


def test_a_temporary_outage_is_not_reported_as_an_error_in_the_query(
    run: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests for one part fail during a query; when parts are checked afterwards, the store works again."""
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.01)
    left: list[Accident] = []

    def outage(_verb: str, path: str) -> Accident | None:
        return left.pop() if left and path.endswith(PARTS[2].file) else None

    with Proxy(os.environ["AWS_ENDPOINT_URL"], outage).running() as url:
        use(url, monkeypatch)
        with open_run(run.url) as opened:
            left += ["slow_down"] * TRIES
            with pytest.raises(StoreError, match=rf"cannot get metadata of {run.url}/{PARTS[2].file}.* run the query"):
                opened.arrow(QUERY)
            assert opened.arrow(QUERY).num_rows == 10
