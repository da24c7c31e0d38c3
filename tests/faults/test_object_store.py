"""A run folder in an object store: every object is published exactly once, despite any accident."""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer
from faults.s3 import Accident, Proxy, Strike, use
from handmade import PARTS, RunMaker

from jobs import doctor
from jobs.status import status as show_status
from jobs.support.fitness import Found
from pipeline.errors import ConfigError, StoreError
from pipeline.results.atlas import is_atlas, open_atlas
from pipeline.results.query import open_run
from pipeline.results.status import Count, status
from pipeline.results.verify import verify
from pipeline.storage import object_store
from pipeline.storage.compaction import Limits, compact, drop
from pipeline.storage.merged import COMPACT, files_of
from pipeline.storage.object_store import TRIES, ObjectStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import publish_part
from pipeline.storage.store import open_store


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.02)


def behind(store: ObjectStore, proxy: str, monkeypatch: pytest.MonkeyPatch, seconds: float = 30) -> ObjectStore:
    """Return the same store, reached through a proxy."""
    use(proxy, monkeypatch)
    return ObjectStore(store.url, seconds)


def first(accident: Accident, method: str, name: str) -> Strike:
    """Let the accident happen only to the first request with this method and path."""
    left = [accident]
    return lambda verb, path: left.pop() if left and verb == method and path.endswith(name) else None


def test_it_behaves_like_a_store_in_a_folder(store: ObjectStore) -> None:
    store.check_writable()
    assert store.names() == []
    assert store.publish("a.bin", b"first")
    assert not store.publish("a.bin", b"second")
    assert store.publish("_receipts/a.json", b"{}")
    assert store.publish("empty", b"")
    assert store.read("a.bin") == b"first"
    assert (store.names(), store.names("_receipts")) == (["_receipts", "a.bin", "empty"], ["a.json"])
    store.replace("a.bin", b"third")
    assert store.read("a.bin") == b"third"
    store.delete("a.bin")
    store.delete("a.bin")
    with pytest.raises(FileNotFoundError):
        store.read("a.bin")
    assert store.names() == ["_receipts", "empty"]


def test_of_sixteen_writers_at_once_exactly_one_wins(store: ObjectStore) -> None:
    gate = threading.Barrier(16)

    def publish(number: int) -> bool:
        gate.wait()
        return ObjectStore(store.url).publish("a.bin", bytes([number]) * 10_000)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(publish, range(16)))
    assert won.count(True) == 1
    assert store.read("a.bin") == bytes([won.index(True)]) * 10_000


@pytest.mark.parametrize("accident", ["slow_down", "internal", "reset", "lost", "stall", "error_body"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_put_counts_once_despite_any_accident(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, accident: Accident, exists: bool
) -> None:
    """A put whose response was lost is recognised as ours; an object of another driver is not."""
    if exists:
        assert store.publish("a.bin", b"theirs")
    proxy = Proxy(store_endpoint(), first(accident, "PUT", "a.bin"))
    with proxy.running() as url:
        assert behind(store, url, monkeypatch, seconds=1).publish("a.bin", b"ours") is not exists
    assert store.read("a.bin") == (b"theirs" if exists else b"ours")
    assert [happened for _, _, happened in proxy.requests].count(accident) == 1


def store_endpoint() -> str:
    return os.environ["AWS_ENDPOINT_URL"]


@pytest.mark.parametrize("seed", range(2))
def test_a_bad_connection_neither_loses_nor_repeats_anything(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)

    def strike(_verb: str, _path: str) -> Accident | None:
        kinds: list[Accident | None] = ["slow_down", "internal", "reset", "lost", None]
        return chance.choices(kinds, [0.15, 0.05, 0.05, 0.05, 0.7])[0]

    proxy = Proxy(store_endpoint(), strike)
    monkeypatch.setattr(object_store, "TRIES", 30)
    with proxy.running() as url:
        far = behind(store, url, monkeypatch)
        assert [far.publish(f"{i}.bin", bytes([i])) for i in range(25)] == [True] * 25
        assert [far.publish(f"{i}.bin", b"again") for i in range(25)] == [False] * 25
        assert [far.read(f"{i}.bin") for i in range(25)] == [bytes([i]) for i in range(25)]
        assert len(far.names()) == 25
    assert {happened for _, _, happened in proxy.requests} >= {"slow_down", "reset", "lost", None}


def test_a_store_that_always_fails_is_reported_after_the_last_retry(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(store_endpoint(), lambda _verb, _path: "slow_down")
    with proxy.running() as url, pytest.raises(StoreError, match=r"cannot publish .*a\.bin: .*SlowDown.* again"):
        behind(store, url, monkeypatch).publish("a.bin", b"ours")
    assert len(proxy.requests) == TRIES


def test_a_store_that_ignores_the_condition_is_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(store_endpoint(), lambda _verb, _path: "unconditional")
    with proxy.running() as url, pytest.raises(StoreError, match="If-None-Match"):
        behind(store, url, monkeypatch).check_writable()
    assert store.names() == [], "the object of the check is deleted"


def test_doctor_checks_put_if_absent_on_the_target(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._output(store.url) == Found(f"{store.url} can be written, and never overwrites an existing file")
    assert doctor._clock(store.url) == Found("agrees with the clock of the output")
    assert store.names() == []
    proxy = Proxy(store_endpoint(), lambda _verb, _path: "unconditional")
    with proxy.running() as url:
        use(url, monkeypatch)
        with pytest.raises(StoreError, match="If-None-Match"):
            doctor._output(store.url)


@pytest.mark.parametrize("url", ["s3://", "ftp://host/path", "s3:///path"])
def test_a_url_without_a_bucket_is_a_mistake_in_the_run_file(url: str) -> None:
    with pytest.raises(ConfigError, match=r"output\.path.*s3://BUCKET"):
        open_store(url)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="environment") as refused:
        open_store("s3://KEY:SECRET@bucket/run")
    assert "SECRET" not in str(refused.value)


def test_a_refusal_of_the_store_is_reported_at_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(os.environ["AWS_ENDPOINT_URL"], lambda _verb, _path: "forbidden")
    with proxy.running() as url, pytest.raises(StoreError, match="AccessDenied"):
        behind(store, url, monkeypatch).check_writable()
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("operation", ["read", "list", "publish", "check"])
def test_a_bucket_that_does_not_exist_is_named_by_every_operation(
    server: str, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    use(server, monkeypatch)
    missing = ObjectStore("s3://another-bucket/run")
    operations = {
        "read": lambda: open_run(missing.url),
        "list": missing.names,
        "publish": lambda: missing.publish("run.json", b"{}"),
        "check": missing.check_writable,
    }
    with pytest.raises(StoreError, match="another-bucket/run does not exist"):
        operations[operation]()


def test_a_run_in_the_store_equals_the_run_in_a_folder(store: ObjectStore, tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run")
    run.work(run.store)
    run.work(store)
    run.work(store)
    names = [name for name in run.store.names() if name != "_receipts"]
    names += [f"_receipts/{name}" for name in run.store.names("_receipts")]
    assert [store.read(name) for name in names] == [run.store.read(name) for name in names]
    assert store.names() == run.store.names()
    assert verify(store).problems == []
    with open_run(store.url) as remote, open_run(tmp_path / "run") as local:
        query = "SELECT * FROM explanations ORDER BY ALL"
        assert remote.arrow(query).equals(local.arrow(query))


def test_a_merged_copy_in_the_store_equals_the_run_in_a_folder(store: ObjectStore, tmp_path: Path) -> None:
    run = RunMaker(tmp_path / "run").complete()
    run.work(store)
    assert compact(store, Limits(rows=6)).new
    assert not compact(store).new
    found = files_of(store, run.manifest.run_id)
    assert (len(found.merged), found.unmerged) == (2, ())
    assert verify(store).problems == []
    query = "SELECT * FROM explanations ORDER BY ALL"
    with open_run(store.url) as remote, open_run(tmp_path / "run") as local:
        assert remote.arrow(query).equals(local.arrow(query))
        drop(store)
        assert remote.arrow(query).equals(local.arrow(query)), "an open run falls back to the parts"
    assert store.names(COMPACT) == []


@pytest.mark.parametrize("accident", ["lost", "reset", "slow_down", "internal"])
def test_a_record_counts_if_the_response_to_its_put_was_lost(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accident: Accident
) -> None:
    run = RunMaker(tmp_path / "run")
    run.work(store)
    proxy = Proxy(store_endpoint(), first(accident, "PUT", "record-000001.json"))
    with proxy.running() as url:
        assert compact(behind(store, url, monkeypatch)).new
    assert [happened for _, _, happened in proxy.requests if happened] == [accident]
    use(proxy.target, monkeypatch)
    assert len(files_of(store, run.manifest.run_id).merged) == 1
    assert verify(store).problems == []


def test_an_atlas_in_the_store_can_be_queried(store: ObjectStore, tmp_path: Path) -> None:
    for seed in (1, 2):
        RunMaker(tmp_path / str(seed), seed=seed).work(ObjectStore(f"{store.url}/run-{seed}"))
    assert is_atlas(store.url)
    with open_atlas(store.url) as atlas:
        assert atlas.arrow("SELECT folder FROM runs ORDER BY folder")["folder"].to_pylist() == ["run-1", "run-2"]
        assert atlas.arrow("SELECT * FROM explanations").num_rows == 14


def test_status_of_a_run_in_the_store(store: ObjectStore) -> None:
    maker = RunMaker(Path("unused"))
    take_ownership(store, maker.manifest)
    assert status(store, time.time()).state == "starting"
    publish_part(store, maker.table(PARTS[0]), maker.footer(PARTS[0]))
    young = status(store, time.time())
    assert (young.state, young.chunks_done, young.images_done) == ("going", 1, Count(2, True))
    assert abs(young.now - young.last_sign) < 60
    maker.work(store)
    done = status(store, time.time())
    assert (done.state, done.images_done, done.damaged) == ("complete", Count(5, True), {})
    assert done.failures.codes == {"explain/nonfinite": 1, "decode/truncated": 1, "shard/tar": 1}
    assert [(file.name, file.size > 0) for file in store.listed()] == [
        *((part.file, True) for part in PARTS),
        ("run.json", True),
    ]


def test_status_ends_with_exit_code_5_if_the_store_does_not_answer(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(store.url, lambda *_: "slow_down").running() as proxy:
        use(proxy, monkeypatch)
        with pytest.raises(typer.Exit) as ended:
            show_status(store.url)
    assert ended.value.exit_code == 5
