"""A cache with a bound on its bytes."""

from pathlib import Path

from pipeline.viewer.bounded import Bounded
from pipeline.viewer.library import find_runs


def test_it_forgets_what_was_not_used_for_longest() -> None:
    made: list[str] = []

    def value(name: str) -> bytes:
        return cache.get(name, lambda: made.append(name) or name.encode() * 4)  # type: ignore[func-returns-value]

    cache: Bounded[bytes] = Bounded(8, len)
    assert [value(name) for name in "aabac"] == [b"aaaa", b"aaaa", b"bbbb", b"aaaa", b"cccc"]
    assert made == ["a", "b", "c"]
    assert cache.peek("b") is None
    assert cache.peek("a") == b"aaaa"


def test_a_value_larger_than_the_bound_is_given_and_then_forgotten() -> None:
    cache: Bounded[bytes] = Bounded(8, len)
    assert cache.get("large", lambda: b"x" * 100) == b"x" * 100
    cache.put("small", b"y")
    assert cache.peek("large") is None
    assert cache.peek("small") == b"y"


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("one/run", "two/run", "two/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
    places = find_runs([str(tmp_path / "one" / "run"), str(tmp_path / "two")])
    assert [place.name for place in places] == ["one/run", "two/other", "two/run"]
    assert [place.name for place in find_runs([str(tmp_path / "two")])] == ["other", "run"]
    assert len(find_runs([str(tmp_path / "one" / "run")] * 2)) == 1
