"""A store that throttles, fails, hangs and lies at high rates: runs end complete, with each row once."""

import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from faults.checker import check
from faults.s3 import Accident, Proxy, use
from handmade import PARTS, RunMaker

from jobs.support.console import EXIT_STORE
from pipeline.errors import StoreError
from pipeline.results.query import open_run
from pipeline.results.summary import totals
from pipeline.results.verify import verify
from pipeline.storage import object_store
from pipeline.storage.object_store import TRIES, ObjectStore

RATES: dict[Accident | None, float] = {
    "slow_down": 0.30, "internal": 0.05, "reset": 0.05, "stall": 0.02, "error_body": 0.02, "lost": 0.02, "short": 0.02,
    None: 0.52,
}  # fmt: skip
_PATIENCE = 0.5
"""Seconds until a request times out; a stall is a little longer."""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 0.01)


class WorstHour:
    """Draws an accident for each request; an error in place of a listing does not occur twice in a row."""

    def __init__(self, seed: int) -> None:
        self._chance, self._lied = random.Random(seed), False

    def __call__(self, verb: str, path: str) -> Accident | None:
        (accident,) = self._chance.choices(list(RATES), list(RATES.values()))
        if verb == "GET" and "list-type" in path:
            accident, self._lied = (None, False) if self._lied else (accident, accident == "error_body")
        return accident


def until_done(act: Callable[[], object]) -> int:
    """Repeat a command, as a user does after exit code 5, and return how many times it ended with that code."""
    for failures in range(100):
        with contextlib.suppress(StoreError):
            act()
            return failures
    raise AssertionError("the command never succeeded")


def copied(store: ObjectStore, folder: Path) -> Path:
    """Copy the run to a folder, for readers without object stores."""
    for name in (name for name in store.names() if not name.startswith("_")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(store.read(name))
    return folder


@pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, 41), marks=[pytest.mark.campaign, pytest.mark.timeout(3600)])]
)
def test_a_run_on_a_bad_store_equals_the_run_on_a_disk(
    server: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seeds: range
) -> None:
    local = RunMaker(tmp_path / "here").complete()
    happened: Counter[tuple[str, Accident | None]] = Counter()
    failures = 0
    for seed in seeds:
        place = ObjectStore(f"{store.url}/{seed}")
        proxy = Proxy(server, WorstHour(seed), stall=1.5 * _PATIENCE)
        with proxy.running() as url:
            use(url, monkeypatch)
            far = ObjectStore(place.url, _PATIENCE)
            failures += until_done(partial(local.work, far))
            failures += until_done(partial(check_verify, far)) + until_done(partial(check_counts, far))
        use(server, monkeypatch)
        assert place.names() == local.store.names()
        assert [place.read(part.file) for part in PARTS] == [local.store.read(part.file) for part in PARTS]
        assert check(copied(place, tmp_path / str(seed)), images=5, methods=2) == []
        happened.update((verb, accident) for verb, _, accident in proxy.requests)
    assert (object_store.TRIES, StoreError.exit_code) == (6, EXIT_STORE)
    assert {verb for verb, accident in happened if accident == "slow_down"} >= {"PUT", "GET", "HEAD"}
    assert {accident for _, accident in happened} >= {"slow_down", "internal", "reset"}
    if len(seeds) > 1:
        assert {accident for _, accident in happened} == set(RATES)
        assert failures, "no session met six errors in a row, so exit code 5 was not tested"


def check_verify(far: ObjectStore) -> None:
    """Check that bad responses are never taken for damage, which --repair would delete."""
    assert verify(far).problems == []


def check_counts(far: ObjectStore) -> None:
    assert (totals(far).images, totals(far).rows) == (5, 7)
    with open_run(far.url) as run:
        assert run.arrow("SELECT count(*) AS rows FROM parts").to_pylist() == [{"rows": 10}]


READS: dict[str, Callable[[ObjectStore], object]] = {
    "read": lambda store: store.read("a.bin"),
    "empty": lambda store: store.read("empty"),
    "stat": lambda store: store.stat("a.bin").size,
    "piece": lambda store: store.piece("a.bin", 100, 900, None),
    "names": lambda store: store.names(),
    "listed": lambda store: [(file.name, file.size) for file in store.listed()],
    "find": lambda store: store.find("", deep=True),
    "publish": lambda store: store.publish("b.bin", b"theirs"),
}


@pytest.mark.parametrize("accident", ["error_body", "short"])
@pytest.mark.parametrize("read", READS)
def test_an_invalid_response_is_not_taken_for_data(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, read: str, accident: Accident
) -> None:
    """The first response is an error with status 200, or half of the data as if it were complete."""
    for name, data in (("a.bin", bytes(range(256)) * 4), ("b.bin", b"ours"), ("empty", b"")):
        store.publish(name, data)
    expected, left = READS[read](store), [accident]
    with Proxy(os.environ["AWS_ENDPOINT_URL"], lambda *_: left.pop() if left else None).running() as url:
        use(url, monkeypatch)
        assert READS[read](ObjectStore(store.url)) == expected
    assert not left


def test_a_store_that_only_answers_with_errors_is_reported_and_is_not_damage(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    RunMaker(tmp_path / "run").work(store)
    strike = lambda _verb, path: "error_body" if "/part-" in path else None  # noqa: E731
    with Proxy(os.environ["AWS_ENDPOINT_URL"], strike).running() as url:
        use(url, monkeypatch)
        far = ObjectStore(store.url)
        for read in (verify, totals, lambda far: open_run(far.url)):
            with pytest.raises(StoreError, match=r"cannot (read|get metadata of) s3://.*part-"):
                read(far)
        with pytest.raises(StoreError, match=r"cannot read s3://.*part-"):
            far.piece(PARTS[0].file, 0, 8, None)


def test_pauses_are_random_up_to_a_bound_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_LONGEST_PAUSE", 1.0)
    drawn = [list(object_store._pauses()) for _ in range(1000)]
    assert {len(pauses) for pauses in drawn} == {TRIES - 1} == {5}
    for bound, pauses in zip([0.2, 0.4, 0.8, 1.0, 1.0], zip(*drawn, strict=True), strict=True):
        assert 0 <= min(pauses) < 0.1 * bound
        assert 0.9 * bound < max(pauses) <= bound
        assert 0.45 * bound < sum(pauses) / len(pauses) < 0.55 * bound
